//! `undercroft events`.

use std::{ops::ControlFlow, path::Path, time::Duration};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use undercroft_journal::Store;
use undercroft_model::{Entry, Record};

use undercroft_fleet::{documents::EventLine, narrate::Narrator, select::Meant};

use crate::{
    complete,
    done::Done,
    error::CliError,
    journal::look,
    project::OwnedProject,
    select::WhereArgs,
    style::{self, DIM, paint},
    text::clock,
    ui::Ui,
};

/// How often the journal is looked at for news, in milliseconds.
const FOLLOW_POLL_MS: u64 = 250;

/// Tell what happened, from the journal
///
/// Each record is a line; with --json it is the record itself, as it is kept.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Go on as things happen, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Only what is about this machine; the same as its name alone
    #[arg(long, value_name = "NODE", value_delimiter = ',', add = ArgValueCompleter::new(complete::selectors))]
    node: Vec<String>,
    /// Begin at this record
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    since: u64,
    /// Print each record as a line of JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft events --follow             beside a running `undercroft up`
  undercroft events vm-01                of one machine; classes and patterns do too
  undercroft events --json | jq -c 'select(.record == \"op-ended\")'

With --json, each line: {\"seq\", \"wall_ms\", \"record\": \"opened\" | \"plan-accepted\" | \"run-started\" |
\"op-started\" | \"op-ended\" | \"node-restarted\" | \"node-failed\" | \"quarantined\" |
\"rollout-stopped\" | \"run-ended\", … the record's own keys}";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &EventsArgs) -> Result<Done, CliError> {
    let named = args.place.split(at)?;
    let project = OwnedProject::find(named.folder.as_deref())?;
    let words: Vec<String> = args.node.iter().chain(&named.machines).cloned().collect();
    let inventory = project.load(Ui { quiet: true, ..ui }).ok();
    let mut told = Told {
        ui,
        args,
        meant: Meant::new(&project.inventory, inventory.as_ref(), &words),
        narrator: Narrator::default(),
        next: 0,
    };
    let mut store = look(&project)?;
    match &store {
        Some(store) => told.tell(store)?,
        None if args.follow => ui.note("Nothing has happened yet; waiting."),
        None => ui.note("Nothing has happened yet: `undercroft up` writes the journal."),
    }
    told.meant.all_met().map_err(|e| CliError::from(&e))?;
    if !args.follow {
        return Ok(Done::Well);
    }
    loop {
        std::thread::sleep(Duration::from_millis(FOLLOW_POLL_MS));
        if store.is_none() {
            store = look(&project)?;
        }
        if let Some(store) = &store {
            told.tell(store)?;
        }
    }
}

struct Told<'a> {
    ui: Ui,
    args: &'a EventsArgs,
    /// The machines that it is about.
    meant: Meant<'a>,
    narrator: Narrator,
    next: u64,
}

impl Told<'_> {
    /// Tells all records that weren't told yet.
    fn tell(&mut self, store: &Store) -> Result<(), CliError> {
        let mut result = Ok(());
        store
            .for_each_entry(self.next, |entry| {
                self.next = entry.seq.saturating_add(1);
                result = self.one(&entry);
                match &result {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })
            .map_err(|e| CliError::from(&e))?;
        result
    }

    fn one(&mut self, entry: &Entry) -> Result<(), CliError> {
        let sentence = self.narrator.tell(entry);
        if let Record::PlanAccepted { plan } = &entry.record {
            // A machine of a plan is known, also where nothing has happened to it.
            for name in plan.nodes.keys() {
                self.meant.is_meant(name);
            }
        }
        let wanted = match &sentence.node {
            Some(node) => self.meant.is_meant(node),
            None => self.meant.is_all(),
        };
        if entry.seq < self.args.since || !wanted {
            return Ok(());
        }
        if self.args.json {
            let entry = entry.clone();
            return self.ui.json_line(&EventLine { entry });
        }
        let number = paint(DIM, &format!("{:>5} {}", entry.seq, clock(entry.wall_ms)));
        self.ui
            .line(&format!("{number}  {}", style::sentence(&sentence)))
    }
}
