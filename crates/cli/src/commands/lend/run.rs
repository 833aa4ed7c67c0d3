//! `undercroft lend run`.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use undercroft_lending::{
    daemon::{Daemon, Told},
    idle::Session,
};

use super::pc::{PcArgs, one_thread, settings};
use crate::{done::Done, error::CliError, ui::Ui};

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
        let ran = daemon.run(&socket, Session::of_environment(), stop).await;
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
