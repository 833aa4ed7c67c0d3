//! What was seen of the other side's host key, by a way that the other side can't write to.
//!
//! OpenSSH's client asks a program for further known keys before it compares them (`KnownHostsCommand`,
//! ssh_config(5), from 8.5 on), and tells it the key that it was shown. The program here is a line of
//! shell that notes this key in a file of the connection's and names no key. A connection whose key can't be
//! noted isn't made: the client ends when the program fails.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{HostKey, classify::Shown};

/// The program's file in the connection's directory.
pub(super) const SCRIPT_FILE: &str = "witness";
/// Its text. The arguments are `%I`, which is `HOSTNAME` where a key was shown, `%K`, and the file.
pub(super) const SCRIPT: &str =
    "case $1 in HOSTNAME) printf '%s\\n' \"$2\" >>\"$3\" || exit 1 ;; esac\n";
/// The most bytes of notes that are read; a line is less than 100, and a copy makes a few connections.
const NOTES_BYTES_MAX: u64 = 64 * 1024;

/// The notes that belong to a log.
pub(super) fn notes(log: &Path) -> PathBuf {
    let mut name = log.file_name().unwrap_or_default().to_owned();
    name.push(".keys");
    log.with_file_name(name)
}

/// Whether the client can run the program. As root it takes on root's groups for it, which a user
/// namespace without them forbids (user_namespaces(7), `/proc/PID/setgroups`): so it is for an ordinary
/// user in the rack's network, where the machines are that user's own and virtual.
pub(super) fn is_possible() -> bool {
    let denied =
        std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    !(denied && rustix::process::geteuid().is_root())
}

/// Which key was shown, by what the client says, where nothing could note it. The other side can write
/// such words too, before it is known: then the reason of a failure is wrong, and nothing else. The
/// client itself goes on with the pinned key alone.
pub(super) fn by_words(log: &str) -> Shown {
    let has = |begin: &str| log.lines().any(|line| line.trim().starts_with(begin));
    if has("Authenticated to ") || log.contains("Permission denied (") {
        Shown::Pinned
    } else if has("Host key verification failed") {
        Shown::Other(None)
    } else {
        Shown::Nothing
    }
}

/// The option that makes the client note keys in `notes`; both paths as ssh_config(5) takes them.
pub(super) fn option(script: &str, notes: &str) -> String {
    if is_possible() {
        format!("KnownHostsCommand /bin/sh {script} %I %K {notes}")
    } else {
        "KnownHostsCommand none".to_owned()
    }
}

/// Which key was shown: another one, if any was.
pub(super) fn read(notes: &Path, pinned: &HostKey) -> Shown {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(notes)?
            .take(NOTES_BYTES_MAX)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().unwrap_or_default();
    let mut shown = Shown::Nothing;
    for line in text.lines() {
        match HostKey::parse(&format!("ssh-ed25519 {line}")) {
            Ok(key) if key == *pinned => shown = Shown::Pinned,
            Ok(key) => return Shown::Other(Some(key.fingerprint())),
            Err(_) => return Shown::Other(None),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_note_the_client_is_taken_by_its_word() {
        for (log, expected) in [
            (
                "Authenticated to 10.0.0.1 using \"publickey\".\n",
                Shown::Pinned,
            ),
            (
                "root@10.0.0.1: Permission denied (publickey).\n",
                Shown::Pinned,
            ),
            ("Host key verification failed.\r\n", Shown::Other(None)),
            (
                "ssh: connect to host 10.0.0.1 port 22: Connection refused\n",
                Shown::Nothing,
            ),
        ] {
            assert_eq!(by_words(log), expected, "{log}");
        }
    }

    #[test]
    fn the_key_that_was_shown_is_compared_with_the_pinned_one() {
        let key = |text: &str| HostKey::parse(&format!("ssh-ed25519 {text}")).unwrap();
        let pinned = "AAAAC3NzaC1lZDI1NTE5AAAAIIZdTn8/lZQnnwA7ICI2WO1bwRCCRMqC7y2J2n7G9VhT";
        let other = "AAAAC3NzaC1lZDI1NTE5AAAAIPm+kEX+fXOd+W1hd8RjhcDb7N1GjJF/ZLatv7N7qXU1";
        let fingerprint = Some(key(other).fingerprint());
        let dir = tempfile::tempdir().unwrap();
        let notes = notes(&dir.path().join("log"));
        let cases = [
            (String::new(), Shown::Nothing),
            (format!("{pinned}\n{pinned}\n"), Shown::Pinned),
            (format!("{pinned}\n{other}\n"), Shown::Other(fingerprint)),
            ("AAAAB3\n".to_owned(), Shown::Other(None)),
        ];
        assert_eq!(read(&notes, &key(pinned)), Shown::Nothing);
        for (text, expected) in cases {
            std::fs::write(&notes, text).unwrap();
            assert_eq!(read(&notes, &key(pinned)), expected);
        }
    }
}
