//! A round of asks, as far as it has come.

use std::{borrow::Cow, sync::Arc};

use undercroft_model::{Failure, FailureKind};

use super::{
    ask::{ClusterAnswer, ClusterAsk, PodSeen},
    etcd::EtcdMembers,
    node::NodeSeen,
    status::{JoinStatus, OtherServer},
};

/// The wait between two looks at something that takes its time, in milliseconds.
pub const LOOK_INTERVAL_MS: u64 = 1000;
/// How long a probe looks for a cluster that may be restarting, in milliseconds. The engine gives a probe two minutes.
pub const PROBE_WAIT_MS_MAX: u64 = 90_000;
/// How long a machine that doesn't answer is waited for before a step is tried anew, in milliseconds: a server's firmware
/// tests its memory for some minutes. Others that wait for its turn wait no longer.
pub const BOOT_WAIT_MS_MAX: u64 = 5 * 60_000;
/// The time before the step's limit at which a wait gives up, in milliseconds, so that what was seen last is told rather
/// than that time ran out.
pub const MARGIN_MS: u64 = 3000;
/// How many looks at what a step waits for come to one look at what it stands on: that one asks for more.
pub(super) const GROUND_LOOKS: u32 = 15;

/// What is kept from one round to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    /// The machine was told to join.
    pub(super) started: bool,
    /// What the cluster knew of the machine's earlier life is gone.
    pub(super) cleared: bool,
    /// The Node was dressed.
    pub(super) dressed: bool,
    /// The part was brought in.
    pub(super) brought_in: bool,
    /// The boot that the machine is in, as it has said itself.
    pub(super) boot_id: Option<String>,
    /// The machine was closed for further pods.
    pub(super) closed: bool,
    /// Pods that were evicted.
    pub(super) evicted: u32,
    /// How many rounds found something missing.
    pub(super) looks: u32,
}

/// Why a round goes no further.
#[derive(Debug)]
pub(super) enum Halt {
    Ask(ClusterAsk),
    /// Something is missing that comes by itself.
    Wait(Wait),
    /// What was done is to be looked at from the beginning, at once.
    Anew,
    NotDone(String),
    Failed(Failure),
}

/// What is waited for.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) missing: Cow<'static, str>,
    /// How long at most, where the step's own limit is longer.
    pub(super) ms_max: u64,
    pub(super) over: Over,
}

/// What it comes to when the time is over.
#[derive(Debug)]
pub(super) enum Over {
    /// A failure that says what was missing.
    Says(fn(&str) -> Failure),
    /// That failure.
    Failed(Box<Failure>),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Halt {
    /// Waits, and says in the end what was missing.
    pub(super) fn wait(missing: impl Into<Cow<'static, str>>, says: fn(&str) -> Failure) -> Self {
        Self::Wait(Wait {
            missing: missing.into(),
            ms_max: u64::MAX,
            over: Over::Says(says),
        })
    }

    /// Waits, and fails in the end with that, if it may pass; otherwise at once.
    pub(super) fn wait_out(failure: Failure) -> Self {
        if failure.kind == FailureKind::Transient {
            Self::insist(failure)
        } else {
            Self::Failed(failure)
        }
    }

    /// Waits, and fails in the end with that, whatever its kind.
    pub(super) fn insist(failure: Failure) -> Self {
        Self::Wait(Wait {
            missing: failure.message.clone().into(),
            ms_max: u64::MAX,
            over: Over::Failed(Box::new(failure)),
        })
    }

    /// The same, with a limit to the wait.
    pub(super) fn for_at_most(mut self, limit_ms: u64) -> Self {
        if let Self::Wait(wait) = &mut self {
            wait.ms_max = limit_ms;
        }
        self
    }

    /// The same of something that is waited for: in the end it is said in those words what was missing.
    pub(super) fn or_say(self, says: fn(&str) -> Failure) -> Self {
        match self {
            Self::Wait(wait) => Self::Wait(Wait {
                over: Over::Says(says),
                ..wait
            }),
            other => other,
        }
    }
}

pub(super) type Way<T> = Result<T, Halt>;

/// What a round of asks was answered, in the order in which it was asked.
pub(super) struct Talk<'a> {
    answers: std::slice::Iter<'a, ClusterAnswer>,
    /// What earlier rounds have left.
    pub(super) known: &'a Known,
    /// What this one leaves.
    pub(super) next: Known,
}

impl<'a> Talk<'a> {
    pub(super) fn new(answers: &'a [ClusterAnswer], known: &'a Known) -> Self {
        Self {
            answers: answers.iter(),
            known,
            next: known.clone(),
        }
    }

    /// The answer, if it was asked already.
    pub(super) fn ask(&mut self, ask: ClusterAsk) -> Way<&'a ClusterAnswer> {
        self.answers.next().ok_or(Halt::Ask(ask))
    }

    /// Goes on where it was done; a failure that may pass is waited out.
    pub(super) fn done(&mut self, ask: ClusterAsk) -> Way<()> {
        self.done_as(|| ask)
    }

    /// The same, with what is asked put together only if it wasn't asked already.
    pub(super) fn done_as(&mut self, ask: impl FnOnce() -> ClusterAsk) -> Way<()> {
        match self.answers.next() {
            Some(ClusterAnswer::Done) => Ok(()),
            Some(answer) => Err(nothing(answer)),
            None => Err(Halt::Ask(ask())),
        }
    }

    pub(super) fn status(&mut self) -> Way<&'a JoinStatus> {
        match self.ask(ClusterAsk::Status)? {
            ClusterAnswer::Status(status) => Ok(status),
            answer => Err(nothing(answer)),
        }
    }

    pub(super) fn others(&mut self) -> Way<&'a [OtherServer]> {
        match self.ask(ClusterAsk::OtherServers)? {
            ClusterAnswer::Others(others) => Ok(others),
            answer => Err(nothing(answer)),
        }
    }

    pub(super) fn node(&mut self) -> Way<Option<&'a Arc<NodeSeen>>> {
        match self.ask(ClusterAsk::Node)? {
            ClusterAnswer::Node(node) => Ok(node.as_ref()),
            answer => Err(nothing(answer)),
        }
    }

    pub(super) fn pods(&mut self) -> Way<&'a [PodSeen]> {
        match self.ask(ClusterAsk::Pods)? {
            ClusterAnswer::Pods(pods) => Ok(pods),
            answer => Err(nothing(answer)),
        }
    }

    pub(super) fn members(&mut self) -> Way<&'a EtcdMembers> {
        match self.ask(ClusterAsk::Members)? {
            ClusterAnswer::Members(members) => Ok(members),
            answer => Err(nothing(answer)),
        }
    }
}

/// What is made of an answer that tells nothing of what was asked.
pub(super) fn nothing(answer: &ClusterAnswer) -> Halt {
    match answer {
        ClusterAnswer::Nothing(failure) => Halt::wait_out(failure.clone()),
        _ => Halt::Failed(Failure::new(
            FailureKind::Ambiguous,
            "something else was answered than was asked: a fault in Undercroft itself",
        )),
    }
}

/// What the machine goes back for: a Node is deleted, a member is removed from etcd, what was brought in is taken out
/// again. A step that waits for what comes after that would wait for ever.
pub(super) fn lost(what: impl Into<String>) -> Halt {
    Halt::Failed(Failure::new(FailureKind::PreconditionLost, what))
}
