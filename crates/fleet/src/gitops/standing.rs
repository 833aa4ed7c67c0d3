//! What the tree that stands was begun with, and how a person parts with it.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use undercroft_model::inventory::Inventory;
use undercroft_render::{Choices, Layout, Lock, Problem, check_steps};

use super::{
    files::{MANIFEST_MAX_BYTES, entries},
    problems::refuse,
};
use crate::{
    error::CliError,
    project::Project,
    style::{BOLD, WARN, paint},
    text::list,
    ui::Ui,
};

/// The first choices of the tree that stands; `None` where there is no tree. A tree that was
/// rendered before they were written down says them by its files.
pub(crate) fn standing(
    ui: Ui,
    project: &Project,
    inventory: &Inventory,
) -> Result<Option<Choices>, CliError> {
    let layout = Layout::new(&inventory.gitops.path);
    let repository = project.files();
    let read = |path: &str| {
        let text = repository.read_text(path, MANIFEST_MAX_BYTES);
        text.map_err(|e| CliError::from(&e))
    };
    let file = layout.choices();
    if let Some(text) = read(&file)? {
        return Choices::parse(&file, &text)
            .map(Some)
            .map_err(|problem| refuse(ui, project, &[problem]));
    }
    let mut files = BTreeMap::new();
    let mut add = |path: String| -> Result<(), CliError> {
        if let Some(text) = read(&path)? {
            files.insert(path, text);
        }
        Ok(())
    };
    for component in entries(&repository, &layout.components())? {
        if !component.is_dir {
            continue;
        }
        add(layout.values(&component.name))?;
        add(layout.application(&component.name))?;
        for manifest in entries(&repository, &layout.manifests(&component.name))? {
            if !manifest.is_dir && manifest.name.ends_with(".yaml") {
                add(format!(
                    "{}/{}",
                    layout.manifests(&component.name),
                    manifest.name
                ))?;
            }
        }
    }
    Ok((!files.is_empty()).then(|| Choices::of_files(&layout, &files)))
}

/// What a person says may go, or was moved.
#[derive(Debug, Args)]
pub(crate) struct Parting {
    /// Let a component or an app go that was taken out and holds data; says what is lost, and asks
    #[arg(long = "leave", value_name = "NAME", conflicts_with = "check")]
    leave: Vec<String>,
    /// Take the new choices of a component, an app or the cluster whose data was moved by hand
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    moved: Vec<String>,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

impl Parting {
    /// The names that may go.
    pub(crate) fn leave(&self) -> BTreeSet<String> {
        self.leave.iter().cloned().collect()
    }

    /// Refuses names that nothing stands for.
    pub(crate) fn check_names(&self, standing: Option<&Choices>) -> Result<(), CliError> {
        for name in self.leave.iter().chain(&self.moved) {
            let Some(standing) = standing else {
                return Err(CliError::usage(format!(
                    "nothing was rendered yet, so that there is no {name:?} to part with"
                )));
            };
            if !standing.knows(name) {
                return Err(CliError::usage(format!(
                    "the tree that stands has nothing of {name:?}"
                ))
                .hint(format!("It has {}.", list(&standing.owners()))));
            }
        }
        Ok(())
    }

    /// What stands in the way of the new tree.
    pub(crate) fn problems(&self, standing: &Choices, next: &Choices, lock: &Lock) -> Vec<Problem> {
        let leave = self.leave();
        let moved = self.moved.iter().cloned().collect();
        let mut problems = standing.check(next, &leave, &moved);
        problems.extend(check_steps(&standing.versions(), lock));
        for name in leave.iter().filter(|name| next.has_component(name)) {
            problems.push(
                Problem::new(
                    "data-leaves",
                    format!("{name} is to leave, and is still among the components"),
                )
                .in_inventory(&["gitops", "components"])
                .hint("Take it out first, and what needs it."),
            );
        }
        problems
    }

    /// Says what is lost, and asks.
    pub(crate) fn agreed(&self, ui: Ui, standing: &Choices) -> Result<bool, CliError> {
        let mut any = false;
        for name in &self.leave {
            if let Some(data) = standing.data(name) {
                ui.stderr(&format!(
                    "{} {} holds {data}.",
                    paint(WARN, "leaving:"),
                    paint(BOLD, name)
                ));
                any = true;
            }
        }
        if !any || self.yes {
            return Ok(true);
        }
        ui.confirm(
            "Argo CD will no longer keep it, and what it holds is lost once it is deleted.",
            "Give --yes if that is what you want.",
        )
    }

    /// Says what is left to be done by hand.
    pub(crate) fn what_next(&self, ui: Ui) {
        for name in &self.leave {
            ui.hint(&format!(
                "Nothing of {name} is deleted by Argo CD, and its Application stays in the cluster until you delete it by hand: see \"When something leaves\" in docs/gitops.md."
            ));
        }
    }
}
