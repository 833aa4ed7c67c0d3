//! `undercroft schema`.

use clap::{Args, builder::PossibleValuesParser};
use undercroft_model::inventory;

use crate::{documents::DOCUMENTS, done::Done, error::CliError, ui::Ui};

/// The name of the schema of undercroft.toml.
const INVENTORY: &str = "inventory";

/// Print the JSON Schema of undercroft.toml, for editors, or of what a command prints with --json
///
/// What is printed with --json names its version in the field `version`, first. The version becomes another
/// when a field is taken away or means something else; a new field leaves it as it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SchemaArgs {
    /// Of what: the inventory, or the output of a command; of commands that print lines, the schema is of
    /// each line
    #[arg(long, value_name = "DOCUMENT", default_value = INVENTORY, value_parser = PossibleValuesParser::new(names()))]
    of: String,
}

const EXAMPLES: &str = "\
Examples:
  undercroft schema > undercroft.schema.json
and, as the first line of undercroft.toml, for editors with Taplo or Even Better TOML:
  #:schema ./undercroft.schema.json

  undercroft schema --of status           what `undercroft status --json` prints
  undercroft schema --of events           what each line of `undercroft events --json` is";

/// All that a schema can be printed of.
fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(INVENTORY).chain(DOCUMENTS.iter().map(|(name, _)| *name))
}

pub(crate) fn run(ui: Ui, args: &SchemaArgs) -> Result<Done, CliError> {
    match DOCUMENTS.iter().find(|(name, _)| *name == args.of) {
        Some((_, schema)) => ui.json_value(&schema())?,
        None => ui.json_value(&inventory::schema())?,
    }
    Ok(Done::Well)
}
