//! `undercroft completions`.

use clap::Args;
use clap_complete::{Shell, env::Shells};

use crate::{complete, done::Done, error::CliError, ui::Ui};

/// Print the completions for a shell
///
/// The names of your nodes, classes, secrets and components are completed too: the shell asks
/// `undercroft` for them, which reads the inventory that is in force where you are.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  source <(undercroft completions bash)          in ~/.bashrc
  source <(undercroft completions zsh)           in ~/.zshrc, after compinit
  undercroft completions fish | source           in ~/.config/fish/config.fish

Have your shell's start-up file ask, as above, rather than keep a copy: script and program go together.";

pub(crate) fn run(ui: Ui, args: &CompletionsArgs) -> Result<Done, CliError> {
    let mut script = Vec::new();
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&name) else {
        return Err(CliError::bug(format!(
            "there are no completions for {name}"
        )));
    };
    shell.write_registration(
        complete::VARIABLE,
        "undercroft",
        "undercroft",
        "undercroft",
        &mut script,
    )?;
    ui.print(&String::from_utf8_lossy(&script))?;
    Ok(Done::Well)
}
