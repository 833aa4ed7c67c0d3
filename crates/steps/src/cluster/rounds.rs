//! A step of the cluster's from its first ask to its verdict.

use std::borrow::Cow;

use undercroft_model::{Action, ClusterRole, Evidence, Failure, FailureKind, Work};

use super::{
    ask::{ClusterAnswer, ClusterAsk},
    bootstrap::bootstrap,
    drain::{drain, release},
    member::member,
    node::NodeWants,
    ready::ready,
    step::ClusterStep,
    talk::{Halt, Known, Over, Talk, Wait, Way},
};

/// The most that one round asks: what a step stands on, and the parts of what it waits for. A round that asks for more is
/// at fault.
const ASKS_MAX: usize = 64;
/// The most rounds that begin at once after one another: each changes something for good, and etcd has seven members at
/// the most. A step that begins more is at fault.
const ANEW_MAX: u32 = 32;

/// What a step of the cluster's wants next.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterNext {
    /// This is to be asked.
    Ask(ClusterAsk),
    /// Something is missing that comes by itself: after a while it is looked at again.
    Wait(Cow<'static, str>),
    /// It is done.
    Done(Evidence),
    /// A probe has found that it isn't done, for want of that.
    NotDone(String),
    /// It failed.
    Failed(Failure),
}

/// How far a step of the cluster's is.
#[derive(Debug, Clone, Default)]
pub struct ClusterScript {
    answers: Vec<ClusterAnswer>,
    known: Known,
    begun_anew: u32,
    /// Why the step comes to no end, while what it has begun is undone.
    gives_up: Option<Failure>,
}

impl ClusterScript {
    /// What was asked last is answered.
    pub fn tell(&mut self, answer: ClusterAnswer) {
        self.answers.push(answer);
    }

    /// What comes next, that long after the step's start.
    pub fn next(&mut self, cx: &ClusterStep<'_>, elapsed_ms: u64) -> ClusterNext {
        if let Some(failure) = &self.gives_up {
            return ClusterNext::Failed(self.undone(failure.clone()));
        }
        loop {
            let mut talk = Talk::new(&self.answers, &self.known);
            let way = round(cx, &mut talk);
            let next = talk.next;
            let halt = match way {
                Ok(evidence) => return ClusterNext::Done(evidence),
                Err(halt) => halt,
            };
            match halt {
                Halt::Ask(ask) if self.answers.len() < ASKS_MAX => return ClusterNext::Ask(ask),
                Halt::Anew if self.begun_anew < ANEW_MAX => self.begun_anew += 1,
                Halt::Wait(wait) => {
                    self.answers.clear();
                    self.known = next;
                    return match waits(cx, wait, elapsed_ms) {
                        ClusterNext::Failed(failure) => self.give_up(cx, failure),
                        waits => waits,
                    };
                }
                Halt::NotDone(missing) => return ClusterNext::NotDone(missing),
                Halt::Failed(failure) => return self.give_up(cx, failure),
                Halt::Ask(_) | Halt::Anew => {
                    let message = "the step asks without an end: a fault in Undercroft itself";
                    let failure = Failure::new(FailureKind::Permanent, message);
                    return ClusterNext::Failed(failure);
                }
            }
            self.answers.clear();
            self.known = next;
        }
    }
}

impl ClusterScript {
    /// A machine that can't be emptied goes on as it was: what was closed for it is opened again.
    fn give_up(&mut self, cx: &ClusterStep<'_>, failure: Failure) -> ClusterNext {
        if !matches!(cx.step.action, Action::Drain) || !self.known.closed || cx.work == Work::Probe
        {
            return ClusterNext::Failed(failure);
        }
        self.answers.clear();
        self.gives_up = Some(failure);
        ClusterNext::Ask(ClusterAsk::Open)
    }

    /// The failure, with what has become of the machine.
    fn undone(&self, failure: Failure) -> Failure {
        match self.answers.last() {
            Some(ClusterAnswer::Done) => failure,
            _ => Failure {
                message: format!(
                    "{}; the machine couldn't be opened for pods again",
                    failure.message
                ),
                ..failure
            },
        }
    }
}

fn round(cx: &ClusterStep<'_>, talk: &mut Talk<'_>) -> Way<Evidence> {
    match &cx.step.action {
        Action::FoundCluster => member(cx, ClusterRole::Server, None, talk),
        Action::JoinCluster { role, replaces } => member(cx, *role, Some(*replaces), talk),
        Action::AwaitReady {
            labels,
            annotations,
            taints,
        } => {
            let wants = NodeWants {
                labels,
                annotations,
                taints,
            };
            ready(cx, &wants, talk)
        }
        Action::Bootstrap { part } => bootstrap(cx, *part, talk),
        Action::Drain => drain(cx, talk),
        Action::Release => release(cx, talk),
        Action::NetworkBoot
        | Action::Approve { .. }
        | Action::Inspect { .. }
        | Action::Partition { .. }
        | Action::CopyClosure { .. }
        | Action::Install { .. }
        | Action::Reboot { .. }
        | Action::Prove { .. }
        | Action::Fetch { .. }
        | Action::Stage { .. }
        | Action::Restart { .. }
        | Action::Confirm { .. } => Err(Halt::Failed(Failure::new(
            FailureKind::Permanent,
            "this is no step of the cluster's",
        ))),
    }
}

/// What a wait comes to at that time.
fn waits(cx: &ClusterStep<'_>, wait: Wait, elapsed_ms: u64) -> ClusterNext {
    if elapsed_ms < cx.wait_ms_max().min(wait.ms_max) {
        return ClusterNext::Wait(wait.missing);
    }
    ClusterNext::Failed(match wait.over {
        Over::Says(says) => says(&wait.missing),
        Over::Failed(failure) => *failure,
    })
}
