//! `undercroft rehearse`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use undercroft_model::inventory::{Inventory, PowerKind};
use undercroft_sim::{Faults, Profile, Rehearsal, RehearseOptions, rehearse};

use crate::{
    args::DirArg,
    bug::REPORT_AT,
    busy::Busy,
    documents::Rehearsed,
    done::Done,
    error::{CliError, Kind},
    project::OwnedProject,
    rehearse_seeds,
    style::{DIM, GOOD, paint},
    text::count,
    ui::Ui,
};

/// Carry the bring-up out in simulation, with faults
///
/// The real planner and the real engine bring the inventory's machines up in a simulated world
/// with a clock of its own: from powered off, with approvals, copies, reboots, and people who walk
/// to machines. It says how long it takes, what goes on at the same time, what people have to do,
/// which disks are wiped, and what went wrong where. No machine and no file is touched.
///
/// All chance follows from the seed: the same seed gives the same journal, byte for byte, and so
/// the same digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RehearseArgs {
    #[command(flatten)]
    dir: DirArg,
    /// The seed that all chance follows from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Rehearse with this many seeds, from --seed on; stop at the first that breaks a rule
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// How much goes wrong
    #[arg(long, value_name = "HOW MUCH", value_enum, default_value_t = FaultsArg::Some)]
    faults: FaultsArg,
    /// Rehearse with this many machines like the inventory's
    #[arg(long, value_name = "COUNT")]
    nodes: Option<usize>,
    /// How long things take [default: rack where all machines are virtual, else metal]
    #[arg(long, value_name = "NAME", value_enum)]
    profile: Option<ProfileArg>,
    /// Print the last events of the simulated world too
    #[arg(long, conflicts_with = "seeds")]
    trace: bool,
    /// Write the rehearsal's journal to this file
    #[arg(long, value_name = "FILE", conflicts_with = "seeds", value_hint = clap::ValueHint::FilePath)]
    journal: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft rehearse examples/basement --seed 7
  undercroft rehearse --faults none            how long does it take when nothing goes wrong?
  undercroft rehearse --seeds 1000 --faults many
  undercroft rehearse --nodes 10000 --faults none

Exit codes: 0 the rehearsal went as it must, 1 without faults machines didn't come up, 65 the
inventory is wrong, 70 a rule was broken: that is a bug in undercroft, and the seed repeats it.

With --json: {\"digest\", \"entries\", \"journal_bytes\", \"report\": {\"fleet\", \"nodes\", \"up\", \"total_ms\",
\"runs\", \"phases\", \"limits\", \"critical_path\", \"timeline\", \"people\", \"wipes\", \"mishaps\", …},
\"violation\", \"trace\"}; with --seeds: {\"seeds\", \"entries\", \"faults\", \"failed\"}.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FaultsArg {
    /// Nothing
    None,
    /// Now and then something, as on an ordinary day
    Some,
    /// Nearly everything, often
    Many,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProfileArg {
    /// Real machines
    Metal,
    /// Virtual machines without KVM
    Rack,
}

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &RehearseArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(args.dir.or(at)?)?;
    let inventory = project.load(ui)?;
    let options = RehearseOptions {
        seed: args.seed,
        faults: match args.faults {
            FaultsArg::None => Faults::None,
            FaultsArg::Some => Faults::Some,
            FaultsArg::Many => Faults::Many,
        },
        profile: profile(args.profile, &inventory),
        nodes: args.nodes,
        trace: args.trace,
        keep_journal: args.journal.is_some(),
    };
    match args.seeds {
        Some(seeds) => many(ui, args, &inventory, &options, seeds),
        None => one(ui, args, &inventory, &options),
    }
}

fn profile(given: Option<ProfileArg>, inventory: &Inventory) -> Profile {
    let all_virtual = inventory
        .nodes
        .values()
        .all(|n| n.power.kind == PowerKind::Rack);
    match given {
        Some(ProfileArg::Metal) => Profile::metal(),
        Some(ProfileArg::Rack) => Profile::rack(),
        None if all_virtual => Profile::rack(),
        None => Profile::metal(),
    }
}

fn one(
    ui: Ui,
    args: &RehearseArgs,
    inventory: &Inventory,
    options: &RehearseOptions,
) -> Result<Done, CliError> {
    let busy = Busy::new(ui, "simulating");
    let rehearsal =
        rehearse(inventory, options).map_err(|e| CliError::from_error(Kind::Input, &e))?;
    drop(busy);
    if let (Some(path), Some(journal)) = (&args.journal, &rehearsal.journal) {
        std::fs::write(path, journal).map_err(|e| CliError::file("write", path, &e))?;
    }
    if args.json {
        let done = judge(&rehearsal, options);
        ui.json(&Rehearsed::from(rehearsal))?;
        return done;
    }
    {
        ui.print(&rehearsal.report.to_string())?;
        if args.trace {
            ui.line("\nThe last events:")?;
            for line in &rehearsal.trace {
                ui.line(&paint(DIM, line))?;
            }
        }
        ui.line(&format!(
            "\nJournal: {} entries, digest {}",
            rehearsal.entries, rehearsal.digest
        ))?;
    }
    judge(&rehearsal, options)
}

/// What the rehearsal's outcome is for whoever asked for it.
fn judge(rehearsal: &Rehearsal, options: &RehearseOptions) -> Result<Done, CliError> {
    if let Some(violation) = &rehearsal.violation {
        return Err(broken(options.seed, &violation.to_string()));
    }
    let report = &rehearsal.report;
    let whole = report
        .cluster
        .as_ref()
        .is_none_or(|cluster| cluster.ready == cluster.members && cluster.synced != Some(false));
    if options.faults == Faults::None && (report.up < report.nodes || !whole) {
        return Ok(Done::Failed);
    }
    Ok(Done::Well)
}

fn broken(seed: u64, violation: &str) -> CliError {
    CliError::bug(format!("seed {seed} broke a rule of Undercroft's own: {violation}")).hint(
        format!(
            "Nothing real was touched. Please report it at {REPORT_AT}, with the inventory and the seed."
        ),
    )
}

fn many(
    ui: Ui,
    args: &RehearseArgs,
    inventory: &Inventory,
    options: &RehearseOptions,
    seeds: u64,
) -> Result<Done, CliError> {
    let last = args
        .seed
        .checked_add(seeds - 1)
        .ok_or_else(|| CliError::usage("--seed and --seeds together go beyond the largest seed"))?;
    let bar = if ui.live && !args.json {
        ProgressBar::new(seeds).with_style(
            ProgressStyle::with_template("{bar:32} {pos} of {len} seeds  {per_sec}  {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━╸─"),
        )
    } else {
        ProgressBar::hidden()
    };
    let report = rehearse_seeds::run(inventory, options, args.seed..=last, &|_| bar.inc(1));
    bar.finish_and_clear();
    let report = report.map_err(|e| CliError::from_error(Kind::Input, &e))?;
    if args.json {
        ui.json(&Rehearsed::Seeds(report.clone().into()))?;
    } else if let Some(failed) = &report.failed {
        ui.print(&failed.to_string())?;
    } else {
        let faults: u64 = report.faults.values().sum();
        let seeds = usize::try_from(report.seeds).unwrap_or(usize::MAX);
        ui.line(&format!(
            "{} {} from {} to {last}: {faults} faults, {} journal entries, and no rule was broken.",
            paint(GOOD, "good"),
            count(seeds, "seed"),
            args.seed,
            report.entries,
        ))?;
        let mut kinds: Vec<_> = report.faults.iter().collect();
        kinds.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        let mut table = crate::text::Table::plain(2);
        for (kind, times) in kinds {
            table.row([times.to_string(), kind.words().to_owned()]);
        }
        ui.print(&table.render())?;
    }
    match &report.failed {
        Some(failed) => Err(broken(failed.seed, &failed.violation.to_string())),
        None => Ok(Done::Well),
    }
}
