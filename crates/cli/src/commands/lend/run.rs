//! `undercroft lend run`.
//!
//! The daemon stays for weeks, and what reads a command line is some MiB of the program's file that would stay in memory
//! with it. So the command is begun anew when its arguments were read, as the same process.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use undercroft_lending::{
    daemon::{Daemon, Told},
    idle::Session,
    policy::Policy,
};

use super::pc::{PcArgs, one_thread, settings};
use crate::{
    done::Done,
    error::{CliError, Kind},
    owner::{self, Need},
    ui::Ui,
};

/// The word by which the command begins itself anew as the daemon. Nobody types it.
pub(crate) const DAEMON: &str = "lend-daemon";
/// The program that runs, whatever lies at its path by now.
const OWN: &str = "/proc/self/exe";
/// The word for leaving out notes.
const QUIET: &str = "quiet";

/// Lend this PC: the daemon that runs jobs while its owner is away
///
/// It runs in its owner's session, as their service, and says in its log when it begins and stops working for
/// others, and why. Nothing is lent before the owner agrees (`undercroft lend enrol --grant`, or `undercroft lend
/// offers grant`). It can be killed at any moment: what an earlier daemon had left is ended before anything new is
/// begun.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  undercroft lend run --config ~/.config/undercroft/lending.json"
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pc: PcArgs,
}

pub(crate) fn run(ui: Ui, args: &RunArgs) -> Result<Done, CliError> {
    let policy = args.pc.policy()?;
    let socket = args.pc.socket(&policy);
    if undercroft_process::trace::is_heard() {
        // Who is shown each program that is run sees them as the arguments have it.
        return work(ui, policy, &socket);
    }
    let mut anew = Command::new(OWN);
    anew.arg0("undercroft").arg(DAEMON);
    anew.arg(args.pc.policy_file()?).arg(&socket);
    anew.arg(match ui.quiet {
        true => QUIET,
        false => "",
    });
    anew.arg(match anstream::ColorChoice::global() {
        anstream::ColorChoice::Always | anstream::ColorChoice::AlwaysAnsi => "always",
        anstream::ColorChoice::Never => "never",
        anstream::ColorChoice::Auto => "auto",
    });
    // It only comes back where it has failed.
    let error = anew.exec();
    Err(CliError::failed("can't begin the daemon").because(&error))
}

/// The daemon, with the words that [`run`] has for it.
pub(crate) fn daemon_main(words: impl Iterator<Item = OsString>) -> ExitCode {
    owner::begin(Need::Nothing, false);
    let words: Vec<OsString> = words.collect();
    let [config, socket, quiet, color] = words.as_slice() else {
        Ui::new(true).stderr(&format!("{DAEMON} is `undercroft lend run`'s own word"));
        return ExitCode::from(Kind::Usage.exit_code());
    };
    match color.to_str() {
        Some("always") => anstream::ColorChoice::Always.write_global(),
        Some("never") => anstream::ColorChoice::Never.write_global(),
        _ => {}
    }
    let ui = Ui::new(quiet == OsStr::new(QUIET));
    let policy = Policy::read(Path::new(config)).map_err(|e| CliError::from(&e));
    match policy.and_then(|policy| work(ui, policy, Path::new(socket))) {
        Ok(done) => ExitCode::from(done.exit_code()),
        Err(error) => {
            ui.stderr(&error.render());
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn work(ui: Ui, policy: Policy, socket: &Path) -> Result<Done, CliError> {
    let device = policy.device.clone();
    one_thread(async {
        let settings = settings(policy);
        let mut told = settings.told.subscribe();
        let daemon = Daemon::open(settings)
            .await
            .map_err(|e| CliError::from(&e))?;
        ui.note(&format!(
            "{device} listens to its owner at {}",
            socket.display()
        ));
        let says = tokio::spawn(async move {
            let mut last = Told::default();
            while told.changed().await.is_ok() {
                let now = told.borrow_and_update().clone();
                for line in news(&last, &now) {
                    ui.note(&line);
                }
                last = now;
            }
        });
        let failed = |e: std::io::Error| CliError::failed("can't listen for signals").because(&e);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let ran = daemon.run(socket, Session::of_environment(), stop).await;
        says.abort();
        ran.map_err(|e| CliError::from(&e))
    })?;
    Ok(Done::Well)
}

/// What is new, a line each.
fn news(last: &Told, now: &Told) -> Vec<String> {
    let mut lines = Vec::new();
    if last.is_connected != now.is_connected {
        lines.push(match now.is_connected {
            true => "connected to the server".to_owned(),
            false => "the connection to the server is lost".to_owned(),
        });
    }
    for (job, phase) in &now.jobs {
        if !last.jobs.iter().any(|(j, p)| j == job && p == phase) {
            lines.push(format!("{job} {phase}"));
        }
    }
    for (job, _) in &last.jobs {
        if !now.jobs.iter().any(|(j, _)| j == job) {
            lines.push(format!("{job} is over"));
        }
    }
    if last.why_not != now.why_not {
        lines.push(match now.why_not.is_empty() {
            true => "takes work".to_owned(),
            false => format!("takes no work: {}", now.why_not.join("; ")),
        });
    }
    lines
}
