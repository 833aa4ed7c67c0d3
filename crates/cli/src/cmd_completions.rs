//! `undercroft completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{Done, args::Cli, error::CliError, ui::Ui};

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  undercroft completions bash > ~/.local/share/bash-completion/completions/undercroft
  undercroft completions zsh  > ~/.zfunc/_undercroft
  undercroft completions fish > ~/.config/fish/completions/undercroft.fish";

pub(crate) fn run(ui: Ui, args: &CompletionsArgs) -> Result<Done, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "undercroft", &mut script);
    ui.print(&String::from_utf8_lossy(&script))?;
    Ok(Done::Well)
}
