//! `undercroft journal`.

use std::path::Path;

use clap::Args;
use undercroft_journal::{Head, accept_journal};

use undercroft_model::document::Version;

use crate::{
    args::DirArg,
    documents,
    done::Done,
    error::CliError,
    journal::look,
    project::OwnedProject,
    style::{GOOD, paint},
    ui::Ui,
};

/// Check the journal, entry by entry, and print its head
///
/// Each entry carries a digest of all before it, and journal.head beside the database says how far it had
/// come: a journal that was changed, cut off or exchanged for an older copy is refused by every command.
/// The head that is printed can be kept elsewhere, and compared.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct JournalArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Take a journal that isn't as far as it was, for example one of a backup
    #[arg(long)]
    accept: bool,
    /// Don't ask
    #[arg(long, short, requires = "accept")]
    yes: bool,
    /// Print the head as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft journal
  undercroft journal --accept            after a backup was put back

With --json: {\"entries\", \"head\": the digest, or null where there is no entry}";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &JournalArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(args.dir.or(at)?)?;
    let head = if args.accept {
        let sure = args.yes
            || ui.confirm(
                "What was journaled after the last entry that is there is forgotten: approvals, proofs, and what was under way.",
                "With --yes nobody is asked.",
            )?;
        if !sure {
            ui.note("Nothing was changed.");
            return Ok(Done::Failed);
        }
        accept_journal(&project.state(), "undercroft journal").map_err(|e| CliError::from(&e))?
    } else {
        match look(&project)? {
            Some(store) => store.head().map_err(|e| CliError::from(&e))?,
            None => None,
        }
    };
    report(ui, args.json, head)
}

fn report(ui: Ui, json: bool, head: Option<Head>) -> Result<Done, CliError> {
    let entries = head.map_or(0, |head| head.seq.saturating_add(1));
    let digest = head.map(|head| head.digest());
    if json {
        ui.json(&documents::Journal {
            version: Version,
            entries,
            head: digest,
        })?;
        return Ok(Done::Well);
    }
    let Some(digest) = digest else {
        ui.line("Nothing has been journaled.")?;
        return Ok(Done::Well);
    };
    let shown = usize::try_from(entries).unwrap_or(usize::MAX);
    let noun = if entries == 1 { "entry" } else { "entries" };
    ui.line(&format!("{} {shown} {noun}", paint(GOOD, "good:")))?;
    ui.line(&format!("head: {digest}"))?;
    Ok(Done::Well)
}
