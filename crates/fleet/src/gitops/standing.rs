//! What the tree that stands was begun with.

use std::collections::BTreeMap;

use undercroft_folder::confined::Confined;
use undercroft_model::inventory::Inventory;
use undercroft_render::{Choices, TreeLayout};

use super::{
    error::GitopsError,
    files::{MANIFEST_MAX_BYTES, entries},
};

/// The first choices of the tree that stands; `None` where there is no tree. A tree that was
/// rendered before they were written down says them by its files.
///
/// # Errors
/// When a file of it can't be read, or doesn't say them.
pub fn standing(files: &Confined, inventory: &Inventory) -> Result<Option<Choices>, GitopsError> {
    let layout = TreeLayout::new(&inventory.gitops.path);
    let read = |path: &str| files.read_text(path, MANIFEST_MAX_BYTES);
    let file = layout.choices();
    if let Some(text) = read(&file)? {
        return Ok(Some(Choices::parse(&file, &text)?));
    }
    let mut rendered = BTreeMap::new();
    let mut add = |path: String| -> Result<(), GitopsError> {
        if let Some(text) = read(&path)? {
            rendered.insert(path, text);
        }
        Ok(())
    };
    for component in entries(files, &layout.components())? {
        if !component.is_dir {
            continue;
        }
        add(layout.values(&component.name))?;
        add(layout.application(&component.name))?;
        for manifest in entries(files, &layout.manifests(&component.name))? {
            if !manifest.is_dir && manifest.name.ends_with(".yaml") {
                add(format!(
                    "{}/{}",
                    layout.manifests(&component.name),
                    manifest.name
                ))?;
            }
        }
    }
    Ok((!rendered.is_empty()).then(|| Choices::of_files(&layout, &rendered)))
}
