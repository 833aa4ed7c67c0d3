//! `undercroft lend key`.

use std::path::PathBuf;

use clap::Args;
use undercroft_lending::keys::UserKey;
use undercroft_model::document::Version;

use crate::{documents::LendKey, done::Done, error::CliError, ui::Ui};

/// Make a key for somebody who submits work, or for the server of lending
///
/// The secret half goes into a file that only its owner can read, and never over one that is there. What is
/// printed is the public half, for the inventory: `nkey` of `[lending.submitters.NAME]`, or `server_key` of
/// `[lending]`. Of a file that is there already, its public half is printed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeyArgs {
    /// The file for the secret half
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out: PathBuf,
    /// Print the public half as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Example:
  undercroft lend key --out submit.nk      and put what is printed into the inventory";

pub(crate) fn run(ui: Ui, args: &KeyArgs) -> Result<Done, CliError> {
    let (key, is_new) = UserKey::read_or_make(&args.out).map_err(|e| CliError::from(&e))?;
    let public = key.public().0;
    if args.json {
        ui.json(&LendKey {
            version: Version,
            nkey: public,
            is_new,
        })?;
    } else {
        ui.line(&public)?;
    }
    Ok(Done::Well)
}
