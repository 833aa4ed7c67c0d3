//! `undercroft doctor`.

use std::path::Path;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use undercroft_fleet::verdict;
use undercroft_journal::{ControllerLock, events_and_marks};
use undercroft_model::{NodeName, NodeState};
use undercroft_netboot::timeline::{Timeline, timeline};
use undercroft_process::clock::wall_ms_now;

use undercroft_model::document::Version;

use crate::{
    alarms, complete,
    documents::Doctor,
    done::Done,
    error::CliError,
    journal::{fold, look},
    project::OwnedProject,
    style::{BOLD, DIM, GOOD, HINT, WARN, paint},
    summary::failure_words,
    text::{Table, clock, plain},
    ui::Ui,
};

/// The most lines of a timeline that are shown without --all.
const LINES_MAX: usize = 40;

/// Say why a machine doesn't boot: its timeline, and the packet that is missing
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// The machine
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    node: NodeName,
    /// Show the whole timeline, earlier boots included
    #[arg(long)]
    all: bool,
    /// Print timeline and diagnosis as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft doctor vm-01
  undercroft doctor vm-01 --json | jq -r .diagnosis.summary

With --json: {\"node\", \"state\", \"verdict\", \"next\", \"alarms\", \"diagnosis\": {\"missing\", \"summary\", \"hints\"}, \"timeline\":
[{\"wall_ms\", \"source\", \"text\", …}]}";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &DoctorArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(at)?;
    let inventory = project.load(ui)?;
    project.node(&inventory, &args.node)?;
    let store = look(&project)?;
    let (rows, waiting) = match &store {
        Some(store) => (
            store.timeline(&args.node).map_err(|e| CliError::from(&e))?,
            store.pending().map_err(|e| CliError::from(&e))?,
        ),
        None => (Vec::new(), Vec::new()),
    };
    let alarms = alarms::of(store.as_ref(), &args.node)?;
    let (events, marks) = events_and_marks(&rows);
    let Timeline { entries, diagnosis } = timeline(&events, &marks, wall_ms_now());
    let view = fold(&project)?;
    let node = view.as_ref().and_then(|view| view.nodes.get(&args.node));
    let state = node.map_or(NodeState::Unknown, |node| node.state);
    let running = ControllerLock::holder(&project.state()).is_some();
    let verdict = verdict::judge(&args.node, node, &waiting, running, &diagnosis);
    if args.json {
        ui.json(&Doctor {
            version: Version,
            node: args.node.clone(),
            state,
            diagnosis,
            verdict: verdict.summary,
            next: verdict.next,
            alarms,
            timeline: rows,
        })?;
        return Ok(Done::Well);
    }
    ui.line(&format!("{}: {state}", paint(BOLD, args.node.as_str())))?;
    if rows.is_empty() {
        ui.line("Nothing was ever seen of it.")?;
    }
    let since_ms = entries.first().map_or(0, |entry| entry.at_ms);
    let mut lines: Vec<(u64, &'static str, String)> = Vec::new();
    if args.all {
        lines.extend(
            rows.iter()
                .map(|row| (row.wall_ms, row.source.as_str(), plain(&row.text))),
        );
    } else {
        lines.extend(entries.iter().map(|entry| {
            let times = if entry.count > 1 {
                format!(" ({} times)", entry.count)
            } else {
                String::new()
            };
            (
                entry.at_ms,
                stage(entry.stage),
                format!("{}{times}", plain(&entry.text)),
            )
        }));
        let others = rows
            .iter()
            .filter(|row| row.detail.is_none() && row.wall_ms >= since_ms);
        lines.extend(others.map(|row| (row.wall_ms, row.source.as_str(), plain(&row.text))));
        lines.sort_by_key(|(at_ms, _, _)| *at_ms);
        let hidden = lines.len().saturating_sub(LINES_MAX);
        if hidden > 0 {
            ui.line(&paint(
                DIM,
                &format!("({hidden} earlier lines; --all shows them)"),
            ))?;
            lines.drain(..hidden);
        }
    }
    let mut table = Table::plain(0);
    for (at_ms, source, text) in &lines {
        table.row([
            paint(DIM, &format!("{}.{:03}", clock(*at_ms), at_ms % 1000)),
            (*source).to_owned(),
            text.replace('\n', " "),
        ]);
    }
    ui.print(&table.render())?;
    let style = if verdict.good { GOOD } else { WARN };
    ui.line(&format!("\n{}", paint(style, &plain(&verdict.summary))))?;
    for next in &verdict.next {
        ui.line(&format!("  {} {}", paint(HINT, "next:"), plain(next)))?;
    }
    for waiting in waiting.iter().filter(|waiting| waiting.node == args.node) {
        ui.line(&format!(
            "  {} at {}, word {}, fingerprint {}",
            paint(BOLD, "waits:"),
            waiting.report.address,
            plain(waiting.word.as_deref().unwrap_or("none")),
            plain(&waiting.report.fingerprint)
        ))?;
    }
    if !alarms.is_empty() {
        ui.line(&format!(
            "\n{}",
            paint(WARN, "Somebody else was at work on the boot network:")
        ))?;
        for line in alarms::lines(&alarms) {
            ui.line(&format!("  {line}"))?;
        }
    }
    if let Some(node) = node {
        ui.print(&failure_words(&args.node, node))?;
        if let Some(quarantine) = &node.quarantine {
            ui.line(&format!(
                "\nAn installer at {} with fingerprint {} was not believed: {}",
                quarantine.address,
                plain(&quarantine.fingerprint),
                plain(&quarantine.reason)
            ))?;
        }
    }
    Ok(Done::Well)
}

fn stage(stage: undercroft_netboot::timeline::BootStage) -> &'static str {
    use undercroft_netboot::timeline::BootStage;
    match stage {
        BootStage::Power => "power",
        BootStage::Dhcp => "dhcp",
        BootStage::Tftp => "tftp",
        BootStage::Http => "http",
        BootStage::Installer => "installer",
        BootStage::Ssh => "ssh",
    }
}
