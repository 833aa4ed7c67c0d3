//! `undercroft update`.

use std::{collections::BTreeMap, path::Path};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use undercroft_fleet::{
    gitops,
    releases::{ComponentUpdate, raise},
};
use undercroft_folder::confined::Modes;
use undercroft_render::{LOCK_FILE, Lock, Minor, is_major_step};

use undercroft_model::document::Version;

use crate::{
    complete,
    documents::Updated,
    done::Done,
    error::CliError,
    gitops::refuse,
    project::OwnedProject,
    style::{BOLD, DIM, GOOD, WARN, paint},
    text::{Table, list},
    ui::Ui,
};

/// Raise the versions in undercroft.lock and show what changed
///
/// Each component's chart repository or registry is asked for its newest release that goes with the
/// cluster's version of Kubernetes, and for the digest of the one that is taken. No step is left out
/// that a component's makers want taken: what lies beyond is named, and taken by a later update.
/// Nothing but the lock file is written; `undercroft render` takes the new versions into the tree.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpdateArgs {
    /// Components, each with or without the version that is wanted [default: all]
    #[arg(value_name = "COMPONENT[=VERSION]", add = ArgValueCompleter::new(complete::components))]
    components: Vec<String>,
    /// Write nothing, and exit with 2 where there is something newer
    #[arg(long)]
    dry_run: bool,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft update --dry-run            what is newer?
  undercroft update                      raise everything
  undercroft update longhorn cilium=1.19.6

Exit codes: 0 done, 1 a repository couldn't be read, 2 with --dry-run: there is something newer,
65 something that was given is wrong.

With --json: {\"written\", \"components\": [{\"name\", \"from\", \"to\", \"app_version\", \"held\", \"next\", \"note\"}]}";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &UpdateArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(at)?;
    let inventory = project.load(ui)?;
    let mut problems = Vec::new();
    let before =
        gitops::read_lock(&project.files(), &mut problems).map_err(|e| CliError::from(&e))?;
    let Some(mut lock) = before else {
        return Err(refuse(ui, &project, problems));
    };
    let files = project.files();
    let there = files.is_file(LOCK_FILE).map_err(|e| CliError::from(&e))?;
    let written = lock.print();
    lock.complete(&Lock::defaults());
    lock.complete_for(&inventory);
    let wanted = wanted(&lock, &args.components)?;
    let kubernetes = inventory.kubernetes.version.as_deref();
    let minor = kubernetes
        .or(lock.kubernetes.as_deref())
        .and_then(Minor::parse);
    let reading = |place: &str| ui.note(&format!("{} {place}", paint(DIM, "reading")));
    let rows = raise(&mut lock, &wanted, minor, reading).map_err(|e| CliError::from(&e))?;
    let changed = rows.iter().any(|row| row.to.is_some());
    let text = lock.print();
    let write = !args.dry_run && (!there || text != written);
    if write {
        files.clear_leftovers("");
        files
            .replace(LOCK_FILE, text.as_bytes(), Modes::PUBLIC)
            .map_err(|e| CliError::from(&e))?;
    }
    if args.json {
        ui.json(&Updated {
            version: Version,
            written: write,
            components: rows,
        })?;
    } else {
        ui.print(&table(&rows))?;
        if !changed {
            ui.note(&format!("{} nothing is newer", paint(GOOD, "good:")));
        } else if args.dry_run {
            ui.note("Nothing was written.");
        } else {
            ui.hint("`undercroft render` takes the new versions into the tree; read the components' release notes before you commit it.");
        }
    }
    Ok(if changed && args.dry_run {
        Done::Changes
    } else {
        Done::Well
    })
}

/// The components that were named, with the versions that were named with them.
fn wanted(lock: &Lock, given: &[String]) -> Result<BTreeMap<String, Option<String>>, CliError> {
    if given.is_empty() {
        return Ok(lock
            .components
            .keys()
            .map(|name| (name.clone(), None))
            .collect());
    }
    let mut wanted = BTreeMap::new();
    for word in given {
        let (name, version) = match word.split_once('=') {
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (word.as_str(), None),
        };
        if !lock.components.contains_key(name) {
            let names: Vec<&str> = lock.components.keys().map(String::as_str).collect();
            return Err(
                CliError::usage(format!("{LOCK_FILE} has no component {name:?}"))
                    .hint(format!("It has {}.", names.join(", "))),
            );
        }
        if wanted.insert(name.to_owned(), version).is_some() {
            return Err(CliError::usage(format!("{name} is named twice")));
        }
    }
    Ok(wanted)
}

fn table(rows: &[ComponentUpdate]) -> String {
    let mut table = Table::new(&["COMPONENT", "FROM", "TO", "NOTES"]);
    for row in rows {
        let mut notes = Vec::new();
        let to = match &row.to {
            Some(to) => {
                if is_major_step(&row.from, to) {
                    notes.push(paint(WARN, "may break something"));
                }
                paint(BOLD, to)
            }
            None => paint(DIM, "-"),
        };
        if let (Some(app), Some(to)) = (&row.app_version, &row.to)
            && app != to
        {
            notes.push(format!("brings {app}"));
        }
        if let (Some(next), Some(_)) = (&row.next, &row.to) {
            notes.push(format!("a step on the way to {next}"));
        }
        notes.extend(row.held.clone());
        notes.extend(row.note.clone());
        let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
        table.row([row.name.clone(), row.from.clone(), to, list(&notes)]);
    }
    table.render()
}
