//! The fleet's tree, rendered, beside what is on disk.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_folder::confined::Confined;
use undercroft_model::inventory::Inventory;
use undercroft_render::{
    Choices, LOCK_FILE, Lock, Problem, RenderInput, Tree, TreeLayout, check_steps, render,
};

use super::{Sources, disk::Comparison, error::GitopsError};

/// What a person says of components and apps whose data is in the way of a new tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parting {
    /// Names that may go with what they hold.
    pub leave: BTreeSet<String>,
    /// Names whose data was moved by hand.
    pub moved: BTreeSet<String>,
}

/// The fleet's tree as it follows from inventory, lock file, values and apps.
#[derive(Debug)]
pub struct Rendering {
    /// Where its files lie.
    pub layout: TreeLayout,
    /// The versions, with the cluster's Kubernetes noted.
    pub lock: Lock,
    /// The tree.
    pub tree: Tree,
    /// It and the lock file beside what is on disk.
    pub comparison: Comparison,
}

impl Rendering {
    /// Renders the tree and compares it with the disk. Nothing is written ([`Comparison::write`] does).
    /// `standing` is what the tree that stands was begun with ([`super::standing()`]).
    ///
    /// # Errors
    /// When a file can't be read, or something stands in the way: all of it is in [`GitopsError::problems`].
    pub fn new(
        files: &Confined,
        inventory: &Inventory,
        standing: Option<&Choices>,
        parting: &Parting,
    ) -> Result<Self, GitopsError> {
        let Sources {
            mut lock,
            apps,
            overrides,
        } = Sources::read(files, inventory)?;
        let left = standing.map(|standing| standing.without(&parting.leave));
        let tree = render(&RenderInput {
            inventory,
            lock: &lock,
            apps: &apps,
            overrides: &overrides,
            dev: None,
            standing: left.as_ref(),
        })?;
        if let Some(standing) = standing {
            let problems = in_the_way(standing, &tree.choices, &lock, parting);
            if !problems.is_empty() {
                return Err(problems.into());
            }
        }
        lock.note_kubernetes(inventory.kubernetes.version.as_deref());
        let layout = TreeLayout::new(&inventory.gitops.path);
        let beside = BTreeMap::from([(LOCK_FILE.to_owned(), lock.print())]);
        let comparison = Comparison::new(files, &layout, tree.clone(), beside)?;
        Ok(Self {
            layout,
            lock,
            tree,
            comparison,
        })
    }

    /// The charts of the tree that nobody has noted the digest of, each with its version: whatever is fetched
    /// under it is believed.
    pub fn without_digest(&self) -> Vec<String> {
        let charts = self.lock.components.iter();
        charts
            .filter(|(name, locked)| {
                locked.chart.is_some()
                    && locked.digest.is_none()
                    && self.tree.choices.has_component(name)
            })
            .map(|(name, locked)| format!("{name} {}", locked.version))
            .collect()
    }
}

/// What stands in the way of the new tree.
fn in_the_way(
    standing: &Choices,
    next: &Choices,
    lock: &Lock,
    Parting { leave, moved }: &Parting,
) -> Vec<Problem> {
    let mut problems = standing.check(next, leave, moved);
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
