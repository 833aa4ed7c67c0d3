//! The one error that commands end with: its kind decides the exit code.

use std::{error::Error, fmt::Write as _, io};

use undercroft_model::{
    Diagnostic,
    advice::{Advice, ErrorKind, FileFailure, kind_of_io},
};

/// What kind of thing went wrong, and so what the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command line asks for something that doesn't exist or can't be done together.
    Usage,
    /// A file or a value that the user gave isn't right.
    Input,
    /// The world didn't go along: a machine, a file system, a program, a network.
    Failed,
    /// Undercroft contradicts itself.
    Bug,
    /// Whoever read our output has gone away. Nothing is said.
    BrokenPipe,
}

impl Kind {
    /// The exit code, after `sysexits.h` where that has a fitting one.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Input => 65,
            Self::Bug => 70,
        }
    }
}

/// Why a command could not do what it was asked to.
#[derive(Debug)]
pub(crate) struct CliError {
    /// Its kind.
    pub(crate) kind: Kind,
    /// What went wrong; empty where the diagnostics say it all.
    message: String,
    /// What caused it, outermost first; none is a repetition of the one before.
    causes: Vec<String>,
    /// What to try.
    hint: Option<String>,
    /// Findings about the user's file, printed before the message.
    diagnostics: Vec<Diagnostic>,
}

impl CliError {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            diagnostics: Vec::new(),
        }
    }

    /// The command line is wrong (exit code 64).
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// What the user gave is wrong (exit code 65).
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Something failed (exit code 1).
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// A bug (exit code 70).
    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// The findings about an inventory that can't be used.
    pub(crate) fn diagnostics(message: impl Into<String>, diagnostics: Vec<Diagnostic>) -> Self {
        let mut error = Self::new(Kind::Input, message);
        error.diagnostics = diagnostics;
        error
    }

    /// The same error with what to try.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with what to try, where there is something.
    #[must_use]
    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// The same error with its cause and the cause's causes.
    ///
    /// Many errors repeat their source in their own text; such a repetition is left out.
    #[must_use]
    pub(crate) fn because(mut self, source: &(dyn Error + 'static)) -> Self {
        let mut above = self.message.clone();
        let mut next = Some(source);
        while let Some(error) = next {
            let text = error.to_string();
            if !above.contains(&text) {
                self.causes.push(text.clone());
                above = text;
            }
            next = error.source();
        }
        self
    }

    /// An error of another crate as it is, with its kind.
    pub(crate) fn from_error(kind: Kind, error: &(dyn Error + 'static)) -> Self {
        let whole = Self::new(kind, error.to_string());
        match error.source() {
            Some(source) => whole.because(source),
            None => whole,
        }
    }

    /// A failure to use a file.
    pub(crate) fn file(what: &str, path: &std::path::Path, source: &io::Error) -> Self {
        let error = Self::new(
            kind_of_io(source).into(),
            format!("can't {what} {}", path.display()),
        )
        .because(source);
        match source.kind() {
            io::ErrorKind::StorageFull => error.hint("The disk is full: free some space."),
            io::ErrorKind::PermissionDenied => error
                .hint(
                    "You may not do this here: look at the owner and the mode of the file and of the folders above it.",
                )
                .closed(path),
            _ if is_closed(source) => error.closed(path),
            _ => error,
        }
    }

    /// The same error with what closes a path to this user, and what to do about that, where
    /// something does.
    #[must_use]
    pub(crate) fn closed(mut self, path: &std::path::Path) -> Self {
        if let Some(closed) = crate::access::closed(path) {
            self.causes = vec![closed.why];
            self.hint = Some(closed.hint);
        }
        self
    }

    /// The message with its causes in one line, and what to try: for a caller that has an error of
    /// its own.
    pub(crate) fn told(self) -> (String, Option<String>) {
        let mut message = self.message;
        for diagnostic in &self.diagnostics {
            message.push_str(&format!("; {}", diagnostic.message));
        }
        for cause in &self.causes {
            message.push_str(&format!(": {cause}"));
        }
        (message, self.hint)
    }

    /// The error as people read it, with colours that the stream takes out again where it must.
    pub(crate) fn render(&self) -> String {
        use crate::{
            style::{BAD, BOLD, HINT, paint},
            text::plain,
        };
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            out.push_str(&crate::style::diagnostic(diagnostic));
            out.push('\n');
        }
        if self.message.is_empty() {
            return out;
        }
        let _ = writeln!(
            out,
            "{} {}",
            paint(BAD, "error:"),
            paint(BOLD, &indent(&plain(&self.message), "       "))
        );
        for cause in &self.causes {
            let _ = writeln!(out, "  cause: {}", indent(&plain(cause), "         "));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(
                out,
                "  {} {}",
                paint(HINT, "hint:"),
                indent(&plain(hint), "        ")
            );
        }
        out
    }
}

/// Whether a file can't be used because this user may not.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Sets further lines under the first.
fn indent(text: &str, by: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{by}"))
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Input => Self::Input,
            ErrorKind::Failed => Self::Failed,
            ErrorKind::Bug => Self::Bug,
        }
    }
}

impl<E: Advice + 'static> From<&E> for CliError {
    /// An error of another crate, with its kind, what to try, and what closes a file to this user where that is it.
    fn from(error: &E) -> Self {
        let told = Self::from_error(error.kind().into(), error).maybe_hint(error.hint());
        match error.file() {
            Some(FileFailure {
                tried: Some(tried),
                path,
                source: Some(source),
            }) => {
                let told = Self::file(tried, path, source);
                match told.hint {
                    Some(_) => told,
                    None => told.maybe_hint(error.hint()),
                }
            }
            Some(FileFailure { path, source, .. }) if source.is_none_or(is_closed) => {
                told.closed(path)
            }
            _ => told,
        }
    }
}

impl From<io::Error> for CliError {
    /// A failure to write to our own standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Kind::BrokenPipe, "")
        } else {
            Self::failed("can't write the output").because(&error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the door is shut: {source}")]
    struct Outer {
        source: io::Error,
    }

    #[test]
    fn a_source_that_the_text_repeats_is_printed_once() {
        let outer = Outer {
            source: io::Error::other("the key is lost"),
        };
        let error = CliError::failed("can't go in")
            .because(&outer)
            .hint("Look under the mat.");
        let text = anstream::adapter::strip_str(&error.render()).to_string();
        insta::assert_snapshot!(text, @r"
        error: can't go in
          cause: the door is shut: the key is lost
          hint: Look under the mat.
        ");
    }

    #[test]
    fn a_reader_that_goes_away_is_no_failure() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.kind.exit_code(), 0);
        assert_eq!(error.render(), "");
    }
}
