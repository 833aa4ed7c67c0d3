//! Showing what keeps a tree from being rendered, at its place.

use undercroft_model::{
    Diagnostic,
    inventory::{Inventory, diagnose},
};
use undercroft_render::{INVENTORY_FILE, Lock, Problem, Spot, check_versions, yaml};

use super::{
    files::{LOCK_MAX_BYTES, MANIFEST_MAX_BYTES, read_lock},
    standing::standing,
};
use crate::{
    error::CliError,
    project::Project,
    style::{BAD, BOLD, DIM, HINT, diagnostic, paint},
    text::{count, plain},
    ui::Ui,
};

/// Shows problems, and gives the error that ends the command.
pub(crate) fn refuse(ui: Ui, project: &Project, problems: &[Problem]) -> CliError {
    for problem in problems {
        ui.stderr(&show(project, problem));
    }
    CliError::input(format!(
        "the tree can't be rendered: {}; nothing was written",
        count(problems.len(), "error")
    ))
}

/// Refuses versions that don't go together, before anything is planned with them.
///
/// # Errors
/// When there are such, or the lock file can't be read.
pub(crate) fn refuse_versions(
    ui: Ui,
    project: &Project,
    inventory: &Inventory,
) -> Result<(), CliError> {
    let mut problems = Vec::new();
    if let Some(lock) = read_lock(project, &mut problems)? {
        problems = version_problems(inventory, lock);
    }
    if let Some(standing) = standing(ui, project, inventory)? {
        problems.extend(standing.check_inventory(inventory));
    }
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        ui.stderr(&show(project, problem));
    }
    Err(CliError::input(format!(
        "nothing was planned: {}",
        count(problems.len(), "error")
    )))
}

/// Versions that don't go together, as findings about the files that they are in. A lock file that
/// can't be read is left to those who need it.
pub(crate) fn version_diagnostics(
    project: &Project,
    inventory: &Inventory,
) -> Result<Vec<Diagnostic>, CliError> {
    let Some(lock) = read_lock(project, &mut Vec::new())? else {
        return Ok(Vec::new());
    };
    let problems = version_problems(inventory, lock).into_iter();
    Ok(problems
        .filter_map(|problem| finding(project, &problem))
        .collect())
}

fn version_problems(inventory: &Inventory, mut lock: Lock) -> Vec<Problem> {
    lock.complete(&Lock::defaults());
    check_versions(inventory, &lock)
}

/// A problem at keys of a TOML file, with the line that it is about.
fn finding(project: &Project, problem: &Problem) -> Option<Diagnostic> {
    let (file, Spot::Keys(keys)) = (problem.file.as_deref()?, problem.spot.as_ref()?) else {
        return None;
    };
    if file.ends_with(".yaml") {
        return None;
    }
    let (bytes, name) = if file == INVENTORY_FILE {
        let name = project.inventory.display().to_string();
        (project.read().ok()?, name)
    } else {
        let bytes = project.files().read(file, LOCK_MAX_BYTES).ok()??;
        (bytes, file.to_owned())
    };
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let hint = problem.hint.as_deref();
    Some(diagnose(
        &name,
        &bytes,
        &keys,
        problem.code,
        &problem.message,
        hint,
    ))
}

/// A problem as the findings about an inventory look.
fn show(project: &Project, problem: &Problem) -> String {
    if let Some(finding) = finding(project, problem) {
        return diagnostic(&finding);
    }
    let mut out = format!(
        "{}{}\n",
        paint(BAD, &format!("error[{}]", problem.code)),
        paint(BOLD, &format!(": {}", plain(&problem.message))),
    );
    if let Some(file) = &problem.file {
        let place = match &problem.spot {
            Some(Spot::Line { line, column }) => Some((*line, *column)),
            Some(Spot::Keys(keys)) => project
                .files()
                .read_text(file, MANIFEST_MAX_BYTES)
                .ok()
                .flatten()
                .and_then(|text| yaml::find(&text, keys)),
            None => None,
        };
        let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        out.push_str(&format!("{} {}{place}\n", paint(DIM, " -->"), plain(file)));
    }
    if let Some(hint) = &problem.hint {
        out.push_str(&format!(
            "{} {}: {hint}\n",
            paint(DIM, "  ="),
            paint(HINT, "hint")
        ));
    }
    out
}
