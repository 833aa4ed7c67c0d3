//! Commands of the operator's.

use std::time::Duration;

use tokio::process::Command;
use undercroft_model::NodeName;

use super::{PowerError, PowerOutcome, PowerReading, PowerTarget};
use undercroft_process::{Input, run};

/// How long a command that switches may take, in milliseconds: a BMC answers in seconds, a
/// switched socket behind a slow gateway in tens of them.
pub const POWER_COMMAND_MS: u64 = 60_000;
/// How long a command that tells the power state may take, in milliseconds.
pub const STATUS_COMMAND_MS: u64 = 20_000;

/// A program with its arguments, placeholders filled in.
#[derive(Debug, Clone)]
pub(super) struct PowerCommand {
    node: NodeName,
    program: String,
    args: Vec<String>,
}

impl PowerCommand {
    /// Fills the placeholders of a command; `None` if there is no command.
    pub(super) fn new(target: &PowerTarget, words: &[String]) -> Option<Self> {
        let mut words = words.iter().map(|word| fill(word, target));
        let program = words.next()?;
        Some(Self {
            node: target.node.clone(),
            program,
            args: words.collect(),
        })
    }

    /// Runs the command and takes its exit code as the outcome.
    pub(super) async fn switch(&self, phase: &'static str) -> Result<PowerOutcome, PowerError> {
        self.run(phase, POWER_COMMAND_MS)
            .await
            .map(|_| PowerOutcome::Done)
    }

    /// Runs the command and reads `on` or `off` from the first word of its output.
    pub(super) async fn read(&self) -> Result<PowerReading, PowerError> {
        let output = self.run("status", STATUS_COMMAND_MS).await?;
        let word = output
            .split_ascii_whitespace()
            .next()
            .unwrap_or_default()
            .to_lowercase();
        match word.as_str() {
            "on" => Ok(PowerReading::On),
            "off" => Ok(PowerReading::Off),
            _ => Err(self.failed("status", "printed neither `on` nor `off`".into(), output)),
        }
    }

    async fn run(&self, phase: &'static str, limit_ms: u64) -> Result<String, PowerError> {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        let limit = Duration::from_millis(limit_ms);
        let finished = run(command, Input::Nothing, limit, &mut |_| {})
            .await
            .map_err(|source| PowerError::NotRun {
                node: self.node.clone(),
                phase,
                command: self.shown(),
                source,
            })?;
        let how = match (finished.timed_out, finished.code) {
            (false, Some(0)) => {
                return Ok(String::from_utf8_lossy(&finished.stdout).into_owned());
            }
            (true, _) => format!("was ended after {limit_ms} ms"),
            (false, Some(code)) => format!("failed with exit code {code}"),
            (false, None) => "was ended by a signal".into(),
        };
        Err(self.failed(phase, how, finished.stderr_tail))
    }

    fn failed(&self, phase: &'static str, how: String, output: String) -> PowerError {
        let (node, command) = (self.node.clone(), self.shown());
        PowerError::CommandFailed {
            node,
            phase,
            command,
            how,
            output: output.trim().into(),
        }
    }

    fn shown(&self) -> String {
        let mut shown = self.program.clone();
        for arg in &self.args {
            shown.push(' ');
            shown.push_str(arg);
        }
        shown
    }
}

/// Fills in the placeholders that the inventory knows. No value holds a brace, so the order
/// doesn't matter.
fn fill(word: &str, target: &PowerTarget) -> String {
    let mac = target.mac.map(|mac| mac.to_string()).unwrap_or_default();
    word.replace("{node}", target.node.as_str())
        .replace("{address}", &target.address.to_string())
        .replace("{mac}", &mac)
}
