//! `undercroft console`.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use undercroft_model::{
    NodeName,
    inventory::{Node, PowerKind},
};

use crate::{
    commands::rack::{self, ConsoleArgs},
    done::Done,
    error::CliError,
    project::OwnedProject,
    ui::Ui,
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  undercroft console vm-01               a machine of the virtual rack; leave it with Ctrl-]
  undercroft console gpu-17              by the command that the inventory's power.console names";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &ConsoleArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(at)?;
    let inventory = project.load(ui)?;
    let node = project.node(&inventory, &args.node)?;
    if node.power.kind == PowerKind::Rack {
        return crate::runtime::block_on(async {
            let client = rack::connect(&project).await?;
            rack::console(ui, &client, args).await
        });
    }
    let words = words(&args.node, node);
    let Some((program, rest)) = words.split_first() else {
        return Err(
            CliError::input(format!("{} has no console that is known here", args.node))
                .hint("Name the command that connects to it in the inventory: `power.console`."),
        );
    };
    if args.watch {
        return Err(
            CliError::usage("--watch is for machines of the virtual rack")
                .hint("The command of power.console is run as it is."),
        );
    }
    // The command takes this process's place: the terminal is all its own.
    let mut command = Command::new(program);
    command.args(rest).current_dir(&project.dir);
    undercroft_process::trace::started(&command);
    let error = command.exec();
    Err(CliError::failed(format!(
        "can't run {program}, which power.console of {} names",
        args.node
    ))
    .because(&error))
}

/// The words of the console's command for this machine.
fn words(name: &NodeName, node: &Node) -> Vec<String> {
    let mac = node
        .macs
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let address = node.address.to_string();
    let fill = |word: &String| {
        word.replace("{node}", name.as_str())
            .replace("{address}", &address)
            .replace("{mac}", &mac)
    };
    node.power.console.iter().map(fill).collect()
}
