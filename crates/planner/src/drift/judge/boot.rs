//! What a machine runs, what it has booted, and what it boots next.

use undercroft_model::SystemTarget;

use super::findings::Of;
use crate::drift::{DriftKind, MachineLook};

pub(super) fn judge(
    of: &mut Of<'_>,
    target: Option<&Result<SystemTarget, String>>,
    machine: &MachineLook,
) {
    system(of, target, machine.current.as_deref());
    match (machine.booted.as_deref(), machine.current.as_deref()) {
        (Some(booted), Some(current)) if booted != current => {
            of.found(DriftKind::Booted, "", current, booted);
        }
        (Some(_), Some(_)) => {}
        _ => of.unseen(DriftKind::Booted, None, "it doesn't say what it has booted"),
    }
    match (&machine.default_system, &machine.proven_system) {
        (Some(default), Some(proven)) if default != proven => {
            of.found(DriftKind::BootDefault, "", proven, default);
        }
        (Some(_), Some(_)) => {}
        // Many a machine has a boot loader that keeps no proof: that is how it is made, and no news.
        (_, None) => of.unseen_quietly(DriftKind::BootDefault),
        (None, Some(_)) => of.unseen(
            DriftKind::BootDefault,
            None,
            "its boot loader names no default entry",
        ),
    }
    match &machine.boot {
        None => of.unseen_quietly(DriftKind::FellBack),
        Some(Err(why)) => of.unseen(DriftKind::FellBack, None, &format!("its boot.json: {why}")),
        Some(Ok(report)) => {
            if let Some(left) = &report.fell_back {
                let failed = match left.failed.as_slice() {
                    [] => "no check had failed".to_owned(),
                    failed => format!("failed: {}", failed.join(", ")),
                };
                let have = format!("{} ({failed})", left.to_system);
                of.found(DriftKind::FellBack, "", &left.system, &have);
            }
        }
    }
}

fn system(of: &mut Of<'_>, target: Option<&Result<SystemTarget, String>>, current: Option<&str>) {
    let unseen = |of: &mut Of<'_>, why: &str| of.unseen(DriftKind::System, None, why);
    match (target, current) {
        (None, _) => unseen(
            of,
            "its system was not built, so nobody knows what it should run",
        ),
        (Some(Err(why)), _) => unseen(of, &format!("its system could not be built: {why}")),
        (Some(Ok(_)), None) => unseen(of, "it doesn't say what it runs"),
        (Some(Ok(target)), Some(current)) if target.toplevel != current => {
            of.found(DriftKind::System, "", &target.toplevel, current);
        }
        (Some(Ok(_)), Some(_)) => {}
    }
}
