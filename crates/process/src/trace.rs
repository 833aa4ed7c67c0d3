//! The programs that are run, told as they start to whoever wants to hear it.
//!
//! What is told is the command line, which never holds a secret: secrets go through standard input
//! and files. The environment isn't told.

use std::{process::Command, sync::OnceLock};

/// Who is told.
static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Takes a command line on one line, fit to be shown.
type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// Has every program's command line told to `listener` from now on. Only the first listener counts.
pub fn listen(listener: impl Fn(&str) + Send + Sync + 'static) {
    let _ = LISTENER.set(Box::new(listener));
}

/// Whether anybody hears it.
pub fn is_heard() -> bool {
    LISTENER.get().is_some()
}

/// Tells that a program is started.
pub fn started(command: &Command) {
    if !is_heard() {
        return;
    }
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    tell(&words.join(" "));
}

/// Tells a command line of another process of ours.
pub fn tell(line: &str) {
    if let Some(listener) = LISTENER.get() {
        listener(line);
    }
}

/// A word as a shell takes it, on one line.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut out = String::from("'");
    for c in word.chars() {
        match c {
            '\'' => out.push_str("'\\''"),
            '\n' => out.push_str("; "),
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted("--store=/nix"), "--store=/nix");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's\n\u{1b}[2J"), "'it'\\''s; \\u{1b}[2J'");
    }
}
