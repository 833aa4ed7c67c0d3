//! `undercroft approve`.

use std::path::Path;

use clap::Args;
use undercroft_metal::{
    approval,
    clock::wall_ms_now,
    journal::{ApprovalError, PendingReport, StoreError},
};
use undercroft_model::NodeName;

use crate::{
    Done,
    error::{CliError, Kind},
    journal::store_error,
    project::Project,
    style::{BOLD, GOOD, paint},
    text::{Table, ago, duration},
    ui::Ui,
};

/// Confirm that a machine's fingerprint is the one on its screen
///
/// An installer makes a key at each boot and shows its fingerprint on the machine's own screen.
/// Whoever can reach the boot network can claim to be that machine; only a look at the screen
/// tells. From the approval on, every connection is pinned to that key.
///
/// Without a machine, those that wait are listed. With a machine alone, the fingerprint that it
/// reported is shown and you are asked.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ApproveArgs {
    /// The machine
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

With --json: [{\"node\", \"report\": {\"fingerprint\", \"address\", \"macs\", \"disks\", …}, \"since_wall_ms\"}]";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &ApproveArgs) -> Result<Done, CliError> {
    let project = Project::find(at)?;
    let state = project.state();
    let pending = match approval::pending(&state) {
        Ok(pending) => pending,
        Err(ApprovalError::Store(StoreError::Missing { .. })) => Vec::new(),
        Err(error) => return Err(approval_error(&error)),
    };
    let Some(node) = &args.node else {
        return list(ui, args.json, &pending);
    };
    let fingerprint = match &args.fingerprint {
        Some(given) => given.clone(),
        None => match ask(ui, node, &pending)? {
            Some(fingerprint) => fingerprint,
            None => {
                ui.note("Nothing was approved.");
                return Ok(Done::Failed);
            }
        },
    };
    let by = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let granted = approval::approve(&state, node, &fingerprint, &by, wall_ms_now())
        .map_err(|e| approval_error(&e))?;
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

fn list(ui: Ui, json: bool, pending: &[PendingReport]) -> Result<Done, CliError> {
    if json {
        ui.json(&pending)?;
        return Ok(Done::Well);
    }
    if pending.is_empty() {
        ui.note("No machine waits for an approval.");
        return Ok(Done::Well);
    }
    let now = wall_ms_now();
    let mut table = Table::new(&["NODE", "FINGERPRINT", "ADDRESS", "SINCE"]);
    for waiting in pending {
        table.row([
            waiting.node.to_string(),
            crate::text::plain(&waiting.report.fingerprint),
            waiting.report.address.to_string(),
            ago(now.saturating_sub(waiting.since_wall_ms)),
        ]);
    }
    ui.print(&table.render())?;
    ui.note(
        "\nCompare each with the machine's own screen, then: undercroft approve NODE FINGERPRINT",
    );
    Ok(Done::Well)
}

/// Shows what a machine reported and asks; the fingerprint if it was confirmed.
fn ask(ui: Ui, node: &NodeName, pending: &[PendingReport]) -> Result<Option<String>, CliError> {
    let Some(waiting) = pending.iter().find(|p| p.node == *node) else {
        let error = ApprovalError::NotWaiting {
            node: node.clone(),
            others: pending.iter().map(|p| p.node.clone()).collect(),
        };
        return Err(approval_error(&error));
    };
    let report = &waiting.report;
    let macs: Vec<String> = report.macs.iter().map(ToString::to_string).collect();
    let mut table = Table::plain(2);
    table.row([
        "fingerprint".to_owned(),
        paint(BOLD, &crate::text::plain(&report.fingerprint)),
    ]);
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
        &format!("Does the screen of {node} show this very fingerprint?"),
        "Give the fingerprint as the machine's screen shows it: undercroft approve NODE FINGERPRINT.",
    )?;
    Ok(same.then(|| report.fingerprint.clone()))
}

fn approval_error(error: &ApprovalError) -> CliError {
    match error {
        ApprovalError::Store(error) => store_error(error),
        other => {
            CliError::from_error(Kind::Failed, other).maybe_hint(other.hint().map(str::to_owned))
        }
    }
}
