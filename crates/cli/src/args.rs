//! Arguments that several commands share.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::error::CliError;

/// What every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Folder with undercroft.toml, or the file itself [default: the nearest one upwards]
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true, value_hint = clap::ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
    /// No notes and no progress: only what was asked for
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Show each program that is run, with its arguments; twice (-vv): also the long ones whole
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Colours: auto, always or never; `auto` respects NO_COLOR and CLICOLOR
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        default_value = "auto",
        value_enum,
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub(crate) color: Color,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Makes this the choice for all that is printed from now on.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// The folder as a command's own argument; `-C` says the same.
#[derive(Debug, Args)]
pub(crate) struct DirArg {
    /// Folder with undercroft.toml; the same as -C
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) at: Option<PathBuf>,
}

impl DirArg {
    /// The folder that was given, here or by `-C`.
    pub(crate) fn or<'a>(&'a self, global: Option<&'a Path>) -> Result<Option<&'a Path>, CliError> {
        one_folder(self.at.as_deref(), global)
    }
}

/// The folder that was given one way or the other, but not both.
pub(crate) fn one_folder<'a>(
    own: Option<&'a Path>,
    global: Option<&'a Path>,
) -> Result<Option<&'a Path>, CliError> {
    match (own, global) {
        (Some(own), Some(global)) => Err(CliError::usage(format!(
            "two folders are given: {} and -C {}",
            own.display(),
            global.display()
        ))
        .hint("Give one of them.")),
        (own, global) => Ok(own.or(global)),
    }
}
