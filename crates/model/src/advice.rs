//! What every error of the workspace can say of itself beside its text: what kind it is, what to try, and which
//! file it is about.

use std::{error::Error, io, path::Path};

/// What kind of thing went wrong. A command's exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line asks for something that doesn't exist or can't be done together.
    Usage,
    /// A file or a value that the user gave isn't right.
    Input,
    /// The world didn't go along: a machine, a file system, a program, a network.
    Failed,
    /// Undercroft contradicts itself.
    Bug,
}

/// A file that could not be used.
#[derive(Debug, Clone, Copy)]
pub struct FileFailure<'a> {
    /// What was tried, as it stands after "can't"; `None` where the error's own text says it.
    pub tried: Option<&'a str>,
    /// The file.
    pub path: &'a Path,
    /// What the operating system said; `None` where it was said through a library.
    pub source: Option<&'a io::Error>,
}

/// An error that says what it is and what to try, so that whoever shows it needs to know no more of it.
pub trait Advice: Error {
    /// Its kind.
    fn kind(&self) -> ErrorKind {
        ErrorKind::Failed
    }

    /// What to try, in a sentence or two.
    fn hint(&self) -> Option<String> {
        None
    }

    /// The file that could not be used, where that is what failed.
    fn file(&self) -> Option<FileFailure<'_>> {
        None
    }
}

/// What happened and what to try in one text, for those who hand a text on and not the error.
pub fn with_hint(error: &impl Advice) -> String {
    match error.hint() {
        Some(hint) => format!("{error}\n  try: {hint}"),
        None => error.to_string(),
    }
}

/// The kind of a failure to use a file: what isn't there was named wrongly.
pub fn kind_of_io(source: &io::Error) -> ErrorKind {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::FileTooLarge => {
            ErrorKind::Input
        }
        _ => ErrorKind::Failed,
    }
}
