//! Nix's log in JSON (`--log-format internal-json`), as far as a copy's progress needs it.
//!
//! Source: src/libutil/logging.{hh,cc} of Nix: each line is `@nix ` and an object; the numbers of
//! activity and result types are part of that format.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use serde::Deserialize;

/// `actCopyPath`: one store path under way.
const ACTIVITY_COPY_PATH: u64 = 100;
/// `resProgress`: fields are done, expected, running, failed.
const RESULT_PROGRESS: u64 = 105;
/// `lvlError`.
const LEVEL_ERROR: u64 = 0;
/// The most paths whose progress is held at once; Nix copies fewer in parallel.
const RUNNING_MAX: usize = 1024;
/// The most bytes of error messages that are kept.
const ERROR_BYTES_MAX: usize = 4 * 1024;
/// The time over which the rate is measured.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// The most samples that are kept for the rate; with the pause between reports, four windows.
const SAMPLES_MAX: usize = 64;

#[derive(Deserialize)]
struct Line<'a> {
    action: &'a str,
    #[serde(default)]
    id: u64,
    #[serde(default, rename = "type")]
    kind: u64,
    #[serde(default)]
    level: u64,
    #[serde(default)]
    fields: Vec<serde_json::Value>,
    #[serde(default)]
    msg: Option<String>,
    #[serde(default)]
    raw_msg: Option<String>,
}

/// What a copy's log has told so far.
#[derive(Debug, Default)]
pub(super) struct NixLog {
    running: BTreeMap<u64, u64>,
    finished_bytes: u64,
    errors: String,
}

impl NixLog {
    /// Takes a line of Nix's standard error. Total: any line is taken.
    pub(super) fn take(&mut self, line: &str) {
        let Some(json) = line.strip_prefix("@nix ") else {
            // What a program that Nix has started says, such as a remote nix-store.
            self.error(line);
            return;
        };
        let Ok(line) = serde_json::from_str::<Line<'_>>(json) else {
            return;
        };
        match line.action {
            "start" if line.kind == ACTIVITY_COPY_PATH && self.running.len() < RUNNING_MAX => {
                self.running.insert(line.id, 0);
            }
            "result" if line.kind == RESULT_PROGRESS => {
                if let (Some(done), Some(bytes)) = (
                    self.running.get_mut(&line.id),
                    line.fields.first().and_then(serde_json::Value::as_u64),
                ) {
                    *done = bytes;
                }
            }
            "stop" => {
                if let Some(bytes) = self.running.remove(&line.id) {
                    self.finished_bytes = self.finished_bytes.saturating_add(bytes);
                }
            }
            "msg" if line.level == LEVEL_ERROR => {
                if let Some(text) = line.raw_msg.as_deref().or(line.msg.as_deref()) {
                    self.error(text);
                }
            }
            _ => {}
        }
    }

    /// The bytes that were copied so far, in this run.
    pub(super) fn done_bytes(&self) -> u64 {
        self.running
            .values()
            .fold(self.finished_bytes, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// What was said to have gone wrong, fit for a terminal.
    pub(super) fn errors(&self) -> &str {
        self.errors.trim_end()
    }

    fn error(&mut self, text: &str) {
        let text = without_escapes(text);
        let text = text.trim_end();
        // Nix warns of much that is no reason for a failure.
        let said = !text.is_empty() && !text.starts_with("warning:");
        if said && self.errors.len() + text.len() < ERROR_BYTES_MAX {
            self.errors.push_str(text);
            self.errors.push('\n');
        }
    }
}

/// A text without the terminal's colour sequences, which Nix puts into its messages.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // CSI sequences end with a character from @ to ~ (ECMA-48, section 5.4).
            if chars.next() == Some('[') {
                for c in chars.by_ref() {
                    if ('@'..='~').contains(&c) {
                        break;
                    }
                }
            }
        } else {
            out.push(c);
        }
    }
    undercroft_process::printable(&out)
}

/// The rate of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Takes the bytes that are done at a moment, and gives bytes a second.
    pub(super) fn sample(&mut self, now: Instant, done_bytes: u64) -> u64 {
        self.samples.push_back((now, done_bytes));
        while self.samples.len() > SAMPLES_MAX
            || self.samples.len() > 2
                && self
                    .samples
                    .get(1)
                    .is_some_and(|(at, _)| now.duration_since(*at) >= RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        let Some((from, before)) = self.samples.front() else {
            return 0;
        };
        let span_ms = u64::try_from(now.duration_since(*from).as_millis()).unwrap_or(u64::MAX);
        done_bytes
            .saturating_sub(*before)
            .saturating_mul(1000)
            .checked_div(span_ms)
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_of_finished_and_running_paths_are_summed() {
        let mut log = NixLog::default();
        for line in [
            r#"@nix {"action":"start","id":1,"level":0,"type":103,"text":"copying 2 paths"}"#,
            r#"@nix {"action":"start","id":2,"level":3,"type":100,"text":"copying path","fields":["/nix/store/a","","ssh://x"]}"#,
            r#"@nix {"action":"result","id":2,"type":105,"fields":[500,1000,0,0]}"#,
            r#"@nix {"action":"result","id":1,"type":105,"fields":[0,2,1,0]}"#,
        ] {
            log.take(line);
        }
        assert_eq!(log.done_bytes(), 500);
        log.take(r#"@nix {"action":"result","id":2,"type":105,"fields":[1000,1000,0,0]}"#);
        log.take(r#"@nix {"action":"stop","id":2}"#);
        log.take(r#"@nix {"action":"start","id":3,"level":3,"type":100,"text":""}"#);
        log.take(r#"@nix {"action":"result","id":3,"type":105,"fields":[7,9,0,0]}"#);
        assert_eq!(log.done_bytes(), 1007);
    }

    #[test]
    fn errors_are_kept_without_colours() {
        let mut log = NixLog::default();
        log.take("@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"\\u001b[31;1merror:\\u001b[0m writing to file: No space left on device\"}");
        log.take(r#"@nix {"action":"msg","level":3,"msg":"copying"}"#);
        log.take("error: (remote) out of space");
        log.take("warning: the group 'nixbld' specified in 'build-users-group' does not exist");
        assert_eq!(
            log.errors(),
            "error: writing to file: No space left on device\nerror: (remote) out of space"
        );
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.sample(start, 0), 0);
        assert_eq!(rate.sample(start + Duration::from_secs(1), 1000), 1000);
        let mut last = 0;
        for second in 2..20 {
            last = rate.sample(
                start + Duration::from_secs(second),
                1000 + (second - 1) * 50,
            );
        }
        assert_eq!(last, 50);
    }

    proptest! {
        #[test]
        fn any_line_is_taken(line in "(@nix )?\\PC{0,200}") {
            let mut log = NixLog::default();
            log.take(&line);
            prop_assert!(log.errors().len() <= ERROR_BYTES_MAX);
        }
    }
}
