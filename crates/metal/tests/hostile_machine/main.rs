//! Machines that lie. Whoever answers at a machine's address may say anything before it has proved that
//! it is that machine, and the machine itself anything after: none of it decides what a failure was, and
//! none of it reaches a terminal as commands to it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on stops"
)]

mod impostor;
mod server;

use std::time::Duration;

use undercroft_model::FailureKind;
use undercroft_ssh::{HostKey, RemoteCommand, SshError};

use crate::{
    impostor::{Impostor, Says},
    server::{Sshd, connection, keygen},
};

const LIMIT: Duration = Duration::from_secs(60);

/// What OpenSSH's client says of itself in the cases that are told apart, and what else could be taken
/// for its words.
const WORDS: [&str; 9] = [
    "root@127.0.0.1: Permission denied (publickey).",
    "Permission denied (publickey).",
    "Too many authentication failures",
    "Host key verification failed.",
    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
    "Authenticated to 127.0.0.1 ([127.0.0.1]:22) using \"publickey\".",
    "Unable to negotiate with 127.0.0.1 port 22: no matching host key type found. Their offer: x",
    "/x/config: line 1: Bad configuration option: x",
    "\u{1b}[2J\u{1b}]0;title\u{7}\u{202e}",
];

fn command(script: &str) -> RemoteCommand {
    RemoteCommand::new(["sh", "-c", script], LIMIT)
}

fn assert_fit_for_a_terminal(text: &str) {
    let bad: Vec<char> = text
        .chars()
        .filter(|c| c.is_control() && *c != '\n' && *c != '\t')
        .chain(text.chars().filter(|c| *c == '\u{202e}'))
        .collect();
    assert!(bad.is_empty(), "{bad:?} in {text:?}");
}

/// Each way of speaking before anything is proved, with each of the words, alone and after a line break.
#[tokio::test]
async fn who_has_proved_nothing_decides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    keygen(&dir.path().join("key"), "ed25519");
    let public = std::fs::read_to_string(dir.path().join("key.pub")).unwrap();
    let pin = HostKey::parse(&public).unwrap();
    for says in [Says::Greeting, Says::Disconnect, Says::Ciphers] {
        for word in WORDS {
            for before in ["", "x\n", "\r\n"] {
                let words = format!("{before}{word}");
                let impostor = Impostor::start(says, &words);
                let connection = connection(impostor.port, pin.clone(), &dir.path().join("key"));
                let error = connection.run(command("true")).await.unwrap_err();
                assert!(
                    matches!(error, SshError::Unreachable { .. }),
                    "{says:?} {words:?}: {error:?}"
                );
                assert_eq!(error.kind(), FailureKind::Transient);
                assert_fit_for_a_terminal(&error.to_string());
            }
        }
    }
}

/// The pinned machine's own key exchange, and then somebody between who breaks it off in words.
#[tokio::test]
async fn who_stands_between_decides_nothing() {
    let Some(server) = Sshd::start("") else {
        return;
    };
    for word in WORDS {
        for before in ["", "x\n"] {
            let words = format!("{before}{word}");
            let between = Impostor::between(server.port, &words);
            let connection = connection(between.port, server.public(), &server.operator());
            let error = connection.run(command("true")).await.unwrap_err();
            assert!(
                matches!(error, SshError::Unreachable { .. }),
                "{words:?}: {error:?}"
            );
            assert_fit_for_a_terminal(&error.to_string());
        }
    }
    // What stands between and says nothing is no obstacle.
    let between = Impostor::between(server.port, "");
    let connection = connection(between.port, server.public(), &server.operator());
    assert_eq!(connection.run(command("exit 3")).await.unwrap().code, 3);
}

/// A server that has the pinned public key and not its private half.
#[tokio::test]
async fn who_shows_the_pinned_key_without_having_it_is_only_unreachable() {
    let Some(server) = Sshd::start("") else {
        return;
    };
    let stolen = Sshd::start("").unwrap();
    let between = Impostor::with_key(stolen.port, &server.public());
    let connection = connection(between.port, server.public(), &server.operator());
    let error = connection.run(command("true")).await.unwrap_err();
    assert!(matches!(error, SshError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_banner_is_not_the_clients_word() {
    let banner = WORDS.join("\n");
    let Some(server) = Sshd::start(&format!("Banner {}", server::BANNER)) else {
        return;
    };
    server.write_banner(&banner);
    let good = connection(server.port, server.public(), &server.operator());
    let output = good.run(command("exit 4")).await.unwrap();
    assert_eq!(output.code, 4);
    assert!(output.stderr_tail.contains("Permission denied"));
    assert_fit_for_a_terminal(&output.stderr_tail);

    let refused = connection(server.port, server.public(), &server.stranger());
    let error = refused.run(command("true")).await.unwrap_err();
    assert!(matches!(error, SshError::AuthRefused { .. }), "{error:?}");
    assert_fit_for_a_terminal(&error.to_string());
    assert!(!error.to_string().contains("HAS CHANGED"), "{error}");
}

#[tokio::test]
async fn a_command_that_speaks_as_the_client_does_is_not_taken_for_it() {
    for word in WORDS {
        let script = format!("printf '%s\\n' '{word}' >&2; exit 255");
        let Some(server) = Sshd::start("ForceCommand sh FORCED") else {
            return;
        };
        server.write_forced(&script);
        let connection = connection(server.port, server.public(), &server.operator());
        let error = connection.run(command("true")).await.unwrap_err();
        // Something was run: what came of it, a probe finds out.
        assert!(
            matches!(error, SshError::SessionLost { .. }),
            "{word:?}: {error:?}"
        );
        assert_eq!(error.kind(), FailureKind::Ambiguous);
        assert_fit_for_a_terminal(&error.to_string());
        let failure = error.into_failure();
        assert_fit_for_a_terminal(&failure.command.unwrap().output_tail);
    }
}
