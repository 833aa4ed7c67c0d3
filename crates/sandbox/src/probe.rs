//! What this machine can confine.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};
use undercroft_process::{Input, run};

use crate::{
    SandboxError, Tools,
    bwrap::{View, in_words},
    groups::{Group, Own, Version},
    order::{JobOrder, ORDER_VERSION, Task, WORD_BYTES_MAX, Word},
    spawn::spawn,
};

/// How long a try may take. It is a few milliseconds.
const TRY_LIMIT: Duration = Duration::from_secs(20);
/// The most of what a failed try says, in bytes.
const SAID_BYTES_MAX: u64 = 4096;

/// One thing that a sandbox stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// What.
    pub name: &'static str,
    /// Whether it is there.
    pub is_there: bool,
    /// What was found, as a sentence.
    pub found: String,
    /// What can't be lent without it, and what to try.
    pub narrows: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Each thing, in the order in which a sandbox is built.
    pub abilities: Vec<Ability>,
    /// The version of Landlock; 0 for none.
    pub landlock_abi: u32,
}

/// Tries what a sandbox needs. Nothing is changed.
pub async fn probe(tools: &Result<Tools, SandboxError>) -> ProbeReport {
    let mut report = ProbeReport {
        abilities: Vec::new(),
        landlock_abi: 0,
    };
    match tools {
        Err(error) => report.abilities.push(Ability {
            name: "programs",
            is_there: false,
            found: format!("{error}."),
            narrows: undercroft_model::advice::Advice::hint(error),
        }),
        Ok(tools) => {
            report.abilities.push(Ability {
                name: "programs",
                is_there: true,
                found: version(tools).await,
                narrows: None,
            });
            namespaces(tools, &mut report).await;
        }
    }
    report.abilities.push(groups());
    if rustix::process::geteuid().is_root() {
        report.abilities.push(Ability {
            name: "user",
            is_there: true,
            found: "This is root: whoever broke out of a sandbox would be root, too.".to_owned(),
            narrows: Some("run the daemon as a person's service".to_owned()),
        });
    }
    report
}

async fn version(tools: &Tools) -> String {
    let mut command = Command::new(&tools.bwrap);
    command.arg("--version").env_clear();
    let said = run(command, Input::Nothing, TRY_LIMIT, &mut |_| {}).await;
    let said = said.map(|ended| String::from_utf8_lossy(&ended.stdout).trim().to_owned());
    let bwrap = said.unwrap_or_else(|error| format!("bubblewrap can't be started: {error}"));
    format!("{bwrap}; {}.", tools.job.display())
}

async fn namespaces(tools: &Tools, report: &mut ProbeReport) {
    let ability = |is_there, found, narrows| Ability {
        name: "namespaces and system calls",
        is_there,
        found,
        narrows,
    };
    match tokio::time::timeout(TRY_LIMIT, attempt(tools)).await {
        Ok(Ok(landlock_abi)) => {
            report.landlock_abi = landlock_abi;
            report.abilities.push(ability(
                true,
                "A sandbox without privileges was entered, and gave up its system calls."
                    .to_owned(),
                None,
            ));
            report.abilities.push(Ability {
                name: "Landlock",
                is_there: landlock_abi > 0,
                found: match landlock_abi {
                    0 => "The kernel has no Landlock, or it is switched off.".to_owned(),
                    abi => format!("Landlock's version {abi} holds jobs."),
                },
                narrows: (landlock_abi == 0)
                    .then(|| "nothing is lent: Linux 5.13 and later have it, and `lsm=` on the kernel's command line may leave it out".to_owned()),
            });
        }
        Ok(Err(error)) => report.abilities.push(ability(
            false,
            format!("{error}."),
            undercroft_model::advice::Advice::hint(&error),
        )),
        Err(_) => report.abilities.push(ability(
            false,
            format!("A sandbox wasn't entered within {} s.", TRY_LIMIT.as_secs()),
            None,
        )),
    }
}

/// Enters a sandbox that has nothing to do.
async fn attempt(tools: &Tools) -> Result<u32, SandboxError> {
    let view = View {
        program: None,
        inputs: &[],
        files: None,
        builder: None,
        groups: Vec::new(),
    };
    let order = JobOrder {
        version: ORDER_VERSION,
        task: Task::Probe,
        arguments: Vec::new(),
        program: None,
        inputs: Vec::new(),
        landlock_abi_min: 0,
        open_files: 64,
        file_bytes: 1024 * 1024,
    };
    let (mut child, socket) = spawn(tools, &view, &order).await?;
    let mut line = Vec::new();
    let limit = u64::try_from(WORD_BYTES_MAX).unwrap_or(u64::MAX);
    let read = BufReader::new(socket)
        .take(limit)
        .read_until(b'\n', &mut line)
        .await;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // What it said is for the words of a failure alone.
        let _ = stderr.take(SAID_BYTES_MAX).read_to_end(&mut said).await;
    }
    let _ = child.wait().await;
    match (read, serde_json::from_slice(&line)) {
        (Ok(_), Ok(Word::Begins { landlock_abi })) => Ok(landlock_abi),
        (Ok(_), Ok(Word::Refused { why } | Word::Unfit { why } | Word::Trapped { why })) => {
            Err(SandboxError::Refused { why, hint: None })
        }
        _ => Err(in_words(&String::from_utf8_lossy(&said))),
    }
}

fn groups() -> Ability {
    let planned = Own::look().and_then(|own| Group::planned(&own, "undercroft-jobs"));
    match planned {
        Ok(group) => {
            let held: Vec<String> = group
                .held_by()
                .into_iter()
                .map(|(controller, version)| {
                    let version = match version {
                        Version::One => 1,
                        Version::Two => 2,
                    };
                    format!("{} (version {version})", controller.limit())
                })
                .collect();
            Ability {
                name: "control groups",
                is_there: true,
                found: format!("They offer {}.", held.join(", ")),
                narrows: None,
            }
        }
        Err(error) => Ability {
            name: "control groups",
            is_there: false,
            found: format!("{error}."),
            narrows: undercroft_model::advice::Advice::hint(&error),
        },
    }
}
