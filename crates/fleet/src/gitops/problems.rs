//! What keeps a tree from being rendered, at its place in the files that people wrote.

use undercroft_folder::confined::Confined;
use undercroft_model::{
    Diagnostic,
    inventory::{Inventory, diagnose},
};
use undercroft_render::{INVENTORY_FILE, Lock, Problem, Spot, check_versions, yaml};

use super::{
    error::GitopsError,
    files::{LOCK_MAX_BYTES, MANIFEST_MAX_BYTES, read_lock},
    standing::standing,
};
use crate::project::Project;

/// Refuses versions that don't go together, before anything is planned with them.
///
/// # Errors
/// When there are such, or the lock file can't be read.
pub fn refuse_versions(files: &Confined, inventory: &Inventory) -> Result<(), GitopsError> {
    let mut problems = Vec::new();
    if let Some(lock) = read_lock(files, &mut problems)? {
        problems = version_problems(inventory, lock);
    }
    if let Some(standing) = standing(files, inventory)? {
        problems.extend(standing.check_inventory(inventory));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(GitopsError::Versions { problems })
}

/// Versions that don't go together, as findings about the files that they are in. A lock file that
/// can't be read is left to those who need it.
///
/// # Errors
/// When the lock file can't be looked at.
pub fn version_diagnostics(
    project: &Project,
    inventory: &Inventory,
) -> Result<Vec<Diagnostic>, GitopsError> {
    let Some(lock) = read_lock(&project.files(), &mut Vec::new())? else {
        return Ok(Vec::new());
    };
    let problems = version_problems(inventory, lock).into_iter();
    Ok(problems
        .filter_map(|problem| diagnostic(project, &problem))
        .collect())
}

fn version_problems(inventory: &Inventory, mut lock: Lock) -> Vec<Problem> {
    lock.complete(&Lock::defaults());
    lock.complete_for(inventory);
    check_versions(inventory, &lock)
}

/// A problem at keys of a TOML file, with the line that it is about; `None` for any other.
pub fn diagnostic(project: &Project, problem: &Problem) -> Option<Diagnostic> {
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

/// The line and the column of a problem in its file, counted from 1, where that can be told.
pub fn line_of(project: &Project, problem: &Problem) -> Option<(usize, usize)> {
    match problem.spot.as_ref()? {
        Spot::Line { line, column } => Some((*line, *column)),
        Spot::Keys(keys) => {
            let file = problem.file.as_deref()?;
            let text = project.files().read_text(file, MANIFEST_MAX_BYTES);
            yaml::find(&text.ok()??, keys)
        }
    }
}
