//! A script's talk with its machine, as far as it has come.

use undercroft_model::{Failure, FailureKind, InstallerReport};

use crate::{
    ask::{Answer, Ask, Ended},
    exit::{code, refused},
};

/// Why a script goes no further.
#[derive(Debug)]
pub(super) enum Halt {
    Ask(Ask),
    NotDone,
    Failed(Failure),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Halt {
    pub(super) fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Failed(Failure::new(kind, message))
    }
}

pub(super) type Way<T> = Result<T, Halt>;

/// The machine as a script sees it: what it has answered, in the order in which it was asked.
pub(super) struct Machine<'a> {
    answers: std::slice::Iter<'a, Answer>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(answers: &'a [Answer]) -> Self {
        Self {
            answers: answers.iter(),
        }
    }

    /// The answer, if it was asked already.
    pub(super) fn ask(&mut self, ask: impl FnOnce() -> Ask) -> Way<&'a Answer> {
        self.answers.next().ok_or_else(|| Halt::Ask(ask()))
    }

    /// The program's end, whatever its exit code.
    pub(super) fn ended(&mut self, ask: impl FnOnce() -> Ask) -> Way<&'a Ended> {
        ended(self.ask(ask)?)
    }

    /// Goes on where it was done.
    pub(super) fn done(&mut self, ask: impl FnOnce() -> Ask) -> Way<()> {
        done(self.ask(ask)?)
    }

    pub(super) fn described(&mut self) -> Way<&'a InstallerReport> {
        match self.ask(|| Ask::Describe)? {
            Answer::Described(report) => Ok(report),
            answer => Err(unexpected(ended(answer)?)),
        }
    }
}

pub(super) fn ended(answer: &Answer) -> Way<&Ended> {
    match answer {
        Answer::Ended(ended) => Ok(ended),
        Answer::Nothing(unanswered) => Err(unanswered.clone().of_installer().into()),
        Answer::Described(_) | Answer::Done | Answer::CopyFailed(_) => Err(Halt::failed(
            FailureKind::Ambiguous,
            "something else was answered than was asked: a fault in Undercroft itself",
        )),
    }
}

pub(super) fn done(answer: &Answer) -> Way<()> {
    if *answer == Answer::Done {
        return Ok(());
    }
    match ended(answer)? {
        ended if ended.code == code::DONE => Ok(()),
        ended => Err(unexpected(ended)),
    }
}

pub(super) fn unexpected(ended: &Ended) -> Halt {
    Halt::Failed(refused(ended))
}
