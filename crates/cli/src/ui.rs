//! All that the command says goes through here: reports to standard output, the rest to standard
//! error.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use serde::Serialize;
use undercroft_model::{document::Document, text::json_escaped};

use crate::{
    error::CliError,
    style::{HINT, WARN, paint},
    text::screen,
};

/// The way to the user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    /// Whether notes and progress are left out.
    pub(crate) quiet: bool,
    /// Whether a person watches: both streams are terminals that can repaint a line.
    pub(crate) live: bool,
}

impl Ui {
    /// A way to the user as the streams and the environment allow it.
    pub(crate) fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            quiet,
            live: !quiet && !dumb && io::stdout().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Prints a report.
    pub(crate) fn print(self, text: &str) -> Result<(), CliError> {
        let mut out = anstream::stdout().lock();
        out.write_all(screen(text).as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Prints a line of a report.
    pub(crate) fn line(self, text: &str) -> Result<(), CliError> {
        self.print(&format!("{text}\n"))
    }

    /// Prints a document as JSON, in several lines.
    pub(crate) fn json<T: Document>(self, document: &T) -> Result<(), CliError> {
        self.json_value(document)
    }

    /// Prints a value as JSON that is no document of ours, such as a schema.
    pub(crate) fn json_value<T: Serialize>(self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value).map_err(|e| bad_json(&e))?;
        self.line(&json_escaped(&text))
    }

    /// Prints a document as one line of JSON.
    pub(crate) fn json_line<T: Document>(self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|e| bad_json(&e))?;
        self.line(&json_escaped(&text))
    }

    /// Says something that isn't the report: what happens now, what to do next.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            self.stderr(text);
        }
    }

    /// Says what to try or to do next.
    pub(crate) fn hint(self, text: &str) {
        self.note(&format!("{} {text}", paint(HINT, "hint:")));
    }

    /// Warns, even when asked to be quiet.
    pub(crate) fn warn(self, text: &str) {
        self.stderr(&format!("{} {text}", paint(WARN, "warning:")));
    }

    /// Names a program that is started: whole, or as much of it as fits on a line.
    pub(crate) fn command(self, command: &str, whole: bool) {
        /// Characters of a command line that are shown where it isn't wanted whole.
        const SHOWN_CHARS: usize = 160;
        let command = crate::text::plain(command);
        let mut shown: String = command
            .chars()
            .take(if whole { usize::MAX } else { SHOWN_CHARS })
            .collect();
        if shown.len() < command.len() {
            shown.push_str(" …");
        }
        self.stderr(&paint(crate::style::DIM, &format!("$ {shown}")));
    }

    /// A line on standard error. That nobody reads it is no reason to stop.
    pub(crate) fn stderr(self, text: &str) {
        let _ = writeln!(anstream::stderr().lock(), "{}", screen(text.trim_end()));
    }

    /// A text as standard error takes it: without colours where they don't belong there.
    pub(crate) fn for_stderr(self, text: &str) -> String {
        let text = &screen(text);
        match anstream::AutoStream::choice(&io::stderr()) {
            anstream::ColorChoice::Never => anstream::adapter::strip_str(text).to_string(),
            _ => text.to_owned(),
        }
    }

    /// Whether a person is there to answer.
    pub(crate) fn can_ask(self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks for `yes`, and takes nothing else for it.
    ///
    /// # Errors
    /// When nobody is there to answer: then `otherwise` says which flag stands for the answer.
    pub(crate) fn confirm(self, question: &str, otherwise: &str) -> Result<bool, CliError> {
        if !self.can_ask() {
            return Err(CliError::usage(format!(
                "{question} Nobody is at a terminal to answer that"
            ))
            .hint(otherwise));
        }
        let mut err = anstream::stderr().lock();
        let _ = write!(
            err,
            "{} Type {} to go on: ",
            screen(question),
            paint(WARN, "yes")
        );
        let _ = err.flush();
        drop(err);
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|e| CliError::failed("can't read the answer").because(&e))?;
        Ok(answer.trim() == "yes")
    }
}

fn bad_json(error: &serde_json::Error) -> CliError {
    CliError::bug("a report can't be written as JSON").because(error)
}
