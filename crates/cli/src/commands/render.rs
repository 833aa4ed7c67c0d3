//! `undercroft render`.

use std::path::Path;

use clap::Args;
use undercroft_fleet::gitops::{self, Comparison, GitopsError, Rendering};
use undercroft_render::{Change, Difference, LOCK_FILE};

use undercroft_model::document::Version;

use crate::{
    args::DirArg,
    busy::Busy,
    documents::Rendered,
    done::Done,
    error::CliError,
    gitops::{PartingArgs, refuse},
    project::OwnedProject,
    style::{BAD, GOOD, WARN, paint},
    text::{count, list, plain},
    ui::Ui,
};

/// Write the tree that Argo CD keeps the cluster equal to
///
/// The tree follows from undercroft.toml, undercroft.lock, the folder of your own values and the
/// folders of your own apps, and from nothing else: the same input gives the same bytes. What is
/// wrong is said before anything is written. A rendered file that was edited by hand is kept and
/// shown, and so is a file that somebody put where Argo CD would apply it.
///
/// What a cluster was begun with stands in the tree too. A component or an app that holds data and
/// is no longer there, and a change that the API server or the data behind it doesn't take, are
/// refused with what to do.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RenderArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Write nothing; show what would change, and exit with 2 where something would
    #[arg(long)]
    check: bool,
    /// Overwrite and remove what was edited by hand or put there, too
    #[arg(long, conflicts_with = "check")]
    force: bool,
    #[command(flatten)]
    parting: PartingArgs,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft render
  undercroft render --check              in CI: is what is committed what would be rendered?
  undercroft render --json | jq -r '.changes[].path'
  undercroft render --leave loki         Loki was taken out, and its logs may go
  undercroft render --moved grafana      its volume was moved by hand, as docs/gitops.md shows

Exit codes: 0 done, 2 with --check: something would change, 65 something that was given is wrong,
or a file of the tree was edited or put there.

With --json: {\"fleet\", \"files\", \"waves\": [[NAME, …], …], \"written\", \"changes\": [{\"path\",
\"change\": \"create\" | \"update\" | \"remove\", \"edited\", \"foreign\"}]}";

/// How many names are shown of files that the file of digests wrongly claims.
const DISOWNED_SHOWN_MAX: usize = 5;

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &RenderArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(args.dir.or(at)?)?;
    let inventory = project.load(ui)?;
    let refused = |error: GitopsError| refuse(ui, &project, error);
    let files = project.files();
    let standing = gitops::standing(&files, &inventory).map_err(refused)?;
    args.parting.check_names(standing.as_ref())?;
    let busy = Busy::new(ui, "rendering");
    let parting = args.parting.said();
    let rendering =
        Rendering::new(&files, &inventory, standing.as_ref(), &parting).map_err(refused)?;
    let believed = rendering.without_digest();
    let Rendering {
        layout,
        tree,
        comparison,
        ..
    } = rendering;
    let waves = tree.waves;
    drop(busy);
    if !comparison.disowned.is_empty() {
        let names: Vec<String> = comparison.disowned.iter().map(|name| plain(name)).collect();
        let names: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .take(DISOWNED_SHOWN_MAX)
            .collect();
        ui.warn(&format!(
            "{} says that a render made {} where none could have, such as {}; they are left alone. Look at who wrote that.",
            layout.digests(),
            count(comparison.disowned.len(), "file"),
            list(&names),
        ));
    }
    let report = |written: bool| Rendered {
        version: Version,
        fleet: inventory.fleet.name.clone(),
        files: comparison.rendered_files(),
        waves: waves.clone(),
        written,
        changes: comparison.differences.clone(),
    };
    if args.check {
        if args.json {
            ui.json(&report(false))?;
        } else {
            for difference in &comparison.differences {
                ui.print(&comparison.diff(difference))?;
            }
        }
        let found = comparison.differences.len();
        if found == 0 {
            ui.note(&format!(
                "{} {} is as rendered",
                paint(GOOD, "good:"),
                layout.path()
            ));
            return Ok(Done::Well);
        }
        let edited = comparison.edited().len();
        ui.note(&match (edited, found) {
            (0, 1) => "1 file would change; `undercroft render` writes it".to_owned(),
            (0, _) => format!("{found} files would change; `undercroft render` writes them"),
            _ => format!(
                "{} would change, {edited} of which somebody edited or put there: `undercroft render` keeps what is there and writes nothing",
                count(found, "file")
            ),
        });
        return Ok(Done::Changes);
    }
    let edited = comparison.edited();
    if !edited.is_empty() && !args.force {
        return Err(refuse_edited(ui, &comparison, &edited)?);
    }
    if let Some(standing) = &standing
        && !args.parting.agreed(ui, standing)?
    {
        ui.note("Nothing was written.");
        return Ok(Done::Well);
    }
    comparison.write(&layout).map_err(refused)?;
    args.parting.what_next(ui);
    if !believed.is_empty() {
        ui.hint(&format!(
            "{LOCK_FILE} has no digest of {}: whatever is fetched under that version is believed. `undercroft update NAME=VERSION` notes what the repository publishes.",
            list(&believed)
        ));
    }
    if args.json {
        ui.json(&report(true))?;
        return Ok(Done::Well);
    }
    for difference in &comparison.differences {
        let sign = match difference.change {
            Change::Create => paint(GOOD, "+"),
            Change::Update => paint(WARN, "~"),
            Change::Remove => paint(BAD, "-"),
        };
        ui.line(&format!("{sign} {}", difference.path))?;
    }
    let applications: usize = waves.iter().map(Vec::len).sum();
    ui.line(&format!(
        "{} {}: {} in {}, {}; {}",
        paint(GOOD, "rendered"),
        layout.path(),
        count(applications, "application"),
        count(waves.len(), "wave"),
        count(comparison.rendered_files(), "file"),
        match comparison.differences.len() {
            0 => "nothing changed".to_owned(),
            changed => format!("{changed} changed"),
        },
    ))?;
    Ok(Done::Well)
}

/// Shows what a render would do to files that somebody edited or put there, and why it doesn't.
pub(crate) fn refuse_edited(
    ui: Ui,
    comparison: &Comparison,
    edited: &[&Difference],
) -> Result<CliError, CliError> {
    for difference in edited {
        ui.print(&comparison.diff(difference))?;
    }
    let names = |foreign: bool| -> Vec<String> {
        let of = edited.iter().filter(|d| d.foreign == foreign);
        of.map(|d| plain(&d.path)).collect()
    };
    let (foreign, edited) = (names(true), names(false));
    let foreign: Vec<&str> = foreign.iter().map(String::as_str).collect();
    let edited: Vec<&str> = edited.iter().map(String::as_str).collect();
    let (mut wrong, mut hints) = (Vec::new(), Vec::new());
    if !edited.is_empty() {
        wrong.push(format!(
            "{} edited by hand: {}",
            were(&edited, "rendered file"),
            list(&edited)
        ));
        hints.push("The diff above goes from what is there to what is rendered: move the edits to values/NAME.yaml, undercroft.toml or an app of your own.");
    }
    if !foreign.is_empty() {
        wrong.push(format!(
            "{} put where Argo CD applies whatever it finds: {}",
            were(&foreign, "file"),
            list(&foreign)
        ));
        hints.push("Move what you put there to an app of your own, apps/NAME/.");
    }
    Ok(
        CliError::input(format!("{}; nothing was written", wrong.join("; "))).hint(format!(
            "{} `undercroft render --force` takes it away.",
            hints.join(" ")
        )),
    )
}

/// "a file was", "2 files were".
fn were(of: &[&str], what: &str) -> String {
    match of.len() {
        1 => format!("a {what} was"),
        many => format!("{many} {what}s were"),
    }
}
