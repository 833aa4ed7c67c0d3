//! docs/inventory.md.
