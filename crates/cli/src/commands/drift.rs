//! `undercroft drift`.

mod show;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use undercroft_fleet::{
    Fleet, Prepared,
    documents::Drift,
    drift::{DriftError, DriftHold, DriftKind, DriftReport, DriftState},
};
use undercroft_model::{NodeName, view::FleetView};
use undercroft_process::clock::wall_ms_now;

use crate::{
    complete,
    done::Done,
    error::CliError,
    people,
    prepare::{self, Begun, Place, Selection, is_prepared},
    progress::{Form, Progress},
    project::OwnedProject,
    select::WhereArgs,
    ui::Ui,
};

/// What stands for the cluster where a machine is named.
const CLUSTER: &str = "cluster";

/// Show what isn't as the inventory and the machines' systems want it
///
/// It builds the machines' systems, asks each machine once over SSH and the cluster's API, and changes
/// nothing. What two looks had, this one and an earlier one of `drift` or of `serve`, has drifted: what a
/// restart shows for a moment doesn't count. Who doesn't answer is named as not seen; nothing of it is found,
/// and nothing of it ends.
///
/// Each finding says what to try. What is meant as it is can be written into the inventory, or held.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct DriftArgs {
    #[command(subcommand)]
    command: Option<DriftCommand>,
    #[command(flatten)]
    look: LookArgs,
}

/// What a look takes.
#[derive(Debug, Args)]
struct LookArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Compare with the systems of the latest plan, and build none
    #[arg(long)]
    no_build: bool,
    /// Where something is found for the first time, look again after so many seconds, so that it counts
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    again: Option<u64>,
    /// The flake's folder, in place of the inventory's fleet.flake
    #[arg(long, value_name = "FOLDER", conflicts_with = "no_build", value_hint = clap::ValueHint::DirPath)]
    flake: Option<PathBuf>,
    /// A file with your age identity or SSH private key, beside the usual places
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    identity: Vec<PathBuf>,
    /// With the rack's own systems: the number that `up` was given
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    generation: u32,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum DriftCommand {
    Hold(HoldArgs),
    Release(ReleaseArgs),
}

/// Say that something of a machine is meant as it is, and whose word that is
///
/// What is held is shown with its owner and its reason, and is no drift. It is held until it is taken back,
/// or the machine leaves the inventory.
#[derive(Debug, Args)]
#[command(after_help = HOLD_EXAMPLES)]
struct HoldArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Whose word it is [default: you]
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
}

/// Take a hold back
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft drift release gpu-01 cordon")]
struct ReleaseArgs {
    #[command(flatten)]
    what: WhatArgs,
}

/// What a hold is of.
#[derive(Debug, Args)]
struct WhatArgs {
    /// The machine; `cluster` where the kind is `application`
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    node: NodeName,
    /// The kind of drift, as `undercroft drift` names it
    kind: DriftKind,
}

const EXAMPLES: &str = "\
Examples:
  undercroft drift
  undercroft drift gpu-01 --again 30       what counts, in one go
  undercroft drift --no-build --json | jq -r '.findings[] | select(.counts) | .sentence'
  undercroft drift hold gpu-01 cordon --reason 'its fan is on order'
  undercroft drift release gpu-01 cordon

Kinds of a machine: system, booted, boot-default, fell-back, unit, health, key, store-room,
esp-room, clock; of its Node: label, annotation, taint, cordon, kubelet; of the cluster:
application.

Exit codes: 0 nothing has drifted, 2 something has, 1 it can't be told, 65 the inventory is wrong.

With --json: {\"fleet\", \"at_ms\", \"drifted\", \"machines\", \"findings\": [{\"kind\", \"node\",
\"subject\", \"since_ms\", \"looks\", \"counts\", \"seen\", \"want\", \"have\", \"fix\", \"sentence\", \"next\",
\"hold\"}], \"unseen\": [{\"node\", \"kinds\", \"subject\", \"why\"}], \"holds\"}";

const HOLD_EXAMPLES: &str = "\
Examples:
  undercroft drift hold gpu-01 cordon --reason 'its fan is on order'
  undercroft drift hold cluster application --reason 'grafana is being tried out' --owner ada";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &DriftArgs) -> Result<Done, CliError> {
    match &args.command {
        None => look(ui, at, &args.look),
        Some(DriftCommand::Hold(args)) => hold(ui, at, args),
        Some(DriftCommand::Release(args)) => release(ui, at, args),
    }
}

fn look(ui: Ui, at: Option<&Path>, args: &LookArgs) -> Result<Done, CliError> {
    let selection = Selection::to_look(args.flake.clone(), args.identity.clone(), args.generation);
    let Begun {
        project,
        inventory,
        only,
        ..
    } = selection.begin(ui, at, &args.place)?;
    let place = prepare::place(&project, &inventory, only.as_ref(), false)?;
    let form = match Form::of(ui, false) {
        _ if is_prepared() => Form::Silent,
        Form::Lines => Form::Notes,
        form => form,
    };
    let progress = Progress::new(ui, form);
    let sink = progress.clone();
    let options = undercroft_metal::world::InstallOptions::default();
    let told = Arc::new(move |told| sink.told(&told));
    let fleet = selection.fleet(&project, inventory, options, told)?;
    project.make_state()?;
    crate::runtime::block_on(async {
        let view = fleet.view().map_err(|e| CliError::from(&e))?;
        if let Place::InRack(rack) = &place {
            // Systems are built where packages can be fetched; inside they are there already.
            prepared(&fleet, only.as_ref(), &view, args.no_build).await?;
            return Err(prepare::enter(rack));
        }
        let prepared = prepared(&fleet, only.as_ref(), &view, args.no_build).await?;
        progress.end();
        let mut looked = take(&fleet, only.as_ref(), &prepared, &view).await?;
        let is_new = |report: &DriftReport| report.findings.iter().any(|f| f.seen && !f.counts);
        if let Some(again_s) = args.again.filter(|_| is_new(&looked.1)) {
            ui.note(&format!(
                "Something is new: it is looked at again in {again_s} s."
            ));
            tokio::time::sleep(Duration::from_secs(again_s)).await;
            looked = take(&fleet, only.as_ref(), &prepared, &view).await?;
        }
        let (machines, report) = looked;
        let state = DriftState::new(&fleet.settings().state_dir);
        let kept = state.read().map_err(|e| CliError::from(&e))?;
        let name = &fleet.inventory().fleet.name;
        let document = Drift::of(name, wall_ms_now(), machines, report, kept.holds());
        if args.json {
            ui.json(&document)?;
        } else {
            ui.print(&show::describe(&document))?;
        }
        Ok(match document.drifted {
            true => Done::Changes,
            false => Done::Well,
        })
    })
}

/// Keys, and the systems that the machines should run.
async fn prepared(
    fleet: &Fleet,
    only: Option<&BTreeSet<NodeName>>,
    view: &FleetView,
    no_build: bool,
) -> Result<Prepared, CliError> {
    let nobody = BTreeSet::new();
    let built = if no_build { Some(&nobody) } else { only };
    let looked = fleet.look(built).await;
    let mut prepared = looked.map_err(|e| CliError::from(&e))?;
    if no_build {
        let known: BTreeMap<_, _> = fleet.known(view).map_err(|e| CliError::from(&e))?.targets;
        prepared.systems.targets = known;
    }
    Ok(prepared)
}

/// One look: how many machines were asked, and what has drifted by now.
async fn take(
    fleet: &Fleet,
    only: Option<&BTreeSet<NodeName>>,
    prepared: &Prepared,
    view: &FleetView,
) -> Result<(usize, DriftReport), CliError> {
    let failed = |e: DriftError| CliError::from(&e);
    let look = fleet.look_for_drift(only, prepared, view).await;
    let look = look.map_err(failed)?;
    let report = fleet.drifted(prepared, &look, wall_ms_now());
    Ok((look.machines.len(), report.map_err(failed)?))
}

/// The machine that a hold is of; `None` for the cluster.
fn node_of(ui: Ui, project: &OwnedProject, what: &WhatArgs) -> Result<Option<NodeName>, CliError> {
    if what.kind == DriftKind::Application {
        return match what.node.as_str() {
            CLUSTER => Ok(None),
            node => Err(CliError::usage(format!(
                "applications are the cluster's, and not {node}'s"
            ))
            .hint(format!("Say `{CLUSTER} {}`.", what.kind))),
        };
    }
    let inventory = project.load(ui)?;
    project.node(&inventory, &what.node)?;
    Ok(Some(what.node.clone()))
}

fn hold(ui: Ui, at: Option<&Path>, args: &HoldArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(at)?;
    let node = node_of(ui, &project, &args.what)?;
    let state = DriftState::new(&project.make_state()?);
    let hold = DriftHold {
        node,
        kind: args.what.kind,
        owner: args.owner.clone().unwrap_or_else(people::who),
        reason: args.reason.clone(),
        since_ms: wall_ms_now(),
    };
    let owner = hold.owner.clone();
    let held = state.change(|memory| Ok(memory.hold(hold)?));
    held.map_err(|e| CliError::from(&e))?;
    let WhatArgs { node, kind } = &args.what;
    ui.note(&format!(
        "{node}: {kind} is held by {owner}, until `undercroft drift release {node} {kind}`."
    ));
    Ok(Done::Well)
}

fn release(ui: Ui, at: Option<&Path>, args: &ReleaseArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(at)?;
    // A machine that has left the inventory may still be held.
    let node = (args.what.kind != DriftKind::Application).then_some(&args.what.node);
    let state = DriftState::new(&project.make_state()?);
    let released = state.change(|memory| Ok(memory.release(node, args.what.kind)));
    let WhatArgs { node, kind } = &args.what;
    if released.map_err(|e| CliError::from(&e))? {
        ui.note(&format!("{node}: {kind} is held no longer."));
        return Ok(Done::Well);
    }
    Err(CliError::usage(format!("{node}: {kind} isn't held"))
        .hint("`undercroft drift` lists what is."))
}
