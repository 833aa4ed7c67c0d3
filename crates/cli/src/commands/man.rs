//! `undercroft man`.

use std::path::PathBuf;

use clap::Args;

use crate::{done::Done, error::CliError, ui::Ui};

/// Print the manual page, or write those of all commands
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this folder
    #[arg(long = "dir", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    to: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  undercroft man | man -l -
  undercroft man --dir ~/.local/share/man/man1";

pub(crate) fn run(ui: Ui, args: &ManArgs, command: clap::Command) -> Result<Done, CliError> {
    let Some(folder) = &args.to else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(CliError::from)?;
        ui.print(&String::from_utf8_lossy(&page))?;
        return Ok(Done::Well);
    };
    std::fs::create_dir_all(folder).map_err(|e| CliError::file("make the folder", folder, &e))?;
    clap_mangen::generate_to(command, folder)
        .map_err(|e| CliError::file("write manual pages into", folder, &e))?;
    ui.note(&format!("The manual pages are in {}.", folder.display()));
    Ok(Done::Well)
}
