//! `undercroft schema`.

use crate::{done::Done, error::CliError, ui::Ui};

pub(crate) const EXAMPLES: &str = "\
Example:
  undercroft schema > undercroft.schema.json
and, as the first line of undercroft.toml, for editors with Taplo or Even Better TOML:
  #:schema ./undercroft.schema.json";

pub(crate) fn run(ui: Ui) -> Result<Done, CliError> {
    ui.json(&undercroft_model::inventory::schema())?;
    Ok(Done::Well)
}
