//! The daemon of a lent PC: it carries out what `lend`'s device decides.

mod keep;

pub use keep::{ENTRIES_FILE, Keep, KeepError};
