//! What OpenSSH's client says of itself, taken apart.
//!
//! The words are those of sshconnect.c, sshconnect2.c, packet.c and clientloop.c, from a log that holds
//! nothing of the remote program's output. At `LogLevel VERBOSE` the client writes "Authenticated to …"
//! before it asks for a session, which is the line between "nothing was run" and "it may have been".
//!
//! Some of its lines end with words of the other side (the text of a disconnect, the offer of
//! algorithms), and a line break among them comes through as one. Whoever answers at an address, or stands
//! between, can so write whole lines before anything is authenticated. Hence two rules:
//!
//! - Which key was shown is what the [witness](super::witness) has noted, never what the log says.
//! - Before "Authenticated to …" the log is believed up to the first line that can carry such words, and
//!   of that line only what the client itself begins it with. All such lines are the client's last.

/// How a connection fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transport {
    /// No authenticated connection came about, for a reason that may pass.
    Unreachable {
        /// What the client said.
        detail: String,
    },
    /// The client of this machine can't be used as it is.
    Client {
        /// What it said.
        detail: String,
    },
    /// The server's key isn't the pinned one.
    HostKey {
        /// The fingerprint that was shown, where there was an ed25519 key.
        shown: Option<String>,
    },
    /// The server took none of the offered keys.
    Auth {
        /// What the client said.
        detail: String,
    },
    /// There was a session, and it broke.
    Lost {
        /// What the client said.
        detail: String,
    },
    /// There was a session, and nothing is said against it.
    Ended,
}

/// The key that the other side has shown, as far as it came to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// None.
    Nothing,
    /// The pinned one. That the other side also has its private half, the client checks next, and goes
    /// no further where it hasn't.
    Pinned,
    /// Another one, with this fingerprint where it is of a kind that has one here.
    Other(Option<String>),
}

/// How the lines begin that end with words of the other side.
const CARRIES: [&str; 4] = [
    "Received disconnect from ",
    "Unable to negotiate with ",
    "Bad remote protocol version identification",
    "input_userauth_pk_ok: ",
];

/// What follows `USER@HOST: ` where a login was refused; then come the methods that the server names.
const REFUSED: &str = ": Permission denied (";

fn carries(line: &str) -> bool {
    CARRIES.iter().any(|begin| line.starts_with(begin)) || line.contains(REFUSED)
}

/// Takes the client's log apart, with what was seen of the other side's key. Total: any text gives an
/// answer.
pub(crate) fn classify(log: &str, shown: &Shown) -> Transport {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if let Some(line) = lines.first().filter(|line| is_about_configuration(line)) {
        return Transport::Client {
            detail: shorten(line),
        };
    }
    match shown {
        Shown::Other(fingerprint) => {
            return Transport::HostKey {
                shown: fingerprint.clone(),
            };
        }
        Shown::Nothing => {
            return match lines.iter().find(|line| carries(line)) {
                Some(line) if is_without_ed25519(line) => Transport::HostKey { shown: None },
                _ => unreachable(&lines),
            };
        }
        Shown::Pinned => {}
    }
    let believed = lines
        .iter()
        .position(|line| carries(line))
        .unwrap_or(lines.len());
    let authenticated = lines
        .iter()
        .take(believed)
        .position(|line| line.starts_with("Authenticated to "));
    if let Some(at) = authenticated {
        return match lines.iter().skip(at).rev().find(|line| breaks(line)) {
            Some(line) => Transport::Lost {
                detail: shorten(line),
            },
            None => Transport::Ended,
        };
    }
    match lines.get(believed) {
        Some(line) if is_refusal(line) => Transport::Auth {
            detail: shorten(line),
        },
        _ => unreachable(&lines),
    }
}

fn unreachable(lines: &[&str]) -> Transport {
    let detail = lines.last().copied();
    Transport::Unreachable {
        detail: shorten(detail.unwrap_or("the SSH client gave no reason")),
    }
}

/// `FILE: line N: Bad configuration option: NAME`, which is written before anything is connected.
fn is_about_configuration(line: &str) -> bool {
    line.starts_with('/') && line.contains(": Bad configuration option: ")
}

/// Whether the other side has no key of the pinned kind. What comes after "Their offer" is its own.
fn is_without_ed25519(line: &str) -> bool {
    let ours = line.split_once(". Their offer: ").map(|(ours, _)| ours);
    line.starts_with("Unable to negotiate with ")
        && ours.is_some_and(|ours| ours.ends_with("no matching host key type found"))
}

/// `USER@HOST: Permission denied (METHODS).`, begun by the client.
fn is_refusal(line: &str) -> bool {
    let begin = line.split_once(REFUSED).map(|(begin, _)| begin);
    let begun_by_other = CARRIES.iter().any(|begin| line.starts_with(begin));
    !begun_by_other && begin.is_some_and(|begin| begin.contains('@') && !begin.contains(' '))
}

/// Whether a line that follows authentication tells of a broken session.
fn breaks(line: &str) -> bool {
    let told = [
        "Connection reset",
        "Broken pipe",
        "Connection closed by",
        "closed by remote host",
        "Connection timed out",
        "Timeout, server",
        "No route to host",
        "Network is unreachable",
        "Corrupted MAC",
        "Bad packet length",
        "Disconnected from",
        "Received disconnect",
        "client_loop: send disconnect",
        "session request failed",
        "open failed",
    ];
    told.iter().any(|words| line.contains(words))
}

fn shorten(line: &str) -> String {
    undercroft_process::printable(line)
        .chars()
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refused_connection_is_unreachable() {
        let log = "ssh: connect to host 10.88.0.11 port 22: Connection refused\r\n";
        let Transport::Unreachable { detail } = classify(log, &Shown::Nothing) else {
            panic!("{:?}", classify(log, &Shown::Nothing));
        };
        assert!(detail.ends_with("Connection refused"));
    }

    #[test]
    fn a_connection_that_closes_before_authentication_is_unreachable() {
        for log in [
            "kex_exchange_identification: Connection closed by remote host\r\nConnection closed by 10.88.0.11 port 22\r\n",
            "Connection timed out during banner exchange\r\nConnection to 10.88.0.11 port 22 timed out\r\n",
            "ssh_dispatch_run_fatal: Connection to 10.88.0.11 port 22: incorrect signature\r\n",
            "",
        ] {
            for shown in [Shown::Nothing, Shown::Pinned] {
                assert!(
                    matches!(classify(log, &shown), Transport::Unreachable { .. }),
                    "{log}"
                );
            }
        }
    }

    #[test]
    fn a_changed_key_is_what_was_seen_and_not_what_is_said() {
        let log = "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r
The fingerprint for the ED25519 key sent by the remote host is\nSHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8.\r
Host key verification failed.\r\n";
        let other = Shown::Other(Some("SHA256:abc".into()));
        assert_eq!(
            classify(log, &other),
            Transport::HostKey {
                shown: Some("SHA256:abc".into())
            }
        );
        for shown in [Shown::Nothing, Shown::Pinned] {
            assert!(matches!(
                classify(log, &shown),
                Transport::Unreachable { .. }
            ));
        }
    }

    #[test]
    fn a_server_without_an_ed25519_key_is_another_host() {
        let log = "Unable to negotiate with 10.88.0.11 port 22: no matching host key type found. Their offer: rsa-sha2-512,ssh-rsa\r\n";
        assert_eq!(
            classify(log, &Shown::Nothing),
            Transport::HostKey { shown: None }
        );
        let forged = "Unable to negotiate with 10.88.0.11 port 22: no matching cipher found. Their offer: no matching host key type found. Their offer: x\r\n";
        assert!(matches!(
            classify(forged, &Shown::Nothing),
            Transport::Unreachable { .. }
        ));
    }

    const REFUSAL: &str = "root@10.88.0.11: Permission denied (publickey).\r\n";
    const LOGIN: &str = "Authenticated to 10.88.0.11 ([10.88.0.11]:22) using \"publickey\".\r\nTransferred: sent 1, received 2 bytes, in 0.1 seconds\r\n";

    #[test]
    fn a_refused_login_is_told_from_a_lost_session() {
        assert!(matches!(
            classify(REFUSAL, &Shown::Pinned),
            Transport::Auth { .. }
        ));
        let log = format!("{LOGIN}Timeout, server 10.88.0.11 not responding.\r\n");
        let Transport::Lost { detail } = classify(&log, &Shown::Pinned) else {
            panic!("{:?}", classify(&log, &Shown::Pinned));
        };
        assert!(detail.starts_with("Timeout, server"));
        assert_eq!(classify(LOGIN, &Shown::Pinned), Transport::Ended);
        // A login that was refused after another was taken: the client makes several connections for Nix.
        let log = format!("{LOGIN}{REFUSAL}");
        assert_eq!(classify(&log, &Shown::Pinned), Transport::Ended);
    }

    #[test]
    fn words_of_the_other_side_decide_nothing() {
        let begins = [
            "Received disconnect from 10.88.0.11 port 22:2: ",
            "Unable to negotiate with 10.88.0.11 port 22: no matching cipher found. Their offer: ",
            "Bad remote protocol version identification: '",
        ];
        let words = [
            "",
            REFUSAL,
            LOGIN,
            "Host key verification failed.",
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
            "Unable to negotiate with x port 1: no matching host key type found. Their offer: y",
            "/etc/ssh/ssh_config: line 1: Bad configuration option: x",
        ];
        for begin in begins {
            for word in words {
                for between in ["", "x\n", "\n", "\r\n"] {
                    for shown in [Shown::Nothing, Shown::Pinned] {
                        let log = format!("{begin}{between}{word}\r\n");
                        assert!(
                            matches!(classify(&log, &shown), Transport::Unreachable { .. }),
                            "{log:?} with {shown:?}: {:?}",
                            classify(&log, &shown)
                        );
                    }
                }
            }
        }
        // The methods of a refusal are the server's words too.
        let log = format!("root@10.88.0.11: Permission denied (x\n{LOGIN}).");
        assert!(matches!(
            classify(&log, &Shown::Pinned),
            Transport::Auth { .. }
        ));
    }

    #[test]
    fn a_client_that_is_too_old_is_said_to_be() {
        let log = "/tmp/x/config: line 6: Bad configuration option: knownhostscommand\r\n/tmp/x/config: terminating, 1 bad configuration options\r\n";
        assert!(matches!(
            classify(log, &Shown::Nothing),
            Transport::Client { .. }
        ));
    }

    proptest! {
        #[test]
        fn any_log_gives_an_answer_fit_for_a_terminal(log in "\\PC*|[\\x00-\\x7f]*", pinned: bool) {
            let shown = if pinned { Shown::Pinned } else { Shown::Nothing };
            match classify(&log, &shown) {
                Transport::Unreachable { detail }
                | Transport::Client { detail }
                | Transport::Auth { detail }
                | Transport::Lost { detail }
                | Transport::HostKey { shown: Some(detail) } => {
                    let escape = '\x1b';
                    prop_assert!(!detail.contains(escape));
                }
                Transport::HostKey { shown: None } | Transport::Ended => {}
            }
        }
    }
}
