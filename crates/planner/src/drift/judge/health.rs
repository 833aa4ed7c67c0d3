//! Units that have failed, and what a machine's own health says.

use super::findings::Of;
use crate::drift::{DriftKind, MachineLook};

/// How old a report of a machine's health may be, in seconds: ten of its rounds (`undercroft.health.intervalSec`).
const HEALTH_AGE_S_MAX: u64 = 600;

pub(super) fn judge(of: &mut Of<'_>, machine: &MachineLook) {
    match &machine.failed_units {
        None => of.unseen(
            DriftKind::Unit,
            None,
            "systemd there doesn't say which units have failed",
        ),
        Some(units) => {
            for unit in units {
                of.found(DriftKind::Unit, unit, "not failed", "failed");
            }
        }
    }
    let report = match &machine.health {
        None => return of.unseen(DriftKind::Health, None, "it has written no health.json"),
        Some(Err(why)) => {
            return of.unseen(DriftKind::Health, None, &format!("its health.json: {why}"));
        }
        Some(Ok(report)) => report,
    };
    if report.boot_id != machine.boot_id {
        return of.unseen(
            DriftKind::Health,
            None,
            "its health.json is of another boot",
        );
    }
    let age_s = machine
        .time_s
        .map(|now| now.saturating_sub(report.checked_at_s));
    if age_s.is_none_or(|age| age > HEALTH_AGE_S_MAX) {
        let why = match age_s {
            Some(age) => {
                format!("its health.json is {age} s old: look at undercroft-health.timer on it")
            }
            None => "how old its health.json is can't be told".to_owned(),
        };
        return of.unseen(DriftKind::Health, None, &why);
    }
    for check in &report.checks {
        if !check.answered {
            // Whom it asked was silent, which says nothing of this machine.
            of.unseen(
                DriftKind::Health,
                Some(&check.name),
                "nobody answered that check",
            );
        } else if !check.ok {
            let said = if check.output.is_empty() {
                "failed"
            } else {
                &check.output
            };
            of.found(DriftKind::Health, &check.name, "passes", said);
        }
    }
}
