//! What the owner's commands share: the policy, the daemon's socket, and what is done where no daemon runs.

use std::path::PathBuf;

use clap::Args;
use tokio::sync::watch;
use undercroft_lending::{
    daemon::{Daemon, DaemonSettings, Told},
    owner::{Call, OwnerAnswer, OwnerAsk, call, default_path},
    policy::Policy,
    watch::Roots,
};

use crate::error::CliError;

/// Which PC is meant.
#[derive(Debug, Args)]
pub(crate) struct PcArgs {
    /// What the PC lends, as Home Manager writes it [default: lending.json in $XDG_CONFIG_HOME/undercroft]
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The daemon's socket [default: undercroft-lending.sock in $XDG_RUNTIME_DIR]
    #[arg(long, global = true, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    socket: Option<PathBuf>,
}

impl PcArgs {
    /// The policy.
    pub(crate) fn policy(&self) -> Result<Policy, CliError> {
        Policy::read(&self.policy_file()?).map_err(|e| CliError::from(&e))
    }

    /// Where it is.
    pub(crate) fn policy_file(&self) -> Result<PathBuf, CliError> {
        match &self.config {
            Some(path) => Ok(path.clone()),
            None => Ok(config_home()?.join("undercroft/lending.json")),
        }
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self, policy: &Policy) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| default_path(&policy.state_directory))
    }

    /// Asks the daemon, or does it here where none runs.
    pub(crate) fn ask(&self, ask: OwnerAsk) -> Result<OwnerAnswer, CliError> {
        let policy = self.policy()?;
        let socket = self.socket(&policy);
        let answer = one_thread(async {
            let called = call(&socket, ask.clone()).await;
            match called.map_err(|e| CliError::from(&e))? {
                Call::Answer(answer) => Ok(*answer),
                Call::NotRunning => {
                    let daemon = Daemon::open(settings(policy)).await;
                    let daemon = daemon.map_err(|e| CliError::from(&e))?;
                    daemon.answer(ask).await.map_err(|e| CliError::from(&e))
                }
            }
        })?;
        match answer {
            OwnerAnswer::Refused { why, hint } => Err(CliError::failed(why).maybe_hint(hint)),
            answer => Ok(answer),
        }
    }
}

/// An answer to another question than the one that was asked.
pub(crate) fn other_answer() -> CliError {
    CliError::bug("the daemon has answered another question than the one that was asked")
}

/// What a daemon on this machine begins with.
pub(crate) fn settings(policy: Policy) -> DaemonSettings {
    DaemonSettings {
        policy,
        roots: Roots::default(),
        job_program: None,
        told: watch::Sender::new(Told::default()),
    }
}

fn config_home() -> Result<PathBuf, CliError> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match (of("XDG_CONFIG_HOME"), of("HOME")) {
        (Some(dir), _) => Ok(PathBuf::from(dir)),
        (None, Some(home)) => Ok(PathBuf::from(home).join(".config")),
        (None, None) => Err(CliError::usage(
            "neither XDG_CONFIG_HOME nor HOME says where the policy is",
        )
        .hint("Name it with --config.")),
    }
}

/// Runs what waits for several things at once on this one thread: a daemon is to cost its owner little.
pub(crate) fn one_thread<T>(
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("can't start what waits").because(&e))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}
