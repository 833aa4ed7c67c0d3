//! YAML, as far as files of secrets use it.

mod read;
mod scalar;
mod write;

pub(crate) use self::{read::read, write::write};

#[cfg(test)]
mod tests;
