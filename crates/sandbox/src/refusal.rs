//! Why nothing was started, or something could not be done.

use std::{io, path::PathBuf};

use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

/// Why a job was not started, or something about one could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// What was asked for can't be meant.
    #[error("the job can't be run: {why}")]
    Spec {
        /// Why.
        why: String,
    },
    /// A program that is needed isn't there.
    #[error("{program} isn't there")]
    NoProgram {
        /// Which.
        program: &'static str,
        /// How to get it.
        hint: &'static str,
    },
    /// This machine can't hold what was asked for.
    #[error("{what} can't be held here: {why}")]
    NotHeld {
        /// Which limit, or which part of the sandbox.
        what: &'static str,
        /// Why.
        why: String,
        /// What to try.
        hint: &'static str,
    },
    /// A limit was written, and something else was read.
    #[error("{} was set to {wrote}, and reads {read}", file.display())]
    ReadBack {
        /// The kernel's file.
        file: PathBuf,
        /// What was written.
        wrote: String,
        /// What was read.
        read: String,
    },
    /// The sandbox was not entered, or not left for the job.
    #[error("the sandbox refuses: {why}")]
    Refused {
        /// Its words.
        why: String,
        /// What to try.
        hint: Option<String>,
    },
    /// The job's program, or what it may use, is at fault: it would not begin anywhere.
    #[error("the sandbox refuses: {why}")]
    Unfit {
        /// Its words.
        why: String,
        /// What to try.
        hint: Option<String>,
    },
    /// It took too long to begin.
    #[error("the sandbox refuses: it has not begun within {limit_s} s")]
    Late {
        /// How long it was waited, in seconds.
        limit_s: u64,
    },
    /// Whoever had it started doesn't want it any more.
    #[error("it was not to be begun any more")]
    Stopped,
    /// Another process has the folder.
    #[error("another process runs jobs in {}", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// Processes are left although they were killed.
    #[error("{} still has processes {after_ms} ms after they were killed", group.display())]
    StillThere {
        /// The control group.
        group: PathBuf,
        /// How long it was waited, in milliseconds.
        after_ms: u64,
    },
    /// What a job left as its output can't be taken.
    #[error("the output can't be taken: {why}")]
    Output {
        /// Why.
        why: String,
    },
    /// A file could not be used.
    #[error("can't {tried} {}", path.display())]
    File {
        /// What was tried.
        tried: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl SandboxError {
    /// For `map_err`.
    pub(crate) fn file(
        tried: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            tried,
            path,
            source,
        }
    }
}

impl Advice for SandboxError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Spec { .. } | Self::Unfit { .. } => ErrorKind::Input,
            _ => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoProgram { hint, .. } | Self::NotHeld { hint, .. } => Some((*hint).to_owned()),
            Self::Refused { hint, .. } | Self::Unfit { hint, .. } => hint.clone(),
            Self::Taken { .. } => Some("stop it first; two can't share a folder".to_owned()),
            Self::StillThere { .. } => Some(
                "a process that can't be killed waits for a device or a file system; `ps -eo pid,stat,wchan` shows it"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::File {
                tried,
                path,
                source,
            } => Some(FileFailure {
                tried: Some(tried),
                path,
                source: Some(source),
            }),
            _ => None,
        }
    }
}
