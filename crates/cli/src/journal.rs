//! The fleet's journal, as commands that only look use it.

use std::ops::ControlFlow;

use undercroft_journal::{Store, StoreError};
use undercroft_model::{inventory, view::FleetView};

use crate::{error::CliError, project::OwnedProject};

/// Opens the journal to look at it; `None` where nothing has ever been carried out.
///
/// The inventory need not be good for that: when it is, the journal must be of its fleet.
pub(crate) fn look(project: &OwnedProject) -> Result<Option<Store>, CliError> {
    let parsed = inventory::parse("", &project.read()?);
    let fleet = parsed.inventory.map(|inventory| inventory.fleet.name);
    match Store::open(&project.state(), fleet.as_deref()) {
        Ok(store) => Ok(Some(store)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(error) => Err(CliError::from(&error)),
    }
}

/// What the journal says of the fleet; `None` where nothing has ever been carried out.
pub(crate) fn fold(project: &OwnedProject) -> Result<Option<FleetView>, CliError> {
    let Some(store) = look(project)? else {
        return Ok(None);
    };
    let mut view = FleetView::default();
    store
        .for_each_entry(0, |entry| {
            view.apply(&entry);
            ControlFlow::Continue(())
        })
        .map_err(|e| CliError::from(&e))?;
    Ok(Some(view))
}
