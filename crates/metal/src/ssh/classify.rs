//! What OpenSSH's client says of itself, taken apart.
//!
//! The words are those of sshconnect.c, sshconnect2.c and clientloop.c; they are read from a log
//! that holds nothing of the remote program's output. At `LogLevel VERBOSE` the client writes
//! "Authenticated to …" before it asks for a session, which is the line between "nothing was run"
//! and "it may have been".

/// How a connection fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transport {
    /// No authenticated connection came about, for a reason that may pass.
    Unreachable {
        /// What the client said.
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

/// Takes the client's log apart. Total: any text gives an answer.
pub(crate) fn classify(log: &str) -> Transport {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let has = |word: &str| lines().any(|line| line.contains(word));
    if has("Authenticated to ") {
        return match lines().rev().find(|line| breaks(line)) {
            Some(line) => Transport::Lost {
                detail: shorten(line),
            },
            None => Transport::Ended,
        };
    }
    if has("HOST IDENTIFICATION HAS CHANGED") || has("Host key verification failed") {
        return Transport::HostKey {
            shown: lines()
                .find_map(|line| {
                    let fingerprint = line.strip_suffix('.').unwrap_or(line);
                    fingerprint.starts_with("SHA256:").then_some(fingerprint)
                })
                .map(shorten),
        };
    }
    if has("no matching host key type found") {
        return Transport::HostKey { shown: None };
    }
    if let Some(line) = lines().find(|line| {
        line.contains("Permission denied (") || line.contains("Too many authentication failures")
    }) {
        return Transport::Auth {
            detail: shorten(line),
        };
    }
    let detail = lines()
        .next_back()
        .unwrap_or("the SSH client gave no reason");
    Transport::Unreachable {
        detail: shorten(detail),
    }
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
    crate::process::printable(line).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refused_connection_is_unreachable() {
        let log = "ssh: connect to host 10.88.0.11 port 22: Connection refused\r\n";
        let Transport::Unreachable { detail } = classify(log) else {
            panic!("{:?}", classify(log));
        };
        assert!(detail.ends_with("Connection refused"));
    }

    #[test]
    fn a_connection_that_closes_before_authentication_is_unreachable() {
        for log in [
            "kex_exchange_identification: Connection closed by remote host\r\nConnection closed by 10.88.0.11 port 22\r\n",
            "Connection timed out during banner exchange\r\nConnection to 10.88.0.11 port 22 timed out\r\n",
            "",
        ] {
            assert!(
                matches!(classify(log), Transport::Unreachable { .. }),
                "{log}"
            );
        }
    }

    #[test]
    fn a_changed_key_shows_its_fingerprint() {
        let log = "@@@@@@@@@@@@@@@@@@@@\r
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r
The fingerprint for the ED25519 key sent by the remote host is\nSHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8.\r
Please contact your system administrator.\r
Host key verification failed.\r\n";
        assert_eq!(
            classify(log),
            Transport::HostKey {
                shown: Some("SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8".into())
            }
        );
    }

    #[test]
    fn a_server_without_an_ed25519_key_is_another_host() {
        let log = "Unable to negotiate with 10.88.0.11 port 22: no matching host key type found. Their offer: rsa-sha2-512,ssh-rsa\r\n";
        assert_eq!(classify(log), Transport::HostKey { shown: None });
    }

    #[test]
    fn a_refused_login_is_told_from_a_lost_session() {
        let log = "root@10.88.0.11: Permission denied (publickey).\r\n";
        assert!(matches!(classify(log), Transport::Auth { .. }));
        let log = "Authenticated to 10.88.0.11 ([10.88.0.11]:22) using \"publickey\".\r\nTransferred: sent 1, received 2 bytes, in 0.1 seconds\r\nTimeout, server 10.88.0.11 not responding.\r\n";
        let Transport::Lost { detail } = classify(log) else {
            panic!("{:?}", classify(log));
        };
        assert!(detail.starts_with("Timeout, server"));
    }

    #[test]
    fn a_session_without_complaint_has_ended() {
        let log = "Authenticated to 10.88.0.11 ([10.88.0.11]:22) using \"publickey\".\r\nTransferred: sent 1, received 2 bytes, in 0.1 seconds\r\n";
        assert_eq!(classify(log), Transport::Ended);
    }

    proptest! {
        #[test]
        fn any_log_gives_an_answer_fit_for_a_terminal(log in "\\PC*|[\\x00-\\x7f]*") {
            match classify(&log) {
                Transport::Unreachable { detail }
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
