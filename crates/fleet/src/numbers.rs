//! What a service counts of itself, for Prometheus. Labels are words of this program's own, and never a machine's
//! name or what a machine said: how many series there are doesn't grow.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use undercroft_journal::AlarmKind;
use undercroft_metrics::{Asked, NumberKind, Text, seconds};
use undercroft_planner::{Waiting, drift::DriftKind};

use crate::standing::{APPROVAL, Board, Course};

/// How long after an address could not be listened at it is tried again, in milliseconds: the network that it is
/// of may come up after the service.
const LISTEN_AGAIN_MS: u64 = 30_000;

/// All of it as text.
fn text(board: &Board) -> String {
    let mut out = Text::new("undercroft_serve");
    machines(board, &mut out);
    rounds(board, &mut out);
    drift(board, &mut out);
    let standing = board.standing();
    out.family(
        "alarms",
        NumberKind::Gauge,
        "Who was seen at work on the boot network within a day, by kind.",
    );
    for kind in AlarmKind::ALL {
        let count = standing.alarms.get(&kind).copied().unwrap_or(0);
        out.number("alarms", &[("kind", kind.as_str())], count);
    }
    out.one(
        "journal_entries",
        NumberKind::Gauge,
        "Entries of the journal.",
        board.view().next_seq,
    );
    out.one(
        "journal_bytes",
        NumberKind::Gauge,
        "Size of the journal's files.",
        standing.journal_bytes,
    );
    out.finish()
}

fn machines(board: &Board, out: &mut Text) {
    out.family(
        "machines",
        NumberKind::Gauge,
        "Machines of the inventory, by how far they have come.",
    );
    for (state, count) in board.states() {
        out.number("machines", &[("state", state.as_str())], count);
    }
    let told = board.told();
    out.family(
        "course",
        NumberKind::Gauge,
        "What the service is about: the one that is 1.",
    );
    for course in Course::ALL {
        let is = u8::from(course == told.course);
        out.number("course", &[("course", course.as_str())], is);
    }
    out.family(
        "waiting",
        NumberKind::Gauge,
        "Machines that aren't gone on with, by what for.",
    );
    let mut waiting: BTreeMap<&str, u64> = Waiting::WORDS.map(|word| (word, 0)).into();
    waiting.insert(APPROVAL, 0);
    for wait in &told.waits {
        if let Some(count) = waiting.get_mut(wait.waits_for.as_str()) {
            *count += 1;
        }
    }
    for (reason, count) in waiting {
        out.number("waiting", &[("reason", reason)], count);
    }
}

fn drift(board: &Board, out: &mut Text) {
    let standing = board.standing();
    out.family(
        "drift",
        NumberKind::Gauge,
        "Findings of two looks that nobody has said are meant, by kind.",
    );
    for kind in DriftKind::ALL {
        let count = standing.drift.get(&kind).copied().unwrap_or(0);
        out.number("drift", &[("kind", kind.as_str())], count);
    }
    out.one(
        "drift_held",
        NumberKind::Gauge,
        "Findings that somebody has said are meant.",
        standing.drift_held,
    );
    out.one(
        "drift_unseen",
        NumberKind::Gauge,
        "What the latest look for drift could not see.",
        standing.drift_unseen,
    );
}

fn rounds(board: &Board, out: &mut Text) {
    let standing = board.standing();
    out.family(
        "rounds_total",
        NumberKind::Counter,
        "Rounds that have ended, by outcome.",
    );
    let done = standing.rounds.saturating_sub(standing.rounds_failed);
    for (outcome, count) in [("done", done), ("failed", standing.rounds_failed)] {
        out.number("rounds_total", &[("outcome", outcome)], count);
    }
    out.one(
        "failures_in_a_row",
        NumberKind::Gauge,
        "Rounds that could not be done, in a row.",
        standing.failures,
    );
    let since = standing.good_at.unwrap_or(board.began).elapsed();
    out.one(
        "since_good_round_seconds",
        NumberKind::Gauge,
        "Since the latest round that was done, or the start.",
        seconds(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    );
    out.one(
        "wedged",
        NumberKind::Gauge,
        "Whether a part of a round has been silent for longer than it may be.",
        u8::from(board.pulse.wedged().is_some()),
    );
    out.one(
        "builds_failing",
        NumberKind::Gauge,
        "Machines whose systems can't be built now.",
        standing.builds_failing,
    );
    out.one(
        "builds_failed_total",
        NumberKind::Counter,
        "Builds that have failed.",
        standing.builds_failed,
    );
    out.one(
        "faults_total",
        NumberKind::Counter,
        "Promises that the engine broke.",
        standing.faults,
    );
}

/// Gives the numbers to whoever asks at that address, until it is dropped. That it can't be listened at is said
/// once, and tried again.
pub(crate) async fn give(at: SocketAddr, board: Arc<Board>, say: impl Fn(&str)) {
    let mut said = false;
    let listener = loop {
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            Err(error) if !said => {
                say(&format!(
                    "no numbers are given at {at}: {error}; it is tried again"
                ));
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(LISTEN_AGAIN_MS)).await;
    };
    if let Ok(at) = listener.local_addr() {
        say(&format!("numbers are given at http://{at}/metrics"));
    }
    let (ask, mut asked) = mpsc::channel::<Asked>(1);
    // Both end with this.
    let mut beside = JoinSet::new();
    beside.spawn(undercroft_metrics::serve(listener, ask));
    while let Some(tell) = asked.recv().await {
        // Whoever asked may have gone.
        let _ = tell.send(text(&board).into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use undercroft_model::{NodeName, inventory::parse};
    use undercroft_planner::Rounds;
    use undercroft_render::{Lock, RenderInput, render};

    use super::*;

    const EXAMPLE: &str = include_str!("../../../examples/basement/undercroft.toml");

    fn families(text: &str) -> BTreeSet<&str> {
        let types = text.lines().filter_map(|l| l.strip_prefix("# TYPE "));
        types.filter_map(|l| l.split(' ').next()).collect()
    }

    #[tokio::test]
    async fn how_a_service_stands_can_be_read_off_its_numbers() {
        let board = Board::default();
        let inventory = parse("undercroft.toml", EXAMPLE.as_bytes())
            .inventory
            .unwrap();
        let machines = inventory.nodes.len();
        let mut rounds = Rounds::new(60_000);
        rounds.over(0, Some("no route"));
        board.over(&rounds, Some("no route"));
        rounds.built(&NodeName::new("gpu-01").unwrap(), 0, Some("no such file"));
        board.over(&rounds, Some("no route"));
        board.change(|standing| {
            standing.inventory = Some(Arc::new(inventory));
            standing.course = Course::Waiting;
            let reason = "no answer".to_owned();
            standing.waits.insert(
                NodeName::new("gpu-01").unwrap(),
                Waiting::Unreachable { reason },
            );
            standing.alarms.insert(AlarmKind::Flood, 2);
            standing.journal_bytes = 4096;
            standing.drift.insert(DriftKind::Cordon, 3);
            standing.drift_held = 1;
        });
        let text = text(&board);
        for line in [
            &format!("undercroft_serve_machines{{state=\"unknown\"}} {machines}"),
            "undercroft_serve_machines{state=\"ready\"} 0",
            "undercroft_serve_course{course=\"waiting\"} 1",
            "undercroft_serve_course{course=\"working\"} 0",
            "undercroft_serve_waiting{reason=\"unreachable\"} 1",
            "undercroft_serve_waiting{reason=\"approval\"} 0",
            "undercroft_serve_rounds_total{outcome=\"failed\"} 2",
            "undercroft_serve_rounds_total{outcome=\"done\"} 0",
            "undercroft_serve_failures_in_a_row 1",
            "undercroft_serve_wedged 0",
            "undercroft_serve_builds_failing 1",
            "undercroft_serve_builds_failed_total 1",
            "undercroft_serve_faults_total 0",
            "undercroft_serve_alarms{kind=\"flood\"} 2",
            "undercroft_serve_drift{kind=\"cordon\"} 3",
            "undercroft_serve_drift{kind=\"unit\"} 0",
            "undercroft_serve_drift_held 1",
            "undercroft_serve_drift_unseen 0",
            "undercroft_serve_journal_entries 0",
            "undercroft_serve_journal_bytes 4096",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        // No label is a machine's name.
        assert!(!text.contains("gpu-01"), "{text}");
    }

    /// The expressions of rules and panels in the rendered tree.
    fn expressions(tree: &str) -> Vec<&str> {
        let names = tree.match_indices("undercroft_serve_");
        names
            .map(|(at, _)| {
                let rest = tree.get(at..).unwrap();
                let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
                rest.get(..end.unwrap_or(rest.len())).unwrap()
            })
            .collect()
    }

    #[tokio::test]
    async fn rules_and_the_dashboard_ask_for_numbers_that_are_given() {
        let with_port = EXAMPLE.replacen("[network]\n", "[network]\nmetrics_port = 9110\n", 1);
        let inventory = parse("undercroft.toml", with_port.as_bytes())
            .inventory
            .unwrap();
        let lock = Lock::defaults();
        let tree = render(&RenderInput {
            inventory: &inventory,
            lock: &lock,
            apps: &[],
            overrides: &BTreeMap::new(),
            dev: None,
            standing: None,
        })
        .unwrap();
        let given = text(&Board::default());
        let given = families(&given);
        let mut files = 0;
        for (path, text) in &tree.files {
            let asked = expressions(text);
            files += usize::from(!asked.is_empty());
            for name in asked {
                assert!(given.contains(name), "{path}: {name}");
            }
        }
        assert_eq!(files, 2, "the rules and the dashboard");
    }
}
