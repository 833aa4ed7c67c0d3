//! `undercroft ssh`.

use std::{
    ffi::OsString,
    net::IpAddr,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use undercroft_model::{
    NodeName, NodeState,
    inventory::{Inventory, PowerKind},
    view::NodeView,
};
use undercroft_rack as rack;
use undercroft_secrets::keys::{HostKeys, IdentitySource, OperatorKey};
use undercroft_ssh::{Connection, Endpoint, HostKey};

use crate::{
    complete,
    done::Done,
    error::{CliError, Kind},
    journal::fold,
    project::OwnedProject,
    ui::Ui,
};

/// What OpenSSH's client exits with when it failed itself.
const SSH_FAILED: i32 = 255;

/// Log in to a machine as root, or run a command there
///
/// The connection is pinned: to the host key that was made for the machine once it is installed,
/// and while its installer runs to the key that was approved, or to either, as somebody else may
/// have installed it since. The key to log in with is the fleet's own. The exit code is that of the
/// command.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SshArgs {
    /// The machine
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    node: NodeName,
    /// Its installer rather than its installed system
    #[arg(long)]
    installer: bool,
    /// What to run, after --: one word is given to the machine's shell as it is, several are a
    /// program and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  undercroft ssh vm-01
  undercroft ssh vm-01 -- readlink /run/booted-system";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &SshArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(at)?;
    let inventory = project.load(ui)?;
    let node = project.node(&inventory, &args.node)?;
    let view = fold(&project)?;
    let view = view.as_ref().and_then(|view| view.nodes.get(&args.node));
    let own = || installed(&project, &inventory, &args.node, view);
    let own_address = IpAddr::V4(node.address);
    let (address, host_key, also) = match installer(view, args.installer)? {
        // It may have left its installer without us: whoever installed it has put its own key there.
        Some((address, key)) if address == own_address && !args.installer => {
            (address, key, own().ok())
        }
        Some((address, key)) => (address, key, None),
        None => (own_address, own()?, None),
    };
    let key = OperatorKey::find(&project.state())
        .map_err(|e| CliError::from(&e))?
        .ok_or_else(|| {
            CliError::failed("no key to log in with was made for this fleet yet")
                .hint("`undercroft up` makes it, and has the machines let it in.")
        })?;
    let expected = match &also {
        Some(also) => format!("{} or {}", host_key.fingerprint(), also.fingerprint()),
        None => host_key.fingerprint(),
    };
    let mut endpoint = Endpoint::root(args.node.as_str(), address, host_key);
    endpoint.also = also;
    let connection = Connection::prepare(endpoint, &key.private_file)
        .map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    let mut words: Vec<OsString> = connection
        .interactive_args()
        .into_iter()
        .map(Into::into)
        .collect();
    words.extend(remote(&args.command));
    let rack = project.rack_dir();
    let command = if node.power.kind == PowerKind::Rack && !rack::is_inside(&rack) {
        rack::enter_command(&rack, "ssh", words).map_err(|e| CliError::from(&e))?
    } else {
        let mut command = std::process::Command::new("ssh");
        command.args(words);
        undercroft_process::trace::started(&command);
        command
    };
    let code = crate::runtime::block_on(wait(command))?;
    if code == SSH_FAILED {
        ui.hint(&format!(
            "No host key but {expected} is accepted from {} at {address}. `undercroft doctor {}` \
             shows what is known of it.",
            args.node, args.node
        ));
    }
    Ok(Done::Code(u8::try_from(code).unwrap_or(1)))
}

/// What OpenSSH is to send. It joins words with blanks and the machine's shell takes them apart
/// again, so that several words are quoted for it.
fn remote(command: &[OsString]) -> Option<OsString> {
    match command {
        [] => None,
        [line] => Some(line.clone()),
        words => {
            let mut line = OsString::new();
            for word in words {
                if !line.is_empty() {
                    line.push(" ");
                }
                let quoted: Vec<u8> = word
                    .as_bytes()
                    .iter()
                    .flat_map(|byte| match byte {
                        b'\'' => b"'\\''".to_vec(),
                        byte => vec![*byte],
                    })
                    .collect();
                line.push("'");
                line.push(OsString::from_vec(quoted));
                line.push("'");
            }
            Some(line)
        }
    }
}

/// Runs ssh to its end. It gets the terminal's Ctrl-C itself, so that here it means nothing.
async fn wait(command: std::process::Command) -> Result<i32, CliError> {
    let failed = |e: std::io::Error| {
        CliError::failed("can't run ssh")
            .because(&e)
            .hint("Install OpenSSH's client.")
    };
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .map_err(failed)?;
    loop {
        tokio::select! {
            ended = child.wait() => return Ok(ended.map_err(failed)?.code().unwrap_or(SSH_FAILED)),
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}

/// Where a machine's installer is, and its key, where the machine is in its installer.
fn installer(view: Option<&NodeView>, wanted: bool) -> Result<Option<(IpAddr, HostKey)>, CliError> {
    let there =
        view.filter(|v| (NodeState::Approved..=NodeState::Installed).contains(&v.state) || wanted);
    let Some(view) = there else {
        return if wanted {
            Err(CliError::failed("no installer of it is known"))
        } else {
            Ok(None)
        };
    };
    let (Some(report), Some(approval)) = (&view.facts.report, &view.facts.approval) else {
        return Err(CliError::failed(
            "its installer isn't approved, so nobody can tell whose it is",
        )
        .hint("`undercroft approve` lists the machines that wait."));
    };
    let key = HostKey::parse_with_fingerprint(&report.host_key, &approval.fingerprint)
        .map_err(|e| CliError::from_error(Kind::Failed, &e))?;
    Ok(Some((IpAddr::V4(report.address), key)))
}

/// The host key that was made for a machine.
fn installed(
    project: &OwnedProject,
    inventory: &Inventory,
    node: &NodeName,
    view: Option<&NodeView>,
) -> Result<HostKey, CliError> {
    let source = IdentitySource::usual(project.state(), Vec::new());
    let secrets = &inventory.secrets;
    let keys = HostKeys::open_in(&project.dir, &secrets.path, &secrets.operators, source)
        .map_err(|e| CliError::from(&e))?;
    let key = keys.public(node).map_err(|e| CliError::from(&e))?;
    let key = key.ok_or_else(|| {
        CliError::failed(format!(
            "no host key was made for {node} yet, so nothing can be pinned"
        ))
        .hint("`undercroft up` makes it when it plans the machine.")
    })?;
    // What the machine was proved to have stands in the journal, which isn't in the repository.
    match view.and_then(|view| view.host_key_fingerprint.as_deref()) {
        Some(proved) if proved != key.fingerprint() => Err(CliError::input(format!(
            "{node} was proved to have the host key {proved}, and the repository has {} for it",
            key.fingerprint()
        ))
        .hint(
            "Unless it is to be installed anew with another key, somebody has changed it: `git log -p -- secrets/host-keys`.",
        )),
        _ => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_machine_as_they_were_given() {
        let line = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            remote(&words).map(|line| line.into_string().unwrap())
        };
        assert_eq!(line(&[]), None);
        assert_eq!(line(&["ls | wc -l"]).unwrap(), "ls | wc -l");
        assert_eq!(line(&["sh", "-c", "exit 7"]).unwrap(), "'sh' '-c' 'exit 7'");
        assert_eq!(line(&["echo", "it's"]).unwrap(), r"'echo' 'it'\''s'");
    }
}
