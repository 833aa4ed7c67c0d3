//! What has drifted, for people.

use std::collections::BTreeSet;

use undercroft_fleet::{
    documents::Drift,
    drift::{DriftFinding, DriftHold, DriftKind, Fix, Unseen},
};
use undercroft_model::NodeName;

use crate::{
    style::{BOLD, DIM, GOOD, HINT, WARN, paint},
    text::{clock, plain_line},
};

/// The document as people read it.
pub(super) fn describe(drift: &Drift) -> String {
    let mut out = String::new();
    let drifted: Vec<&DriftFinding> = drift.findings.iter().filter(|f| f.is_drift()).collect();
    let new = |f: &&DriftFinding| !f.counts && f.hold.is_none();
    let new: Vec<&DriftFinding> = drift.findings.iter().filter(new).collect();
    for finding in &drifted {
        out.push_str(&whole(finding));
    }
    section(
        &mut out,
        "Seen once; drift if the next look has it too:",
        &new,
        |f| one_line(f.node.as_ref(), f.kind, &f.sentence),
    );
    section(&mut out, "Held:", &drift.holds, |hold| of_hold(drift, hold));
    section(&mut out, "Not seen:", &drift.unseen, of_unseen);
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&head(drift, &drifted));
    out.push('\n');
    out
}

fn section<T>(out: &mut String, title: &str, of: &[T], line: impl Fn(&T) -> String) {
    if of.is_empty() {
        return;
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&format!("{}\n", paint(BOLD, title)));
    for one in of {
        out.push_str(&format!("  {}\n", line(one)));
    }
}

fn name(node: Option<&NodeName>) -> &str {
    node.map_or("cluster", NodeName::as_str)
}

fn one_line(node: Option<&NodeName>, kind: DriftKind, text: &str) -> String {
    format!("{} {kind}: {}", paint(BOLD, name(node)), plain_line(text))
}

/// A finding that counts.
fn whole(finding: &DriftFinding) -> String {
    let head = format!("{} {}", name(finding.node.as_ref()), finding.kind);
    let fix = match finding.fix {
        Fix::Auto => "`undercroft up` or `serve` mends it",
        Fix::Plan => "a plan mends it",
        Fix::Person => "a person mends it",
    };
    let seen = if finding.seen { "" } else { "; not seen now" };
    format!(
        "{}: {}\n  {}\n  {} {}\n",
        paint(WARN, &head),
        plain_line(&finding.sentence),
        paint(
            DIM,
            &format!("since {}{seen}; {fix}", clock(finding.since_ms))
        ),
        paint(HINT, "next:"),
        plain_line(&finding.next),
    )
}

fn of_hold(drift: &Drift, hold: &DriftHold) -> String {
    let found = drift.findings.iter();
    let found = found.filter(|f| f.hold.as_ref() == Some(hold)).count();
    let found = match found {
        0 => "nothing of it is found now".to_owned(),
        1 => "one finding".to_owned(),
        n => format!("{n} findings"),
    };
    let text = format!(
        "{} (by {} since {}; {found})",
        hold.reason,
        hold.owner,
        clock(hold.since_ms)
    );
    one_line(hold.node.as_ref(), hold.kind, &text)
}

fn of_unseen(unseen: &Unseen) -> String {
    let of_api = |kind: &DriftKind| kind.is_of_api();
    let all = |of: &dyn Fn(&DriftKind) -> bool| DriftKind::ALL.iter().filter(|k| of(k)).count();
    let kinds: Vec<&str> = unseen.kinds.iter().map(|kind| kind.as_str()).collect();
    // All that a machine tells, or all that the API tells.
    let everything = kinds.len() == all(&of_api) || kinds.len() == all(&|k| !of_api(k));
    let what = match (&unseen.subject, everything) {
        (Some(subject), _) => format!(" {} {}", kinds.join(", "), plain_line(subject)),
        (None, true) => String::new(),
        (None, false) => format!(" {}", kinds.join(", ")),
    };
    let node = paint(BOLD, name(unseen.node.as_ref()));
    format!("{node}{what}: {}", plain_line(&unseen.why))
}

fn head(drift: &Drift, drifted: &[&DriftFinding]) -> String {
    if drifted.is_empty() {
        return match drift.machines {
            0 => "No machine of these was up yet: there is nothing to look at.".to_owned(),
            1 => paint(
                GOOD,
                "Nothing has drifted on the one machine that was asked.",
            ),
            n => paint(
                GOOD,
                &format!("Nothing has drifted on the {n} machines that were asked."),
            ),
        };
    }
    let on = |f: &&DriftFinding| {
        f.node
            .as_ref()
            .map_or("the cluster".to_owned(), NodeName::to_string)
    };
    let on: BTreeSet<String> = drifted.iter().map(on).collect();
    let things = match drifted.len() {
        1 => "One thing has drifted".to_owned(),
        n => format!("{n} things have drifted"),
    };
    let on: Vec<&str> = on.iter().map(String::as_str).collect();
    paint(WARN, &format!("{things}: on {}.", crate::text::list(&on)))
}

#[cfg(test)]
mod tests {
    use undercroft_fleet::drift::DriftReport;

    use super::*;

    fn finding(node: Option<&str>, kind: DriftKind, looks: u32, sentence: &str) -> DriftFinding {
        DriftFinding {
            kind,
            node: node.map(|node| NodeName::new(node).unwrap()),
            subject: None,
            since_ms: 1_767_225_600_000,
            looks,
            counts: looks > 1,
            seen: true,
            want: "one".to_owned(),
            have: "another".to_owned(),
            fix: kind.fix(),
            sentence: sentence.to_owned(),
            next: "do something".to_owned(),
            hold: None,
        }
    }

    fn shown(machines: usize, report: DriftReport, holds: &[DriftHold]) -> String {
        let drift = Drift::of("cellar", 0, machines, report, holds);
        let text = describe(&drift);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn what_has_drifted_is_told_apart_from_what_is_new_held_or_not_seen() {
        let held = DriftHold {
            node: Some(NodeName::new("gpu-01").unwrap()),
            kind: DriftKind::Cordon,
            owner: "ada".to_owned(),
            reason: "its fan is on order".to_owned(),
            since_ms: 1_767_225_600_000,
        };
        let mut cordon = finding(Some("gpu-01"), DriftKind::Cordon, 7, "its Node is cordoned");
        cordon.hold = Some(held.clone());
        let mut away = finding(
            Some("gpu-02"),
            DriftKind::Label,
            3,
            "its Node lacks the label a=b",
        );
        away.seen = false;
        let unseen =
            |node: Option<&str>, kinds: Vec<DriftKind>, subject: Option<&str>, why: &str| Unseen {
                node: node.map(|node| NodeName::new(node).unwrap()),
                kinds,
                subject: subject.map(str::to_owned),
                why: why.to_owned(),
            };
        let of_api = DriftKind::ALL
            .into_iter()
            .filter(|k| k.is_of_api())
            .collect();
        let report = DriftReport {
            findings: vec![
                finding(
                    None,
                    DriftKind::Application,
                    2,
                    "argocd/grafana is OutOfSync, \u{1b}[2JHealthy",
                ),
                cordon,
                finding(
                    Some("gpu-01"),
                    DriftKind::Unit,
                    1,
                    "its unit a.service has failed",
                ),
                away,
            ],
            unseen: vec![
                unseen(None, of_api, None, "no route to host"),
                unseen(
                    Some("gpu-01"),
                    vec![DriftKind::Health],
                    Some("kubernetes"),
                    "nobody answered that check",
                ),
                unseen(
                    Some("gpu-01"),
                    vec![DriftKind::Key],
                    None,
                    "it can't be told",
                ),
            ],
        };
        insta::assert_snapshot!("drift", shown(2, report, &[held]));
    }

    #[test]
    fn that_nothing_has_drifted_is_said_of_how_many() {
        for (machines, says) in [
            (0, "nothing to look at"),
            (1, "one machine"),
            (3, "3 machines"),
        ] {
            let text = shown(machines, DriftReport::default(), &[]);
            assert!(text.contains(says) && text.lines().count() == 1, "{text}");
        }
    }
}
