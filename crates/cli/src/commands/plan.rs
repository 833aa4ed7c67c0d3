//! `undercroft plan`.

use std::{path::Path, sync::Arc};

use clap::Args;
use undercroft_model::NodeName;
use undercroft_planner::{FaultyPlan, Next, PlanOptions, Scope, explain, next, resumes};

use undercroft_fleet::documents::PlanDocument;

use crate::{
    done::Done,
    error::CliError,
    prepare::{self, Begun, Place, Selection, Until, is_prepared},
    progress::{Form, Progress},
    select::WhereArgs,
    ui::Ui,
};

/// Look at the machines and show what `up` would do
///
/// It builds the machines' systems, looks at what runs on them, and plans. The disks whose content
/// would be lost are named by their serial numbers. No machine is changed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    selection: Selection,
    /// Print the plan and what it means as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft plan
  undercroft plan vm-01                  of one machine
  undercroft plan --only vm-01,vm-02     of some; `plan vm-01 vm-02` says the same
  undercroft plan --json | jq '.report.nodes[] | select(.destroys != [])'

Exit codes: 0 every machine runs what it should, 2 there is something to do or to look at, 65 the
inventory is wrong.

With --json: {\"plan\": {\"id\", \"nodes\", \"steps\": [{\"node\", \"action\", \"destroys\", …}], …},
\"report\": {\"nodes\": {NAME: {\"status\", \"waits_on\", \"destroys\", \"notes\", \"next\"}}, \"summary\", \"estimate_ms\"}}";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &PlanArgs) -> Result<Done, CliError> {
    let Begun {
        project,
        inventory,
        only,
        ..
    } = args.selection.begin(ui, at, &args.place)?;
    let place = prepare::place(&project, &inventory, only.as_ref(), false)?;
    // The plan is the report: what is built on the way is told beside it.
    let form = match Form::of(ui, false) {
        Form::Lines => Form::Notes,
        form => form,
    };
    let form = if is_prepared() { Form::Silent } else { form };
    let progress = Progress::new(ui, form);
    let sink = progress.clone();
    let fleet = args.selection.fleet(
        &project,
        inventory,
        undercroft_metal::world::InstallOptions::default(),
        Arc::new(move |told| sink.told(&told)),
    )?;
    crate::runtime::block_on(async {
        if let Place::InRack(rack) = &place {
            // Systems are built where packages can be fetched; inside they are there already.
            let looked = fleet.look(only.as_ref()).await;
            looked.map_err(|e| CliError::from(&e))?;
            return Err(prepare::enter(rack));
        }
        let view = fleet.view().map_err(|e| CliError::from(&e))?;
        let prepared = fleet
            .look(only.as_ref())
            .await
            .map_err(|e| CliError::from(&e))?;
        let adopt = args.selection.adopt.iter().cloned().collect();
        let observation = fleet
            .observe_adopting(only.as_ref(), &adopt, &prepared, &view)
            .await
            .map_err(|e| CliError::from(&e))?;
        let inventory = &fleet.settings().inventory;
        let goes_on = {
            let scope = scope(&args.selection, only.as_ref(), false);
            resumes(&view, &observation.targets, inventory, &scope).is_ok()
        };
        // What is shown is what there is to do by now, whatever is under way.
        let scope = scope(&args.selection, only.as_ref(), true);
        let next = next(&view, &observation, inventory, &scope).map_err(|e| faulty(&e))?;
        progress.end();
        let well = matches!(next, Next::Nothing { .. });
        let Some(document) = PlanDocument::of(next) else {
            return Err(CliError::bug(
                "a plan was asked for, and another is gone on with",
            ));
        };
        if args.json {
            ui.json(&document)?;
        } else {
            ui.print(&explain(&document.plan, &document.report))?;
            if goes_on {
                ui.hint("An earlier plan isn't done, and nothing has changed since: `undercroft up` goes on with it.");
            } else if view.unfinished() {
                ui.hint("An earlier plan isn't done; `undercroft up` replaces it by this one.");
            }
        }
        Ok(if well { Done::Well } else { Done::Changes })
    })
}

/// What is asked for.
pub(crate) fn scope(
    selection: &Selection,
    only: Option<&std::collections::BTreeSet<NodeName>>,
    replan: bool,
) -> Scope {
    Scope {
        options: PlanOptions {
            only: only.cloned(),
            reinstall: selection.reinstall.iter().cloned().collect(),
            adopt: selection.adopt.iter().cloned().collect(),
            update: selection.update,
            retry: selection.retry.iter().cloned().collect(),
            inspect_only: selection.inspect_only,
            until: selection.until.map(Until::state),
        },
        replan,
        ..Scope::default()
    }
}

/// A plan that the lints find a fault in is carried out by nobody.
pub(crate) fn faulty(fault: &FaultyPlan) -> CliError {
    CliError::bug(fault.to_string()).hint(format!(
        "Nothing was done. Please report it at {}.",
        crate::bug::REPORT_AT
    ))
}
