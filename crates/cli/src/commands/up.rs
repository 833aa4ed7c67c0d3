//! `undercroft up`.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use clap::Args;
use undercroft_engine::Engine;
use undercroft_fleet::{FACTS_DIR, Finished, Fleet, Known, Prepared, Run, carry_out, write_facts};
use undercroft_journal::FleetJournal;
use undercroft_metal::world::ClusterParts;
use undercroft_model::{NodeName, Plan, RunEnd, view::FleetView};
use undercroft_planner::{Next, Scope, explain, next, resumes};

use undercroft_fleet::{documents::SummaryLine, narrate::short};

use crate::{
    commands::plan::{faulty, scope},
    consent::consent,
    done::Done,
    error::CliError,
    gitops::cluster_error,
    interrupt::{self, Signals},
    ports,
    prepare::{self, Begun, InstallArgs, Place, Selection, is_prepared},
    progress::{Form, Progress},
    project::OwnedProject,
    select::WhereArgs,
    style::{BAD, BOLD, GOOD, paint},
    summary,
    text::{count, list},
    ui::Ui,
};

/// Bring the machines up: network boot, approval, install, reboot, proof
///
/// It builds the systems, looks at the machines, plans, shows the plan, and carries it out. Before
/// a disk is wiped it asks, unless --yes is given. It can be interrupted at any moment, by Ctrl-C
/// or by kill -9; the same command goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Don't ask before disks are wiped
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    install: InstallArgs,
    /// Plan anew, even if an earlier plan isn't done
    #[arg(long)]
    replan: bool,
    /// Print what happens as lines of JSON
    #[arg(long)]
    json: bool,
}

/// The most plans that one `up --update` carries out beyond one for each machine: each wave updates one at least.
const WAVES_SPARE: usize = 4;

const EXAMPLES: &str = "\
Examples:
  undercroft up
  undercroft up vm-01 vm-02 --yes        some machines; classes and patterns do too: 'vm-*'
  undercroft up --only gpu,control       all nodes of two classes
  undercroft up --inspect-only           boot the machines and look at them; change nothing
  undercroft up --reinstall vm-02        wipe vm-02 and install it anew
  undercroft up --update                 update machines that run, wave by wave
  undercroft up --only gpu-01 --store-paths /nix/store/…-disko /nix/store/…-nixos-system-gpu-01 \\
      --disko-devices /dev/disk/by-id/nvme-…

Exit codes: 0 all machines that were asked for are up, 1 some aren't, or it was interrupted.

With --json, lines: the journal's records as `undercroft events --json` has them; {\"progress\":
\"bytes\" | \"line\" | \"waits-for-approval\", …}; and at the end {\"summary\": {\"end\", \"up\", \"nodes\",
\"took_ms\", \"view\"}}.";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &UpArgs) -> Result<Done, CliError> {
    let Begun {
        project,
        inventory,
        only,
        ..
    } = args.selection.begin(ui, at, &args.place)?;
    let options = args.install.options()?;
    let place = prepare::place(&project, &inventory, only.as_ref(), true)?;
    if let Place::Here = place {
        ports::refuse_closed(&inventory, "up")?;
    }
    let progress = Progress::new(ui, Form::of(ui, args.json));
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
        let up = Up {
            ui,
            args,
            only,
            progress,
            project: &project,
            fleet,
        };
        let signals = interrupt::listen(up.progress.clone(), "undercroft up");
        signals.unless_insisted(up.go(&place, &signals)).await
    })
}

struct Up<'a> {
    ui: Ui,
    args: &'a UpArgs,
    only: Option<BTreeSet<NodeName>>,
    progress: Progress,
    fleet: Fleet,
    project: &'a OwnedProject,
}

impl Up<'_> {
    fn journal(&self) -> Result<FleetJournal, CliError> {
        self.fleet
            .journal("undercroft up")
            .map_err(|e| CliError::from(&e))
    }

    async fn prepare(&self) -> Result<Prepared, CliError> {
        self.progress.mute(is_prepared());
        let prepared = self.fleet.prepare(self.only.as_ref()).await;
        self.progress.mute(false);
        prepared.map_err(|e| CliError::from(&e))
    }

    async fn go(&self, place: &Place, signals: &Signals) -> Result<Done, CliError> {
        if let Place::InRack(rack) = place {
            // Whoever is the controller already says so at once, not after minutes of building.
            drop(self.journal()?);
            let prefetched = self.fleet.prefetch(self.only.as_ref());
            let Some(prefetched) = signals.unless_asked(prefetched).await else {
                return Ok(self.stopped());
            };
            prefetched.map_err(|e| CliError::from(&e))?;
            self.progress.end();
            return Err(prepare::enter(rack));
        }
        self.whole(signals).await
    }

    /// It was told to stop before anything was begun.
    fn stopped(&self) -> Done {
        self.progress.end();
        self.ui.hint(&format!(
            "Nothing was begun. {} begins again.",
            paint(BOLD, "undercroft up")
        ));
        Done::Failed
    }

    async fn whole(&self, signals: &Signals) -> Result<Done, CliError> {
        let mut journal = self.journal()?;
        let mut known = Known::default();
        known
            .extend(journal.store())
            .map_err(|e| CliError::from(&e))?;
        self.progress.past(known.view());
        let selection = &self.args.selection;
        let named = !selection.reinstall.is_empty() || !selection.adopt.is_empty();
        let mut replan = self.args.replan || named;
        let mut waves_left = self.fleet.settings().inventory.nodes.len() + WAVES_SPARE;
        loop {
            let view = known.view();
            let Some(prepared) = signals.unless_asked(self.prepare()).await else {
                return Ok(self.stopped());
            };
            let prepared = prepared?;
            let scope = scope(&self.args.selection, self.only.as_ref(), replan);
            let inventory = &self.fleet.settings().inventory;
            let goes_on = resumes(view, &prepared.systems.targets, inventory, &scope).is_ok();
            let (engine, cluster) = if goes_on {
                let plan = view.plan_id.as_ref().map_or("", |id| short(&id.0));
                self.progress.say(&format!("Going on with plan {plan}."));
                let engine = known
                    .engine()
                    .map_err(|e| CliError::failed("can't go on from the journal").because(&e))?;
                let cluster = self.cluster(engine.plan())?;
                (engine, cluster)
            } else {
                let Some(next) = signals
                    .unless_asked(self.plan(view, &prepared, &scope))
                    .await
                else {
                    return Ok(self.stopped());
                };
                match next? {
                    Begin::Plan(plan, cluster) => {
                        let engine = Engine::new(*plan)
                            .map_err(|e| CliError::bug("the plan was refused").because(&e))?
                            .numbered_from(view.next_op());
                        (engine, cluster)
                    }
                    Begin::Nothing(done) => return Ok(done),
                }
            };
            let shown = self.progress.clone();
            let goes_further = goes_on || self.may_update_more(&mut waves_left);
            let run = Run {
                fleet: &self.fleet,
                prepared,
                engine,
                journal,
                view,
                servers: None,
                cluster,
                interrupt: signals.asked(),
                wind_down: None,
                alive: None,
            };
            let finished = carry_out(run, move |entry| shown.entry(entry)).await;
            self.progress.end();
            let finished = finished.map_err(|e| CliError::from(&e))?;
            journal = match self.conclude(finished, &mut known)? {
                // What an earlier `up` had planned is done, or a wave of an update; there may be more to do by now.
                (RunEnd::Complete, journal) if goes_further => journal,
                (end, _) => return Ok(exit(end)),
            };
            replan = true;
        }
    }

    /// Whether an update goes on with another wave once this run is complete.
    fn may_update_more(&self, waves_left: &mut usize) -> bool {
        *waves_left = waves_left.saturating_sub(1);
        self.args.selection.update && *waves_left > 0
    }

    async fn plan(
        &self,
        view: &FleetView,
        prepared: &Prepared,
        scope: &Scope,
    ) -> Result<Begin, CliError> {
        let observation = self
            .fleet
            .observe_adopting(self.only.as_ref(), &scope.options.adopt, prepared, view)
            .await
            .map_err(|e| CliError::from(&e))?;
        let inventory = &self.fleet.settings().inventory;
        let next = next(view, &observation, inventory, scope).map_err(|e| faulty(&e))?;
        let plan = match next {
            Next::Nothing { plan, report } => {
                self.progress.say(explain(&plan, &report).trim_end());
                let rest = inventory.nodes.len().saturating_sub(report.nodes.len());
                let all = match rest {
                    0 => "Nothing to do: every machine runs what it should.".to_owned(),
                    rest => format!(
                        "Nothing to do: what was asked for runs what it should; {} not looked at.",
                        match rest {
                            1 => "one other machine was".to_owned(),
                            rest => format!("{rest} other machines were"),
                        }
                    ),
                };
                self.progress.say(&paint(GOOD, &all));
                return Ok(Begin::Nothing(Done::Well));
            }
            Next::Wait { plan, report, .. } => {
                self.progress.say(explain(&plan, &report).trim_end());
                self.ui.stderr(&format!(
                    "{} nothing can be done now, and not every machine runs what it should: each line above says what stands in its way; `undercroft doctor NODE` shows more",
                    paint(BAD, "error:")
                ));
                return Ok(Begin::Nothing(Done::Failed));
            }
            Next::CarryOut { plan, report, .. } => {
                self.progress.say(explain(&plan, &report).trim_end());
                plan
            }
            Next::Resume { .. } => {
                return Err(CliError::bug("a plan is gone on with, and was not"));
            }
        };
        // What the cluster lacks is said before a disk is wiped for it.
        let cluster = self.cluster(&plan)?;
        self.confirm(&plan)?;
        Ok(Begin::Plan(plan, cluster))
    }

    /// What the cluster's steps bring in; what is wrong with that is shown.
    fn cluster(&self, plan: &Plan) -> Result<ClusterParts, CliError> {
        let parts = self.fleet.cluster_parts(plan);
        parts.map_err(|error| cluster_error(self.ui, self.project, &error))
    }

    fn confirm(&self, plan: &Plan) -> Result<(), CliError> {
        let wiped: Vec<String> = plan
            .steps
            .iter()
            .filter(|step| !step.probe_first)
            .flat_map(|step| {
                step.destroys
                    .iter()
                    .map(move |disk| format!("{} ({disk})", step.node))
            })
            .collect();
        if wiped.is_empty() || self.args.yes {
            return Ok(());
        }
        let question = format!(
            "{} on {} will be lost: {}.",
            paint(BAD, "Everything"),
            count(wiped.len(), "disk"),
            list(&wiped)
        );
        if self
            .ui
            .confirm(&question, "Give --yes if that is what you want.")?
        {
            Ok(())
        } else {
            Err(CliError::failed("nothing was done"))
        }
    }

    /// Keeps what the machines showed of themselves, beside the inventory.
    fn keep_facts(&self, view: &FleetView) -> Result<(), CliError> {
        let changed =
            write_facts(&self.fleet.settings().repository, view).map_err(|e| CliError::from(&e))?;
        if !changed.is_empty() {
            let files: Vec<String> = changed
                .iter()
                .map(|node| format!("{FACTS_DIR}/{node}.json"))
                .collect();
            self.progress.say(&format!(
                "What the machines are stands in {}: commit it.",
                list(&files)
            ));
        }
        Ok(())
    }

    fn conclude(
        &self,
        finished: Finished,
        known: &mut Known,
    ) -> Result<(RunEnd, FleetJournal), CliError> {
        let Finished {
            end,
            faults,
            journal,
            superseded: _,
        } = finished;
        known
            .extend(journal.store())
            .map_err(|e| CliError::from(&e))?;
        let view = known.view();
        self.keep_facts(view)?;
        if self.args.json {
            self.ui
                .json_line(&SummaryLine::of(view.clone(), Some(end)))?;
        } else {
            self.ui.print(&summary::text(view))?;
        }
        if let Some(fault) = faults.first() {
            return Err(
                CliError::bug(format!("the engine broke a promise of its own: {fault}")).hint(
                    format!(
                        "Please report it at {}, with `undercroft events --json`.",
                        crate::bug::REPORT_AT
                    ),
                ),
            );
        }
        match end {
            RunEnd::Complete => {}
            RunEnd::Interrupted => {
                self.ui.hint(&format!(
                    "{} goes on from here.",
                    paint(BOLD, "undercroft up")
                ));
            }
            RunEnd::Incomplete => self.ui.hint(&format!(
                "{} tries the others again; `undercroft doctor NODE` shows what a machine did.",
                paint(BOLD, "undercroft up")
            )),
        }
        Ok((end, journal))
    }
}

/// What follows from a look at the fleet.
enum Begin {
    Plan(Box<Plan>, ClusterParts),
    Nothing(Done),
}

fn exit(end: RunEnd) -> Done {
    match end {
        RunEnd::Complete => Done::Well,
        RunEnd::Incomplete | RunEnd::Interrupted => Done::Failed,
    }
}
