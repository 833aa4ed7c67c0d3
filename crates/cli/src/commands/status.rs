//! `undercroft status`.

use crate::summary::failure_words;
use std::path::Path;

use clap::Args;
use undercroft_fleet::{
    documents::{NodeLine, Status},
    select::known_machines,
};
use undercroft_journal::{ControllerLock, Head};
use undercroft_model::{
    NodeName, NodeState, Work,
    view::{FleetView, NodeStatus, NodeView, Waits},
};
use undercroft_process::clock::wall_ms_now;

use crate::{
    done::Done,
    error::CliError,
    journal::look,
    project::OwnedProject,
    select::WhereArgs,
    style::{BAD, BOLD, DIM, GOOD, WARN, paint},
    text::{Table, ago, plain},
    ui::Ui,
};

/// Show how far each machine has come
///
/// It reads the journal and asks no machine; it works beside a running `up` or `serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Print the status as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft status
  undercroft status gpu-01               of one machine; classes and patterns do too
  undercroft status --json | jq -r '.nodes | to_entries[] | \"\\(.key) \\(.value.state)\"'

With --json: {\"fleet\", \"controller\": {\"pid\", \"command\"} or null, \"run\": {\"number\", \"end\", …} or null,
\"journal\": {\"entries\", \"head\": the digest} or null,
\"counts\", \"waiting_for_approval\": [{\"node\", \"report\", …}], \"nodes\": {NAME: {\"state\", \"status\",
\"steps_done\", \"steps\", \"current\", \"waits\", \"failed\", \"phases\", \"boot_id\", \"booted_system\", …}}};
a machine that no plan has touched yet has \"status\": null.";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &StatusArgs) -> Result<Done, CliError> {
    let named = args.place.split(at)?;
    let project = OwnedProject::find(named.folder.as_deref())?;
    let store = look(&project)?;
    let inventory = project.load(ui);
    let (view, pending, head) = match &store {
        Some(store) => {
            let mut view = FleetView::default();
            let head = store
                .for_all_entries(|entry| view.apply(entry))
                .map_err(|e| CliError::from(&e))?;
            (view, store.pending().map_err(|e| CliError::from(&e))?, head)
        }
        None => (FleetView::default(), Vec::new(), None),
    };
    let inventory = match inventory {
        Ok(inventory) => Some(inventory),
        Err(error) if store.is_none() => return Err(error),
        Err(_) => {
            ui.warn("the inventory can't be used, so only what the journal knows is shown; see `undercroft check`");
            None
        }
    };
    let holder = ControllerLock::holder(&project.state());
    let mut status = Status::of(inventory.as_ref(), &view, head, holder, pending);
    let meant = known_machines(
        &project.inventory,
        inventory.as_ref(),
        &view,
        &named.machines,
    )
    .map_err(|e| CliError::from(&e))?;
    if let Some(meant) = &meant {
        status.retain(|name| meant.contains(name));
    }
    if args.json {
        ui.json(&status)?;
        return Ok(Done::Well);
    }
    ui.print(&describe(&status, head, &view))?;
    if status.controller.is_none() && view.in_flight() {
        ui.hint("The last run ended without a word. `undercroft up` goes on with it.");
    } else if status.controller.is_none() && store.is_none() {
        ui.hint("Nothing was carried out yet. `undercroft plan` shows what would be done.");
    }
    Ok(Done::Well)
}

fn describe(status: &Status, head: Option<Head>, view: &FleetView) -> String {
    let fleet = status.fleet.as_deref();
    let mut out = paint(BOLD, fleet.unwrap_or("a fleet without a name"));
    if let Some(controller) = &status.controller {
        let command = controller.command.as_deref().unwrap_or("undercroft");
        match controller.pid {
            Some(pid) => out.push_str(&format!(": {command} is running (process {pid})")),
            None => out.push_str(&format!(": {command} is running")),
        }
    } else if let Some(ended) = view.run.as_ref().and_then(|run| run.ended_wall_ms) {
        out.push_str(&format!(
            ": the last run ended {}",
            ago(wall_ms_now().saturating_sub(ended))
        ));
    }
    out.push('\n');
    let mut table = Table::new(&["NODE", "STATE", "NOW"]);
    for (name, line) in &status.nodes {
        table.row(match line {
            NodeLine::Planned(node) => [
                name.to_string(),
                state_words(node),
                now_words(view, node, name),
            ],
            NodeLine::Other {
                state: state @ (NodeState::Up | NodeState::Joined),
                ..
            } => [
                name.to_string(),
                paint(GOOD, state.as_str()),
                paint(DIM, "as an earlier plan left it"),
            ],
            NodeLine::Other { state, .. } => [
                name.to_string(),
                state.to_string(),
                paint(DIM, "no plan has it"),
            ],
        });
    }
    out.push_str(&table.render());
    if let Some(head) = head {
        let entries = usize::try_from(head.seq.saturating_add(1)).unwrap_or(usize::MAX);
        let noun = if entries == 1 { "entry" } else { "entries" };
        out.push_str(&paint(
            DIM,
            &format!("journal: {entries} {noun}, head {}", head.short()),
        ));
        out.push('\n');
    }
    for (name, line) in &status.nodes {
        if let NodeLine::Planned(node) = line {
            out.push_str(&failure_words(name, node));
        }
    }
    out
}

fn state_words(node: &NodeView) -> String {
    match node.status {
        NodeStatus::Done => paint(GOOD, node.state.as_str()),
        _ => node.state.to_string(),
    }
}

fn now_words(view: &FleetView, node: &NodeView, name: &NodeName) -> String {
    let doing = node.current.as_ref().map_or("nothing", |c| &c.action);
    match (&node.status, &node.waits) {
        (NodeStatus::Done, _) => node.booted_system.clone().unwrap_or_default(),
        (NodeStatus::Failed, _) => paint(BAD, &format!("failed at {doing}")),
        (NodeStatus::Quarantined, _) => paint(BAD, &format!("refused at {doing}")),
        (_, Some(Waits::Approval { fingerprint })) => {
            let fingerprint = fingerprint.as_deref().map(plain).unwrap_or_default();
            paint(
                WARN,
                &format!("waits: undercroft approve {name} {fingerprint}"),
            )
        }
        (_, Some(Waits::NextRun)) => format!("waits for the next `up`, at {doing}"),
        (_, Some(Waits::RolloutStopped)) => "not begun: too many others failed".to_owned(),
        (_, Some(Waits::Resource { .. })) => format!("waits for its turn to {doing}"),
        (_, Some(Waits::NextTry)) => format!("waits to try {doing} again"),
        (_, Some(Waits::Steps)) => match view.waits_on(name) {
            Some(step) => format!("waits for {}: {}", step.node, step.action.verb()),
            None => format!("waits to {doing}"),
        },
        (NodeStatus::Running, None) => {
            let since = node.current.as_ref().and_then(|c| c.since_wall_ms);
            let since = since.map_or_else(String::new, |at| {
                format!(
                    ", since {}",
                    crate::text::duration(wall_ms_now().saturating_sub(at))
                )
            });
            let probing = node.current.as_ref().and_then(|c| c.work) == Some(Work::Probe);
            let what = if probing { " (looking)" } else { "" };
            format!("{doing}{what}{since}")
        }
        (_, None) => String::new(),
    }
}
