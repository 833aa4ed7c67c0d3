//! Why the cluster's API did not do what it was asked, and how a step is to take it.

use std::error::Error as _;

use undercroft_model::{Failure, FailureKind};

/// A field that another manager owns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldOwner {
    /// The manager.
    pub manager: String,
    /// The field, as the API writes it: `.spec.replicas`.
    pub field: String,
}

/// Why the cluster's API did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The credentials can't be used.
    #[error("the cluster's credentials can't be used: {detail}")]
    Access {
        /// Why.
        detail: String,
    },
    /// The API can't be reached, or doesn't answer.
    #[error("the API at {server} doesn't answer: {detail}")]
    Away {
        /// The server.
        server: String,
        /// Why.
        detail: String,
    },
    /// The server's certificate isn't from the cluster's authority.
    #[error("the API at {server} is another cluster's: {detail}")]
    OtherCluster {
        /// The server.
        server: String,
        /// What TLS says.
        detail: String,
    },
    /// The server's certificate is from the cluster's authority, perhaps, and can't be taken now:
    /// it has run out, isn't valid yet, or is for other addresses.
    #[error("the API at {server} shows a certificate that can't be taken: {detail}")]
    Certificate {
        /// The server.
        server: String,
        /// What TLS says.
        detail: String,
    },
    /// The API answers that it can't do it now.
    #[error("the API at {server} isn't ready for {what}: {message}")]
    NotNow {
        /// The server.
        server: String,
        /// What was asked.
        what: String,
        /// What it said.
        message: String,
    },
    /// The credentials don't allow it.
    #[error("the API at {server} refuses {what}: {message}")]
    Denied {
        /// The server.
        server: String,
        /// What was asked.
        what: String,
        /// What it said.
        message: String,
    },
    /// Other managers own fields of the object with other values.
    #[error("{what} has fields that others own: {}", owners(owned))]
    Conflict {
        /// The object.
        what: String,
        /// The fields, with their owners.
        owned: Vec<FieldOwner>,
    },
    /// The API refuses the object as it is.
    #[error("{what} is refused: {message}")]
    Invalid {
        /// The object.
        what: String,
        /// What it said.
        message: String,
    },
    /// There is no such thing.
    #[error("{what} isn't there: {message}")]
    Absent {
        /// What was asked for.
        what: String,
        /// What the API said.
        message: String,
    },
    /// The cluster doesn't know the kind.
    #[error("{what}: the cluster doesn't know the kind {kind} of {api_version}")]
    UnknownKind {
        /// The object.
        what: String,
        /// Its kind.
        kind: String,
        /// Its group and version.
        api_version: String,
    },
    /// A text holds no Kubernetes objects.
    #[error("{origin}: {detail}")]
    Manifest {
        /// The file.
        origin: String,
        /// Why.
        detail: String,
    },
    /// Helm did not render a chart.
    #[error("{message}")]
    Helm {
        /// What went wrong.
        message: String,
        /// The command, where one was run.
        command: Option<Box<undercroft_model::FailedCommand>>,
        /// What to try.
        hint: Option<String>,
    },
}

fn owners(owned: &[FieldOwner]) -> String {
    let owned: Vec<String> = owned
        .iter()
        .map(|o| format!("{} ({})", o.field, o.manager))
        .collect();
    owned.join(", ")
}

/// An error with all that it stems from, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    // A certificate's names, a redirection, a proxy's answer: whoever is there has written them.
    undercroft_process::printable(&text)
}

impl KubeError {
    /// What an error of the client means.
    pub(super) fn of(error: kube::Error, server: &str, what: &str) -> Self {
        let (server, what) = (server.to_owned(), what.to_owned());
        let status = match error {
            kube::Error::Api(status) => status,
            kube::Error::Discovery(error) => {
                let message = undercroft_process::printable(&error.to_string());
                return Self::Absent { what, message };
            }
            other => {
                let detail = match other.source() {
                    // The client's own word for it says nothing more.
                    Some(source) => chain(source),
                    None => chain(&other),
                };
                return Self::of_transport(server, detail);
            }
        };
        let message = undercroft_process::printable(status.message.trim());
        match status.code {
            401 | 403 => Self::Denied {
                server,
                what,
                message,
            },
            409 => {
                let causes = status.details.map(|d| d.causes).unwrap_or_default();
                let owned: Vec<FieldOwner> = causes
                    .iter()
                    .filter(|c| c.reason == "FieldManagerConflict")
                    .map(|c| FieldOwner {
                        manager: manager_of(&c.message),
                        field: undercroft_process::printable(&c.field),
                    })
                    .collect();
                if owned.is_empty() {
                    // The object changed between a look and a write; the next try sees it anew.
                    Self::NotNow {
                        server,
                        what,
                        message,
                    }
                } else {
                    Self::Conflict { what, owned }
                }
            }
            404 => Self::Absent { what, message },
            // A field that the schema doesn't have is the server's own error to it.
            500 if message.starts_with("failed to create typed patch object") => {
                Self::Invalid { what, message }
            }
            400 | 405 | 413 | 415 | 422 => Self::Invalid { what, message },
            _ => Self::NotNow {
                server,
                what,
                message,
            },
        }
    }

    /// What it means that no request got through. rustls says "invalid peer certificate" and then
    /// why: only a certificate that doesn't lead to the authority is another cluster's.
    fn of_transport(server: String, detail: String) -> Self {
        let is = |word| detail.contains(word);
        if !is("invalid peer certificate") {
            Self::Away { server, detail }
        } else if is("UnknownIssuer") || is("BadSignature") {
            Self::OtherCluster { server, detail }
        } else {
            Self::Certificate { server, detail }
        }
    }

    /// Whether waiting may help.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Away { .. } | Self::NotNow { .. } | Self::Certificate { .. }
        )
    }

    /// The failure that a step reports. Server-side apply can be repeated, so that nothing here is
    /// ambiguous.
    pub fn into_failure(self) -> Failure {
        let kind = match &self {
            Self::Away { .. }
            | Self::Certificate { .. }
            | Self::NotNow { .. }
            | Self::Absent { .. }
            | Self::UnknownKind { .. } => FailureKind::Transient,
            Self::OtherCluster { .. } => FailureKind::Refused,
            _ => FailureKind::Permanent,
        };
        let failure = Failure::new(kind, self.to_string());
        match self {
            Self::Conflict { .. } => failure.with_hint(
                "Somebody else keeps this object. Remove it from there, or take the component out of [gitops]: two owners would undo each other's work.",
            ),
            Self::OtherCluster { .. } => failure.with_hint(
                "Look whether the machine was installed by somebody else, or was once a member of another cluster.",
            ),
            Self::Certificate { .. } => failure.with_hint(
                "Compare the clock of this machine with the server's: certificates are made when a server first starts, by its own clock.",
            ),
            Self::UnknownKind { .. } => failure.with_hint(
                "The object's CustomResourceDefinition comes with what it belongs to; that isn't there yet.",
            ),
            Self::Helm { command, hint, .. } => {
                let failure = match command {
                    Some(command) => failure.with_command(*command),
                    None => failure,
                };
                match hint {
                    Some(hint) => failure.with_hint(hint),
                    None => failure,
                }
            }
            _ => failure,
        }
    }
}

/// The manager in `conflict with "helm" using apps/v1` or
/// `conflict with "kubectl" with subresource "status" using v1`.
fn manager_of(message: &str) -> String {
    let quoted = message.split('"').nth(1);
    undercroft_process::printable(quoted.unwrap_or(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_certificate_of_another_authority_is_another_clusters() {
        let of = |said: &str| {
            let detail = format!("client error (Connect): invalid peer certificate: {said}");
            KubeError::of_transport("10.0.0.1 port 6443".to_owned(), detail)
        };
        for said in ["UnknownIssuer", "BadSignature"] {
            let failure = of(said).into_failure();
            assert_eq!(failure.kind, FailureKind::Refused, "{said}");
        }
        // A machine without a battery for its clock begins in the past.
        for said in [
            "certificate not valid yet: verified at time 1 (UNIX), but certificate is not valid before 2",
            "certificate expired: verified at time 2 (UNIX), but certificate is not valid after 1",
            "certificate not valid for name \"10.0.0.1\"",
        ] {
            let error = of(said);
            assert!(error.is_passing(), "{said}");
            let failure = error.into_failure();
            assert_eq!(failure.kind, FailureKind::Transient, "{said}");
            assert!(failure.hint.unwrap().contains("clock"));
        }
    }

    /// What an API server says reaches nobody as commands to a terminal, whatever it is an answer to.
    #[test]
    fn no_answer_of_an_api_steers_a_terminal() {
        const HOSTILE: &str = "A\u{1b}[2J\u{7}\u{9b}\u{202e}\u{2066}\u{2069}\u{200b}\u{2028}\u{feff}\r\u{8}\nerror: Z";
        for code in [400, 401, 403, 404, 409, 413, 422, 429, 500, 503] {
            for cause in ["FieldManagerConflict", HOSTILE] {
                let said = serde_json::json!({
                    "status": "Failure", "code": code, "reason": HOSTILE, "message": HOSTILE,
                    "details": { "name": HOSTILE, "kind": HOSTILE, "causes": [
                        { "reason": cause, "message": format!("conflict with \"{HOSTILE}\""), "field": HOSTILE }
                    ]}
                });
                let status: kube::core::Status =
                    serde_json::from_slice(&serde_json::to_vec(&said).unwrap()).unwrap();
                let error = KubeError::of(kube::Error::Api(Box::new(status)), "a server", "a Node");
                let failure = error.into_failure();
                let text = format!("{} {:?}", failure.message, failure.hint);
                let bad: Vec<char> = text
                    .chars()
                    .filter(|c| *c != '\n' && undercroft_model::text::is_unseen(*c))
                    .collect();
                assert!(bad.is_empty(), "{code}: {bad:?} in {text:?}");
                assert!(text.contains("\\u{202e}"), "{code}: {text:?}");
            }
        }
        let said = KubeError::of_transport(
            "a server".to_owned(),
            chain(&std::io::Error::other(HOSTILE)),
        );
        assert!(!said.to_string().contains('\u{202e}'), "{said}");
    }

    #[test]
    fn a_conflict_names_each_field_with_its_owner() {
        let status: kube::core::Status = serde_json::from_value(serde_json::json!({
            "status": "Failure", "code": 409, "reason": "Conflict", "message": "Apply failed with 1 conflict",
            "details": { "causes": [
                { "reason": "FieldManagerConflict", "message": "conflict with \"helm\" using apps/v1", "field": ".spec.replicas" }
            ]}
        }))
        .unwrap();
        let error = KubeError::of(
            kube::Error::Api(Box::new(status)),
            "10.0.0.1 port 6443",
            "Deployment a/b",
        );
        assert_eq!(
            error.to_string(),
            "Deployment a/b has fields that others own: .spec.replicas (helm)"
        );
        assert!(!error.is_passing());
    }
}
