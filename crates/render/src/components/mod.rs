//! The components, one file each.

use crate::{Component, Context, Problem};

/// Every component of the tree that the inventory asks for, in any order.
pub(crate) fn all(_cx: &Context<'_>) -> Result<Vec<Component>, Vec<Problem>> {
    Ok(Vec::new())
}
