//! `undercroft check`.

use std::path::Path;

use clap::Args;
use undercroft_fleet::gitops::version_diagnostics;
use undercroft_model::{Diagnostic, inventory};

use undercroft_model::document::Version;

use crate::{
    args::DirArg,
    documents::Checked,
    done::Done,
    error::CliError,
    project::OwnedProject,
    style::{GOOD, diagnostic, paint},
    text::{count, list},
    ui::Ui,
};

/// Say everything that is wrong with undercroft.toml
///
/// All findings come in one run, each with its place, the text that it is about, and a hint; what
/// doesn't go with the versions in undercroft.lock is among them. Nothing is written and no machine is asked.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft check                       the inventory here or in a folder above
  undercroft check examples/basement     another one
  undercroft check --json | jq -r '.diagnostics[] | \"\\(.place.line): \\(.message)\"'

Exit codes: 0 the file can be used, 65 it has errors.

With --json: {\"file\", \"ok\", \"fleet\", \"digest\", \"nodes\", \"diagnostics\": [{\"severity\", \"code\",
\"message\", \"file\", \"place\": {\"line\", \"column\", \"start_byte\", \"end_byte\"}, \"hint\", …}]}";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &CheckArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(args.dir.or(at)?)?;
    let bytes = project.read()?;
    let file = project.inventory.display().to_string();
    let mut parsed = inventory::parse(&file, &bytes);
    if let Some(inventory) = parsed.inventory.take() {
        // What doesn't go with the lock file is found here too, before a plan or a tree meets it.
        parsed
            .diagnostics
            .extend(version_diagnostics(&project, &inventory).map_err(|e| CliError::from(&e))?);
        let usable = !parsed.diagnostics.iter().any(Diagnostic::is_error);
        parsed.inventory = usable.then_some(inventory);
    }
    let errors = parsed.diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = parsed.diagnostics.len() - errors;
    let ok = parsed.inventory.is_some() && (!args.strict || warnings == 0);
    if args.json {
        ui.json(&Checked {
            version: Version,
            file,
            ok,
            fleet: parsed.inventory.as_ref().map(|i| i.fleet.name.clone()),
            digest: parsed.inventory.as_ref().map(inventory::Inventory::digest),
            nodes: parsed.inventory.as_ref().map_or(0, |i| i.nodes.len()),
            diagnostics: parsed.diagnostics,
        })?;
        return Ok(if ok { Done::Well } else { Done::BadInput });
    }
    for finding in &parsed.diagnostics {
        ui.print(&format!("{}\n", diagnostic(finding)))?;
    }
    let mut found = Vec::new();
    if errors > 0 {
        found.push(count(errors, "error"));
    }
    if warnings > 0 {
        found.push(count(warnings, "warning"));
    }
    if let (Some(inventory), true) = (&parsed.inventory, ok) {
        let mut has = vec![
            count(inventory.nodes.len(), "node"),
            plural(inventory.classes.len(), "class", "classes"),
        ];
        if !inventory.pcs.is_empty() {
            has.push(count(inventory.pcs.len(), "PC"));
        }
        if !inventory.users.is_empty() {
            has.push(plural(inventory.users.len(), "person", "people"));
        }
        let found = if found.is_empty() {
            String::new()
        } else {
            format!("; {}", list(&found))
        };
        ui.line(&format!(
            "{} {file}: the fleet {} with {}{found}",
            paint(GOOD, "good"),
            inventory.fleet.name,
            list(&has),
        ))?;
        return Ok(Done::Well);
    }
    Err(CliError::input(format!(
        "{file} can't be used: {}",
        list(&found)
    )))
}

fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
