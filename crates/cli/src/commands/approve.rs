//! `undercroft approve`.

use std::path::Path;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use undercroft_fleet::verdict;
use undercroft_journal::approval;
use undercroft_journal::{
    Alarm, ApprovalError, ControllerLock, PendingReport, Store, StoreError, events_and_marks,
};
use undercroft_model::NodeName;
use undercroft_netboot::timeline::timeline;
use undercroft_process::clock::wall_ms_now;

use undercroft_model::document::Version;

use crate::{
    alarms, complete,
    documents::Approvals,
    done::Done,
    error::{CliError, Kind},
    journal::{fold, look},
    people,
    project::OwnedProject,
    style::{BOLD, GOOD, paint},
    text::{Table, ago, duration},
    ui::Ui,
};

/// Confirm that a machine's fingerprint is the one on its screen
///
/// An installer makes a key at each boot and shows its fingerprint on the machine's own screen.
/// Whoever can reach the boot network can claim to be that machine; only a look at the screen
/// tells. Beside it the screen shows a word, which the boot script brought that this controller
/// served for that boot: where the word differs, the machine was booted by somebody else.
/// From the approval on, every connection is pinned to that key.
///
/// Without a machine, those that wait are listed. With a machine alone, the fingerprint that it
/// reported is shown and you are asked.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ApproveArgs {
    /// The machine
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    node: Option<NodeName>,
    /// The fingerprint as the machine's screen shows it, with or without SHA256:
    fingerprint: Option<String>,
    /// List the machines that wait as JSON
    #[arg(long, conflicts_with = "node")]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft approve                     who waits?
  undercroft approve server-01           compare and answer
  undercroft approve server-01 SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU

With --json: {\"waiting\": [{\"node\", \"report\": {\"fingerprint\", \"address\", \"macs\", \"disks\", …}, \"word\",
\"since_wall_ms\"}], …}; `undercroft schema --of approve` has all of it.";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &ApproveArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(at)?;
    let state = project.state();
    let pending = match approval::pending(&state) {
        Ok(pending) => pending,
        Err(ApprovalError::Store(StoreError::Missing { .. })) => Vec::new(),
        Err(error) => return Err(CliError::from(&error)),
    };
    let store = look(&project)?;
    let Some(node) = &args.node else {
        return list(ui, args.json, &pending, store.as_ref());
    };
    if !pending.iter().any(|waiting| waiting.node == *node) {
        return Err(not_waiting(&project, node, &pending, store.as_ref())?);
    }
    let told = alarms::of(store.as_ref(), node)?;
    let fingerprint = match &args.fingerprint {
        Some(given) => given.clone(),
        None => match ask(ui, node, &pending, &told)? {
            Some(fingerprint) => fingerprint,
            None => {
                ui.note("Nothing was approved.");
                return Ok(Done::Failed);
            }
        },
    };
    let by = people::who();
    let granted = approval::approve(&state, node, &fingerprint, &by, wall_ms_now())
        .map_err(|e| CliError::from(&e))?;
    ui.note(&format!(
        "{}: {} approved; good for {}.",
        paint(BOLD, node.as_str()),
        paint(GOOD, &granted.approval.fingerprint),
        duration(
            granted
                .approval
                .expires_wall_ms
                .saturating_sub(granted.approval.granted_wall_ms)
        ),
    ));
    Ok(Done::Well)
}

fn list(
    ui: Ui,
    json: bool,
    pending: &[PendingReport],
    store: Option<&Store>,
) -> Result<Done, CliError> {
    if json {
        ui.json(&Approvals {
            version: Version,
            waiting: pending.to_vec(),
        })?;
        return Ok(Done::Well);
    }
    if pending.is_empty() {
        ui.note("No machine waits for an approval.");
        ui.hint("`undercroft status` says where each machine is, and `undercroft doctor NODE` what comes next.");
        return warn(ui, None, store);
    }
    let now = wall_ms_now();
    let mut table = Table::new(&["NODE", "FINGERPRINT", "WORD", "ADDRESS", "SINCE"]);
    for waiting in pending {
        table.row([
            waiting.node.to_string(),
            crate::text::plain(&waiting.report.fingerprint),
            crate::text::plain(waiting.word.as_deref().unwrap_or("none")),
            waiting.report.address.to_string(),
            ago(now.saturating_sub(waiting.since_wall_ms)),
        ]);
    }
    ui.print(&table.render())?;
    ui.note(
        "\nCompare each with the machine's own screen, its word too, then: undercroft approve NODE FINGERPRINT",
    );
    warn(ui, None, store)
}

/// Says what else was seen on the boot network, of one machine or of all.
fn warn(ui: Ui, node: Option<&NodeName>, store: Option<&Store>) -> Result<Done, CliError> {
    let Some(store) = store else {
        return Ok(Done::Well);
    };
    let all = store
        .all_alarms(wall_ms_now())
        .map_err(|e| CliError::from(&e))?;
    for (of, alarm) in &all {
        if node.is_none() || of.is_none() || of.as_ref() == node {
            let of = of.as_ref().map_or("the boot network", NodeName::as_str);
            for line in alarms::lines(std::slice::from_ref(alarm)) {
                ui.warn(&format!("{of}: {line}"));
            }
        }
    }
    Ok(Done::Well)
}

/// Why a machine can't be approved, with what comes next: the same that `doctor` says.
fn not_waiting(
    project: &OwnedProject,
    node: &NodeName,
    pending: &[PendingReport],
    store: Option<&Store>,
) -> Result<CliError, CliError> {
    let mut others: Vec<NodeName> = pending.iter().map(|p| p.node.clone()).collect();
    others.dedup();
    let error = ApprovalError::NotWaiting {
        node: node.clone(),
        others,
    };
    let rows = match store {
        Some(store) => store.timeline(node).map_err(|e| CliError::from(&e))?,
        None => Vec::new(),
    };
    let (events, marks) = events_and_marks(&rows);
    let diagnosis = timeline(&events, &marks, wall_ms_now()).diagnosis;
    let view = fold(project)?;
    let seen = view.as_ref().and_then(|view| view.nodes.get(node));
    let running = ControllerLock::holder(&project.state()).is_some();
    let verdict = verdict::judge(node, seen, pending, running, &diagnosis);
    let next = verdict.next.join("; ");
    Ok(CliError::from_error(Kind::Failed, &error)
        .hint(format!("{} Next: {next}.", verdict.summary)))
}

/// Shows what a machine reported and asks; the fingerprint if it was confirmed.
fn ask(
    ui: Ui,
    node: &NodeName,
    pending: &[PendingReport],
    told: &[Alarm],
) -> Result<Option<String>, CliError> {
    let mut mine = pending.iter().filter(|p| p.node == *node);
    let Some(waiting) = mine.next() else {
        return Ok(None);
    };
    for line in alarms::lines(told) {
        ui.warn(&line);
    }
    let others = mine.count();
    if others > 0 {
        return Err(CliError::failed(format!(
            "{} installers claim to be {node}, and one of them at most is",
            others + 1
        ))
        .hint(format!(
            "`undercroft approve` lists them. Look at the machine's own screen, and give the fingerprint that it shows: undercroft approve {node} FINGERPRINT."
        )));
    }
    let report = &waiting.report;
    let macs: Vec<String> = report.macs.iter().map(ToString::to_string).collect();
    let mut table = Table::plain(2);
    table.row([
        "fingerprint".to_owned(),
        paint(BOLD, &crate::text::plain(&report.fingerprint)),
    ]);
    let word = waiting.word.as_deref().unwrap_or("none");
    table.row(["word".to_owned(), paint(BOLD, &crate::text::plain(word))]);
    table.row(["address".to_owned(), report.address.to_string()]);
    table.row(["MACs".to_owned(), crate::text::list(&macs)]);
    for disk in &report.disks {
        let serial = disk.serial.as_deref().unwrap_or("no serial");
        table.row([
            "disk".to_owned(),
            format!(
                "{}, {}, {}",
                crate::text::plain(&disk.path),
                crate::text::plain(serial),
                crate::text::bytes(disk.size_bytes)
            ),
        ]);
    }
    ui.stderr(&format!("{node} reported:\n{}", table.render()));
    let same = ui.confirm(
        &format!("Does the screen of {node} show this very fingerprint, and this word?"),
        "Give the fingerprint as the machine's screen shows it: undercroft approve NODE FINGERPRINT.",
    )?;
    Ok(same.then(|| report.fingerprint.clone()))
}
