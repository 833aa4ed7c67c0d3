//! The steps by which a machine that runs gets another system: what is asked of it, and what the answers prove.
//!
//! They are rounds of asks, as those of the cluster are. A round that finds something missing which comes by itself is
//! over, and after a wait another begins with a look. Nothing is kept from one round to the next but whether the machine
//! was told to restart: so a step goes on from any point at which the machine or the controller was lost, by looking.

mod ask;
mod look;

use undercroft_model::{Action, Evidence, Failure, FailureKind, NoAnswer, NodeFacts, Step, Work};

pub use self::{
    ask::{UpdateAnswer, UpdateAsk, words},
    look::{BootVerdict, BootsNext, LeftSystem, UpdateLook},
};
use crate::{
    ask::{CopyFailed, Ended, Unanswered},
    exit::code,
};

/// The most that one round asks.
const ASKS_MAX: usize = 8;
/// How long a machine that doesn't answer is waited for by a step that doesn't restart it, in milliseconds.
const SILENCE_MS_MAX: u64 = 60_000;
/// How long a machine that was told to restart may go on as it is, in milliseconds, before it is told again: its
/// services are stopped meanwhile.
const TOLD_AGAIN_MS: u64 = 5 * 60_000;

/// What a step of an update wants next.
#[derive(Debug, Clone, PartialEq)]
pub enum UpdateNext {
    /// This is to be asked.
    Ask(UpdateAsk),
    /// Something is missing that comes by itself: after a while it is looked at again.
    Wait(String),
    /// It is done.
    Done(Evidence),
    /// A probe has found that it isn't done.
    NotDone,
    /// It failed.
    Failed(Failure),
}

/// A step of an update, or a probe of it.
#[derive(Debug, Clone, Copy)]
pub struct UpdateStep<'a> {
    /// The step.
    pub step: &'a Step,
    /// What is known of its machine.
    pub facts: &'a NodeFacts,
    /// Which half of it.
    pub work: Work,
    /// How long it waits for what comes by itself, in milliseconds from its start.
    pub wait_ms_max: u64,
}

/// How far a step of an update is.
#[derive(Debug, Clone, Default)]
pub struct UpdateScript {
    answers: Vec<UpdateAnswer>,
    /// When the machine was told to restart, in milliseconds from the step's start.
    told_ms: Option<u64>,
}

/// Why a round goes no further.
enum Halt {
    Ask(UpdateAsk),
    Wait(String, FailureKind),
    NotDone,
    Failed(Failure),
}

type Way<T> = Result<T, Halt>;

impl UpdateScript {
    /// What was asked last is answered.
    pub fn tell(&mut self, answer: UpdateAnswer) {
        self.answers.push(answer);
    }

    /// What comes next, that long after the step's start. `None` where the step isn't one of these.
    pub fn next(&mut self, cx: &UpdateStep<'_>, elapsed_ms: u64) -> Option<UpdateNext> {
        if !is_asked_here(&cx.step.action) {
            return None;
        }
        let mut round = Round {
            cx,
            answers: self.answers.iter(),
            elapsed_ms,
            told_ms: self.told_ms,
        };
        let way = round.go();
        let told_ms = round.told_ms;
        Some(match way {
            Ok(evidence) => UpdateNext::Done(evidence),
            Err(Halt::Ask(ask)) if self.answers.len() < ASKS_MAX => {
                self.told_ms = told_ms;
                UpdateNext::Ask(ask)
            }
            Err(Halt::Ask(_)) => UpdateNext::Failed(Failure::new(
                FailureKind::Permanent,
                "the step asks without an end: a fault in Undercroft itself",
            )),
            Err(Halt::Wait(missing, kind)) => {
                self.answers.clear();
                self.told_ms = told_ms;
                match elapsed_ms < cx.wait_ms_max {
                    true => UpdateNext::Wait(missing),
                    false => UpdateNext::Failed(Failure::new(kind, missing)),
                }
            }
            Err(Halt::NotDone) => UpdateNext::NotDone,
            Err(Halt::Failed(failure)) => UpdateNext::Failed(failure),
        })
    }
}

fn is_asked_here(action: &Action) -> bool {
    matches!(
        action,
        Action::Fetch { .. }
            | Action::Stage { .. }
            | Action::Restart { .. }
            | Action::Confirm { .. }
    )
}

struct Round<'a> {
    cx: &'a UpdateStep<'a>,
    answers: std::slice::Iter<'a, UpdateAnswer>,
    elapsed_ms: u64,
    told_ms: Option<u64>,
}

impl<'a> Round<'a> {
    fn go(&mut self) -> Way<Evidence> {
        match &self.cx.step.action {
            Action::Fetch {
                toplevel,
                closure_bytes,
                ..
            } => self.fetch(toplevel, *closure_bytes),
            Action::Stage { toplevel, .. } => self.stage(toplevel),
            Action::Restart { .. } => self.restart(),
            Action::Confirm { toplevel, .. } => self.confirm(toplevel),
            _ => Err(Halt::Failed(Failure::new(
                FailureKind::Permanent,
                "this is no step of an update",
            ))),
        }
    }

    fn fetch(&mut self, toplevel: &str, closure_bytes: Option<u64>) -> Way<Evidence> {
        if self.cx.work == Work::Act {
            match self.ask(|| UpdateAsk::Copy {
                toplevel: toplevel.to_owned(),
                closure_bytes,
            })? {
                UpdateAnswer::CopyFailed(failed) => return Err(Halt::Failed(not_copied(failed))),
                answer => ended_well(answer)?,
            }
        }
        let whole = self.ended(|| UpdateAsk::IsWhole {
            toplevel: toplevel.to_owned(),
        })?;
        match (whole.code, self.cx.work) {
            (code::DONE, _) => {}
            (_, Work::Probe) => return Err(Halt::NotDone),
            (_, Work::Act) => {
                let message = "it was copied, and the machine's store doesn't have it";
                let failure = Failure::new(FailureKind::Transient, message);
                return Err(Halt::Failed(failure.with_command(whole.failed_command())));
            }
        }
        let look = self.look()?;
        Ok(Evidence::Fetched {
            boot_id: look.boot_id.clone(),
        })
    }

    fn stage(&mut self, toplevel: &str) -> Way<Evidence> {
        let before = self.look()?;
        if let Some(staged) = staged(before, toplevel) {
            return Ok(staged);
        }
        if self.cx.work == Work::Probe {
            return Err(Halt::NotDone);
        }
        // From here the machine runs the new system at its next start, whatever starts it.
        let ended = self.ended(|| UpdateAsk::Stage {
            toplevel: toplevel.to_owned(),
        })?;
        if ended.code != code::DONE {
            return Err(Halt::Failed(not_staged(ended)));
        }
        let after = self.look()?;
        staged(after, toplevel).ok_or_else(|| {
            let would = after.next.system().unwrap_or("something that it doesn't name");
            let message = format!("its boot loader was written, and its next start would be into {would}");
            Halt::Failed(Failure::new(FailureKind::Permanent, message).with_hint(
                "`bootctl list` on the machine shows its boot menu; look at the end of `switch-to-configuration boot` too.",
            ))
        })
    }

    fn restart(&mut self) -> Way<Evidence> {
        let Some(staged) = self.cx.facts.staged_boot_id.as_deref() else {
            let message = "nobody knows in which boot its system was staged";
            return Err(Halt::Failed(Failure::new(
                FailureKind::PreconditionLost,
                message,
            )));
        };
        let look = match self.ask(|| UpdateAsk::Look)? {
            UpdateAnswer::Look(look) => look,
            UpdateAnswer::Nothing(unanswered) => return Err(on_its_way(unanswered)),
            answer => return Err(unexpected(answer)),
        };
        if look.boot_id != staged {
            return Ok(Evidence::Restarted {
                boot_id: look.boot_id.clone(),
            });
        }
        if self.cx.work == Work::Probe {
            return Err(Halt::NotDone);
        }
        let told_lately = self
            .told_ms
            .is_some_and(|told_ms| self.elapsed_ms.saturating_sub(told_ms) < TOLD_AGAIN_MS);
        if !told_lately {
            let elapsed_ms = self.elapsed_ms;
            // A connection that the restart itself has cut off is no failure: what counts is whether it comes back.
            let answer = self.ask(|| UpdateAsk::Restart)?;
            self.told_ms = Some(elapsed_ms);
            if let UpdateAnswer::Ended(ended) = answer
                && ended.code != code::DONE
            {
                let message = "it doesn't let itself be restarted";
                let failure = Failure::new(FailureKind::Transient, message);
                return Err(Halt::Failed(failure.with_command(ended.failed_command())));
            }
        }
        Err(Halt::Wait(
            "it has not left the boot in which its system was staged".to_owned(),
            FailureKind::Ambiguous,
        ))
    }

    fn confirm(&mut self, toplevel: &str) -> Way<Evidence> {
        let look = match self.ask(|| UpdateAsk::Look)? {
            UpdateAnswer::Look(look) => look,
            UpdateAnswer::Nothing(unanswered) => return Err(on_its_way(unanswered)),
            answer => return Err(unexpected(answer)),
        };
        let facts = self.cx.facts;
        if facts.staged_boot_id.as_deref() == Some(look.boot_id.as_str()) {
            let message = "it has not left the boot in which its system was staged";
            return Err(Halt::Failed(Failure::new(
                FailureKind::PreconditionLost,
                message,
            )));
        }
        if look.booted != toplevel {
            return Err(Halt::Failed(left(look, toplevel, facts)));
        }
        // Where it tries no systems, there is nothing more to be waited for.
        let tries = facts.goes_back_to.is_some();
        let state = look
            .report
            .as_ref()
            .filter(|report| report.system == toplevel);
        match state.map(|report| report.state.as_str()) {
            Some("proven") => Ok(up(look, &self.cx.step.action)),
            None if !tries => Ok(up(look, &self.cx.step.action)),
            Some("fell-back") => Err(Halt::Wait(
                "it isn't well with its new system, and goes back to the one before".to_owned(),
                FailureKind::Ambiguous,
            )),
            Some("trying") => Err(Halt::Wait(
                "it runs its new system, and nothing has said yet that it is well with it"
                    .to_owned(),
                FailureKind::Permanent,
            )),
            Some(other) => Err(Halt::Wait(
                format!("it runs its new system, and says of it: {other}"),
                FailureKind::Permanent,
            )),
            None => Err(Halt::Wait(
                "it tries its new system".to_owned(),
                FailureKind::Permanent,
            )),
        }
    }

    fn ask(&mut self, ask: impl FnOnce() -> UpdateAsk) -> Way<&'a UpdateAnswer> {
        self.answers.next().ok_or_else(|| Halt::Ask(ask()))
    }

    fn ended(&mut self, ask: impl FnOnce() -> UpdateAsk) -> Way<&'a Ended> {
        match self.ask(ask)? {
            UpdateAnswer::Ended(ended) => Ok(ended),
            UpdateAnswer::Nothing(unanswered) => Err(self.silent(unanswered)),
            answer => Err(unexpected(answer)),
        }
    }

    fn look(&mut self) -> Way<&'a UpdateLook> {
        match self.ask(|| UpdateAsk::Look)? {
            UpdateAnswer::Look(look) => Ok(look),
            UpdateAnswer::Nothing(unanswered) => Err(self.silent(unanswered)),
            answer => Err(unexpected(answer)),
        }
    }

    /// A machine that runs and doesn't answer is waited for a while: it may be starting.
    fn silent(&self, unanswered: &Unanswered) -> Halt {
        match unanswered.why {
            NoAnswer::Unreachable if self.elapsed_ms < SILENCE_MS_MAX => {
                Halt::Wait(unanswered.failure.message.clone(), FailureKind::Transient)
            }
            NoAnswer::Unreachable => Halt::Failed(Failure {
                kind: FailureKind::Transient,
                ..unanswered.failure.clone()
            }),
            NoAnswer::OtherKey => Halt::Failed(Failure {
                kind: FailureKind::Refused,
                ..unanswered.failure.clone()
            }),
            _ => Halt::Failed(unanswered.failure.clone()),
        }
    }
}

/// What was staged, where a look shows that it was.
fn staged(look: &UpdateLook, toplevel: &str) -> Option<Evidence> {
    (look.profile == toplevel && look.next.system() == Some(toplevel)).then(|| Evidence::Staged {
        boot_id: look.boot_id.clone(),
        goes_back_to: look.next.goes_back_to().map(str::to_owned),
    })
}

fn up(look: &UpdateLook, action: &Action) -> Evidence {
    let key = match action {
        Action::Confirm {
            host_key_fingerprint,
            ..
        } => host_key_fingerprint.clone(),
        _ => String::new(),
    };
    Evidence::Up {
        boot_id: look.boot_id.clone(),
        booted_system: look.booted.clone(),
        host_key_fingerprint: key,
    }
}

/// Why a machine runs another system than the one that it was to try.
fn left(look: &UpdateLook, toplevel: &str, facts: &NodeFacts) -> Failure {
    let of_this = |fell_back: &&LeftSystem| fell_back.system == toplevel;
    let hint = "See `journalctl --boot -1` on the machine, and /run/undercroft/health.json; then build another system.";
    match look.fell_back.as_ref().filter(of_this) {
        Some(fell_back) => Failure::new(
            FailureKind::Refuted,
            format!("it wasn't well with {toplevel} and went back to {}: {}", look.booted, fell_back.failed),
        )
        .with_hint(hint),
        None if facts.goes_back_to.as_deref() == Some(look.booted.as_str()) => Failure::new(
            FailureKind::Refuted,
            format!(
                "it came back with {} and doesn't say why: with {toplevel} its kernel has panicked or hung, or its power was lost",
                look.booted
            ),
        )
        .with_hint(hint),
        None => Failure::new(
            FailureKind::Permanent,
            format!("it booted {}, and not {toplevel}", look.booted),
        )
        .with_hint("`bootctl list` on the machine shows its boot menu: another entry, or another disk, may come first."),
    }
}

/// A machine between two boots is waited for, whatever it answers.
fn on_its_way(unanswered: &Unanswered) -> Halt {
    match unanswered.why {
        NoAnswer::AuthRefused | NoAnswer::Local => Halt::Failed(unanswered.failure.clone()),
        // Its installer may show its own key, where a machine has booted from the network.
        NoAnswer::OtherKey => Halt::Wait(unanswered.failure.message.clone(), FailureKind::Refused),
        NoAnswer::Unreachable | NoAnswer::Interrupted | NoAnswer::NotInTime { .. } => Halt::Wait(
            format!("it doesn't answer: {}", unanswered.failure.message),
            FailureKind::Ambiguous,
        ),
    }
}

fn ended_well(answer: &UpdateAnswer) -> Way<()> {
    match answer {
        UpdateAnswer::Done => Ok(()),
        UpdateAnswer::Nothing(unanswered) => Err(Halt::Failed(unanswered.failure.clone())),
        answer => Err(unexpected(answer)),
    }
}

fn unexpected(answer: &UpdateAnswer) -> Halt {
    match answer {
        UpdateAnswer::Nothing(unanswered) => Halt::Failed(unanswered.failure.clone()),
        UpdateAnswer::CopyFailed(failed) => Halt::Failed(not_copied(failed)),
        _ => Halt::Failed(Failure::new(
            FailureKind::Ambiguous,
            "something else was answered than was asked: a fault in Undercroft itself",
        )),
    }
}

fn not_copied(failed: &CopyFailed) -> Failure {
    let said = failed.command.output_tail.as_str();
    let full = said.contains("No space left on device") || said.contains("disk is full");
    let because =
        |kind, message: &str| Failure::new(kind, message).with_command(failed.command.clone());
    match &failed.connection {
        _ if failed.timed_out => because(FailureKind::Ambiguous, "the copy took too long"),
        _ if full => because(
            FailureKind::Permanent,
            "the machine's store is full, or the one that is copied from",
        )
        .with_hint(
            "`nix-collect-garbage -d` on the machine keeps the generation that last proved itself.",
        ),
        Some(unanswered) => unanswered.failure.clone(),
        None => {
            let first = said.lines().find(|line| !line.trim().is_empty());
            let first = first.unwrap_or("it gave no reason");
            because(FailureKind::Transient, &format!("nix copy failed: {first}"))
        }
    }
}

fn not_staged(ended: &Ended) -> Failure {
    let full = ended.stderr_tail.contains("No space left on device");
    let (message, hint) = match ended.code {
        _ if full => (
            "the EFI system partition is full, and the system that runs stays the next one",
            "Lower `undercroft.boot.generations`, or remove old generations: `nix-env --profile \
             /nix/var/nix/profiles/system --delete-generations +3` and `switch-to-configuration boot`.",
        ),
        code::BUSY => (
            "another command of an update still runs on the machine",
            "See who it is: `ps` on the machine.",
        ),
        _ => (
            "the system couldn't be made the next one to boot",
            "The end of its output says more; the system that runs stays as it is.",
        ),
    };
    let kind = match ended.code {
        code::BUSY => FailureKind::Transient,
        _ => FailureKind::Permanent,
    };
    Failure::new(kind, message)
        .with_command(ended.failed_command())
        .with_hint(hint)
}

#[cfg(test)]
mod tests;
