//! A machine's answer to a look at what has drifted: lines of a tag, a tab and what belongs to it.
//!
//! It is a stranger's bytes: bounded, and shown only with what can't be seen written out. What a user of the machine
//! can write (a file of keys) comes line by line behind a tag, so that no such file can stand for another line.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use undercroft_model::text::visible_line;

use super::seen::{
    AuthorizedKey, BootReport, CheckLook, FellBack, FoundKeys, HealthReport, MachineLook, Room,
};

/// The largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The form of the answer that is read.
const ANSWER_VERSION: &str = "1";
/// The longest text of a machine's that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 300;
/// The most checks, units and keys that are read of one machine, each.
const PARTS_MAX: usize = 512;
/// The version of the machine's reports that is read.
const REPORT_VERSION: u64 = 1;
/// The types of SSH keys, as they begin (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
const KEY_TYPES: [&str; 4] = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"];

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerError {
    /// It is larger than [`ANSWER_BYTES_MAX`].
    TooLarge,
    /// It isn't of the form that was asked for.
    OtherForm,
    /// It was cut off.
    CutOff,
}

impl std::fmt::Display for AnswerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "its answer is larger than 2 MiB",
            Self::OtherForm => "its answer isn't of the form that was asked for",
            Self::CutOff => "its answer was cut off",
        })
    }
}

impl std::error::Error for AnswerError {}

/// Reads a machine's answer.
///
/// # Errors
/// When it isn't one, or not all of one. What it doesn't tell is absent from the look.
pub fn machine_answer(text: &str) -> Result<MachineLook, AnswerError> {
    if text.len() > ANSWER_BYTES_MAX {
        return Err(AnswerError::TooLarge);
    }
    let mut lines = text.lines();
    if lines.next() != Some(&format!("drift\t{ANSWER_VERSION}")) {
        return Err(AnswerError::OtherForm);
    }
    let mut reading = Reading::default();
    let mut ended = false;
    for line in lines {
        let (tag, value) = line.split_once('\t').unwrap_or((line, ""));
        ended = tag == "end";
        reading.line(tag, value);
    }
    if !ended {
        return Err(AnswerError::CutOff);
    }
    Ok(reading.done())
}

/// An answer as far as it was read.
#[derive(Default)]
struct Reading {
    look: MachineLook,
    units: Vec<String>,
    units_told: bool,
    keys: FoundKeys,
    keys_told: bool,
    /// More than is read, or a key that can't be told.
    keys_lost: bool,
    units_lost: bool,
}

impl Reading {
    fn line(&mut self, tag: &str, value: &str) {
        let look = &mut self.look;
        match tag {
            "boot" => look.boot_id = kept(value),
            "time" => look.time_s = value.parse().ok(),
            "current" => look.current = path(value),
            "booted" => look.booted = path(value),
            "default" => look.default_system = path(value),
            "proven" => look.proven_system = path(value),
            "boot-report" => look.boot = Some(boot_report(value)),
            "health-report" => look.health = Some(health_report(value)),
            "store" => look.store = room(value),
            "esp" => look.esp = room(value),
            "boot-files" => look.boot_files_bytes = value.parse().ok(),
            "unit" => self.unit(value),
            "units" => self.units_told = value == "told",
            "key" => self.key(value),
            "keys" => {
                self.keys_told |= value == "told";
                self.keys_lost |= value == "lost";
            }
            // A newer script tells more.
            _ => {}
        }
    }

    fn unit(&mut self, value: &str) {
        // systemd.unit(5): these are all the characters of a unit's name.
        let is_name = !value.is_empty()
            && value.len() < 256
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
        if is_name && self.units.len() < PARTS_MAX {
            self.units.push(value.to_owned());
        } else {
            self.units_lost = true;
        }
    }

    /// A line of a file of keys: the user, the file (empty where the system itself names it), and the line.
    fn key(&mut self, value: &str) {
        let mut parts = value.splitn(3, '\t');
        let (Some(user), Some(file), Some(line)) = (parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        let Some((fingerprint, comment)) = key_of(line) else {
            // sshd lets nobody in by what is no key.
            return;
        };
        let user = kept(user);
        if file.is_empty() {
            if self.keys.named.len() < PARTS_MAX {
                self.keys.named.insert((user, fingerprint));
            } else {
                self.keys_lost = true;
            }
        } else if self.keys.authorized.len() < PARTS_MAX {
            self.keys.authorized.push(AuthorizedKey {
                user,
                file: kept(file),
                fingerprint,
                comment,
            });
        } else {
            self.keys_lost = true;
        }
    }

    fn done(self) -> MachineLook {
        let mut look = self.look;
        look.failed_units = (self.units_told && !self.units_lost).then_some(self.units);
        look.keys = (self.keys_told && !self.keys_lost).then_some(self.keys);
        look
    }
}

/// A text of the machine's, in one line, fit to be shown, of [`TEXT_BYTES_MAX`] bytes at most.
fn kept(text: &str) -> String {
    let text = visible_line(text.trim());
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let mut end = TEXT_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

fn path(value: &str) -> Option<String> {
    value.starts_with('/').then(|| kept(value))
}

fn room(value: &str) -> Option<Room> {
    let (total, free) = value.split_once(' ')?;
    let total_kib = total.parse().ok().filter(|total: &u64| *total > 0)?;
    Some(Room {
        total_kib,
        free_kib: free.parse().ok()?,
    })
}

/// The fingerprint and the comment of a line of a file of keys; options before the key are passed over.
fn key_of(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let mut words = words(line).into_iter();
    words.find(|word| KEY_TYPES.iter().any(|kind| word.starts_with(kind)))?;
    let blob = words.next()?.trim_end_matches('=');
    let blob = STANDARD_NO_PAD
        .decode(blob)
        .ok()
        .filter(|b| !b.is_empty())?;
    let fingerprint = STANDARD_NO_PAD.encode(Sha256::digest(&blob));
    let comment: Vec<&str> = words.collect();
    Some((format!("SHA256:{fingerprint}"), kept(&comment.join(" "))))
}

/// The words of a line; blanks between quotes part nothing.
fn words(line: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |c: char| {
        let was_escaped = std::mem::replace(&mut escaped, c == '\\');
        quoted ^= c == '"' && !was_escaped;
        !quoted && (c == ' ' || c == '\t')
    })
    .filter(|word| !word.is_empty())
    .collect()
}

/// A report's JSON, where it is of the version that is read.
fn report<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    match serde_json::from_str(text) {
        Ok(Versioned {
            version: REPORT_VERSION,
        }) => {
            serde_json::from_str(text).map_err(|_| "it isn't of the form that it names".to_owned())
        }
        Ok(Versioned { version }) => Err(format!(
            "it is of version {version}, and only version {REPORT_VERSION} is known here"
        )),
        Err(_) => Err("it is no JSON that names a version".to_owned()),
    }
}

fn boot_report(text: &str) -> Result<BootReport, String> {
    #[derive(Deserialize)]
    struct Written {
        fell_back: Option<Left>,
    }
    #[derive(Deserialize)]
    struct Left {
        system: String,
        to_system: String,
        #[serde(default)]
        failed: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let written: Written = report(text)?;
    Ok(BootReport {
        fell_back: written.fell_back.map(|left| FellBack {
            system: kept(&left.system),
            to_system: kept(&left.to_system),
            failed: left
                .failed
                .iter()
                .take(PARTS_MAX)
                .map(|check| kept(&check.name))
                .collect(),
        }),
    })
}

fn health_report(text: &str) -> Result<HealthReport, String> {
    #[derive(Deserialize)]
    struct Written {
        boot_id: String,
        checked_at_s: u64,
        checks: Vec<Check>,
    }
    #[derive(Deserialize)]
    struct Check {
        name: String,
        ok: bool,
        #[serde(default = "yes")]
        answered: bool,
        #[serde(default)]
        output: String,
    }
    fn yes() -> bool {
        true
    }
    let written: Written = report(text)?;
    if written.checks.len() > PARTS_MAX {
        return Err(format!("it has more than {PARTS_MAX} checks"));
    }
    let checks = written.checks.iter().map(|check| CheckLook {
        name: kept(&check.name),
        ok: check.ok,
        answered: check.answered,
        output: kept(&check.output.replace('\n', "; ")),
    });
    Ok(HealthReport {
        boot_id: kept(&written.boot_id),
        checked_at_s: written.checked_at_s,
        checks: checks.collect(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGQY2qM4FiLW+0bl3/3lQUkQgHHTVhIuYRQjlTAQkpS4 ada@desk";

    fn answered(lines: &str) -> MachineLook {
        machine_answer(&format!("drift\t1\n{lines}\nend\t\n")).unwrap()
    }

    #[test]
    fn what_isnt_told_is_absent_and_never_empty() {
        assert_eq!(answered(""), MachineLook::default());
        let units = answered("unit\ta.service\nunits\ttold");
        assert_eq!(units.failed_units, Some(vec!["a.service".to_owned()]));
        assert_eq!(answered("units\ttold").failed_units, Some(vec![]));
        // A list of which one can't be told isn't all of the list.
        assert_eq!(answered("unit\t$(x)\nunits\ttold").failed_units, None);
        assert_eq!(answered("keys\ttold\nkeys\tlost").keys, None);
        assert_eq!(answered("store\t0 0").store, None);
        assert_eq!(answered("current\tnonsense").current, None);
    }

    #[test]
    fn an_answer_that_is_cut_off_or_another_is_none() {
        assert_eq!(machine_answer(""), Err(AnswerError::OtherForm));
        assert_eq!(
            machine_answer("drift\t2\nend\t\n"),
            Err(AnswerError::OtherForm)
        );
        assert_eq!(
            machine_answer("drift\t1\nunits\ttold\n"),
            Err(AnswerError::CutOff)
        );
        let large = format!("drift\t1\n{}\nend\t\n", "x".repeat(ANSWER_BYTES_MAX));
        assert_eq!(machine_answer(&large), Err(AnswerError::TooLarge));
    }

    #[test]
    fn a_key_is_known_by_its_fingerprint_whatever_stands_around_it() {
        let options = format!("command=\"echo \\\"ssh-rsa no\\\"\",no-pty {KEY}");
        let lines = format!(
            "key\troot\t\t{KEY}\nkey\troot\t/root/.ssh/authorized_keys\t{options}\n\
             key\tada\t/home/ada/.ssh/authorized_keys\t# {KEY}\n\
             key\tada\t/home/ada/.ssh/authorized_keys\troot:$6$hash:1::::::\nkeys\ttold"
        );
        let keys = answered(&lines).keys.unwrap();
        // As `ssh-keygen -lf` prints it.
        let fingerprint = "SHA256:oLlgWQfuA3QbRyzmge2LypD4kB8Ep3+wK5BqL4q/da4";
        assert_eq!(
            keys.named.iter().next().unwrap(),
            &("root".to_owned(), fingerprint.to_owned())
        );
        assert_eq!(keys.authorized.len(), 1, "{keys:?}");
        assert_eq!(keys.authorized[0].fingerprint, fingerprint);
        assert_eq!(keys.authorized[0].comment, "ada@desk");
    }

    #[test]
    fn reports_of_versions_that_arent_known_are_refused_with_words() {
        let look = answered("health-report\t{\"version\":2}\nboot-report\t{}");
        let of_health = look.health.unwrap().unwrap_err();
        assert_eq!(
            of_health,
            "it is of version 2, and only version 1 is known here"
        );
        assert_eq!(
            look.boot.unwrap().unwrap_err(),
            "it is no JSON that names a version"
        );
        let look = answered("health-report\t{\"version\":1,\"checks\":7}");
        assert_eq!(
            look.health.unwrap().unwrap_err(),
            "it isn't of the form that it names"
        );
    }

    #[test]
    fn reports_are_read_as_the_machines_scripts_write_them() {
        let health = r#"{"version": 1, "node": "a", "boot_id": "b-1", "checked_at_s": 100, "gate": true, "checks": [{"name": "zfs", "gates": false, "ok": false, "answered": true, "exit_code": 1, "output": "pool tank\nis DEGRADED"}]}"#;
        let boot = r#"{"version": 1, "selected": "a.conf", "state": "proven", "fell_back": {"entry": "b.conf", "system": "/nix/store/new", "to_system": "/nix/store/old", "at_s": 1, "failed": [{"name": "network", "output": ""}]}}"#;
        let look = answered(&format!("health-report\t{health}\nboot-report\t{boot}"));
        let health = look.health.unwrap().unwrap();
        assert_eq!(health.boot_id, "b-1");
        assert_eq!(health.checks[0].output, "pool tank; is DEGRADED");
        let left = look.boot.unwrap().unwrap().fell_back.unwrap();
        assert_eq!(
            (left.system.as_str(), left.failed),
            ("/nix/store/new", vec!["network".to_owned()])
        );
    }

    proptest! {
        #[test]
        fn nothing_of_a_machines_steers_a_terminal_or_is_too_long(lines in proptest::collection::vec(
            ("(boot|unit|key|current|health-report|boot-report|store|keys|units)", "\\PC*|.{0,400}"), 0..20,
        )) {
            let lines: Vec<String> = lines.iter().map(|(t, v)| format!("{t}\t{}", v.replace('\n', " "))).collect();
            let look = answered(&lines.join("\n"));
            prop_assert!(look.boot_id.len() <= TEXT_BYTES_MAX + 3);
            prop_assert!(!look.boot_id.chars().any(undercroft_model::text::is_unseen));
        }
    }
}
