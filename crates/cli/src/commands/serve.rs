//! `undercroft serve`.

use std::{path::Path, sync::Arc, time::Duration};

use clap::Args;
use undercroft_metal::run::serve;
use undercroft_planner::{PlanOptions, plan_with};

use crate::{
    consent::consent,
    done::Done,
    error::CliError,
    gitops::refuse_versions,
    interrupt, ports,
    prepare::{self, InstallArgs, Place, Selection},
    progress::{Form, Progress},
    project::Project,
    select::WhereArgs,
    ui::Ui,
};

/// Keep the machines as the inventory says: netboot and reconcile, as a service
///
/// It looks at the fleet, plans, carries the plan out, and begins again after a while, until it is
/// interrupted. Machines that were never installed are installed without a question, so it asks
/// once at the beginning, unless --yes is given. A machine that runs is never wiped.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Don't ask before machines that were never installed are wiped
    #[arg(long, short)]
    yes: bool,
    /// Seconds from the end of one look to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interval: u64,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    install: InstallArgs,
    /// Print what happens as lines of JSON, as `up --json` does
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft serve --yes
  undercroft serve --yes --json >> /var/log/undercroft.jsonl";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &ServeArgs) -> Result<Done, CliError> {
    let named = args.place.split(at)?;
    let project = Project::find(named.folder.as_deref())?;
    let inventory = project.load(ui)?;
    refuse_versions(ui, &project, &inventory)?;
    let only = args.selection.only(&project, &inventory, &named.machines)?;
    if !args.selection.reinstall.is_empty() {
        return Err(CliError::usage("a service reinstalls nothing")
            .hint("Use `undercroft up --reinstall NODE`."));
    }
    let options = args.install.options()?;
    let place = prepare::place(&project, &inventory, only.as_ref(), true)?;
    if let Place::Here = place {
        ports::refuse_closed(&inventory, "serve")?;
    }
    if !args.yes && !prepare::is_prepared() {
        let question =
            "Machines that were never installed will be wiped and installed without a question.";
        if !ui.confirm(question, "Give --yes if that is what you want.")? {
            return Err(CliError::failed("nothing was done"));
        }
    }
    // A service has no end to show progress towards: what happens is told line by line.
    let form = match Form::of(ui, args.json) {
        Form::Bars => Form::Lines,
        form => form,
    };
    let progress = Progress::new(ui, form);
    let sink = progress.clone();
    let fleet = args.selection.fleet(
        &project,
        inventory,
        options,
        Arc::new(move |told| sink.told(&told)),
    )?;
    project.make_state()?;
    let fleet = fleet.agreeing(consent(ui, args.yes));
    crate::runtime::block_on(async {
        let signals = interrupt::listen(progress.clone(), "undercroft serve");
        let work = async {
            let journal = fleet
                .journal("undercroft serve")
                .map_err(|e| CliError::from(&e))?;
            if let Place::InRack(rack) = &place {
                drop(journal);
                let warm = prepare::warm(&fleet, only.as_ref(), true);
                return match signals.unless_asked(warm).await {
                    Some(warm) => warm.and_then(|()| Err(prepare::enter(rack))),
                    None => Ok(stopped(ui)),
                };
            }
            let shown = progress.clone();
            let cluster = args.selection.cluster(ui, &project, &fleet);
            let options = PlanOptions {
                only,
                until: args.selection.until.map(prepare::Until::state),
                ..PlanOptions::default()
            };
            let inventory = Arc::clone(&fleet.settings().inventory);
            serve(
                &fleet,
                journal,
                Duration::from_secs(args.interval),
                signals.asked(),
                move |observation, parent| plan_with(&inventory, observation, parent, &options).0,
                move |plan| cluster.parts_for_service(plan),
                move |entry| shown.entry(entry),
            )
            .await
            .map_err(|e| CliError::from(&e))?;
            Ok(stopped(ui))
        };
        signals.unless_insisted(work).await
    })
}

/// A service that was told to stop has done what it was told.
fn stopped(ui: Ui) -> Done {
    ui.hint("`undercroft serve` goes on from here.");
    Done::Well
}
