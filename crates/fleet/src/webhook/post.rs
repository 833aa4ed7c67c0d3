//! One notice, posted: to whom, with which secret, and what can go wrong. No error says more of the URL than its
//! host.

use std::{
    fs::File, io::Read as _, net::IpAddr, os::unix::fs::MetadataExt as _, path::Path,
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};

use super::{PLACE, SECRET_BYTES_MAX, WebhookError};

/// How long one try may take, from the host's name to the answer's head, in milliseconds.
pub const POST_MS_MAX: u64 = 20_000;
/// The longest wait for a connection, in milliseconds.
const CONNECT_MS_MAX: u64 = 10_000;

/// Why a notice was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("{host} answered with the status {status}")]
    Status { host: String, status: u16 },
    #[error("{host} took longer than {} s", POST_MS_MAX / 1000)]
    Slow { host: String },
    #[error("{host} can't be reached: {why}")]
    Away { host: String, why: String },
}

/// Posts notices.
pub(super) struct Poster {
    agent: ureq::Agent,
    host: String,
    /// The URL with its secret.
    url: SecretString,
    /// The head that carries the secret where the URL has no place for it.
    authorization: Option<SecretString>,
}

impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poster")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Poster {
    pub(super) fn new(url: &str, secret: Option<SecretString>) -> Result<Self, WebhookError> {
        Self::within(url, secret, Duration::from_millis(POST_MS_MAX))
    }

    /// The same, with how long one try may take.
    pub(super) fn within(
        url: &str,
        secret: Option<SecretString>,
        limit: Duration,
    ) -> Result<Self, WebhookError> {
        let (host, is_plain) = host_of(url).ok_or(WebhookError::Url)?;
        let has_place = url.contains(PLACE);
        if has_place && secret.is_none() {
            return Err(WebhookError::NoSecret);
        }
        if is_plain && secret.is_some() && !is_this_machine(&host) {
            return Err(WebhookError::Plain);
        }
        let secret = secret.as_ref().map(SecretString::expose_secret);
        let whole = match secret {
            Some(secret) if has_place => url.replace(PLACE, secret),
            _ => url.to_owned(),
        };
        // What `ureq` would find in it only when it posts.
        if !whole
            .parse::<ureq::http::Uri>()
            .is_ok_and(|uri| uri.host().is_some())
        {
            return Err(WebhookError::Url);
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(limit))
            .timeout_connect(Some(Duration::from_millis(CONNECT_MS_MAX)))
            .http_status_as_error(false)
            // The secret is for this host alone.
            .max_redirects(0)
            .user_agent(concat!("undercroft/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self {
            agent,
            host,
            url: whole.into(),
            authorization: secret
                .filter(|_| !has_place)
                .map(|secret| format!("Bearer {secret}").into()),
        })
    }

    /// Posts a notice, and waits until it is taken. What the answer says beside its status isn't read.
    pub(super) fn post(&self, body: &str) -> Result<(), PostError> {
        let mut request = self
            .agent
            .post(self.url.expose_secret())
            .content_type("application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization.expose_secret());
        }
        let host = self.host.clone();
        match request.send(body) {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(PostError::Status {
                host,
                status: answer.status().as_u16(),
            }),
            Err(ureq::Error::Timeout(_)) => Err(PostError::Slow { host }),
            Err(error) => Err(PostError::Away {
                host,
                why: words(&error),
            }),
        }
    }
}

/// What went wrong, without what names the URL.
fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        ureq::Error::ConnectionFailed => "it takes no connection".to_owned(),
        ureq::Error::Tls(why) => format!("TLS: {why}"),
        ureq::Error::Protocol(_) => "what it says is no HTTP".to_owned(),
        _ => "the request could not be made".to_owned(),
    }
}

/// The host of a web server's URL, and whether it is asked without TLS.
fn host_of(url: &str) -> Option<(String, bool)> {
    let (rest, is_plain) = match url.strip_prefix("https://") {
        Some(rest) => (rest, false),
        None => (url.strip_prefix("http://")?, true),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    // A name and a password before it would be a secret on the command line.
    if authority.contains('@') || authority.contains('{') {
        return None;
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.0,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then(|| (host.to_owned(), is_plain))
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The secret in a file that nobody but its owner can read.
pub(super) fn read_secret(path: &Path) -> Result<SecretString, WebhookError> {
    let failed = |source| WebhookError::File {
        path: path.to_owned(),
        source,
    };
    let form = || WebhookError::Form {
        path: path.to_owned(),
    };
    // What is no file is never opened: one may wait for somebody who writes.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(form());
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.mode() & 0o7777;
    // What systemd hands to a service as a credential is root's, and an access list lets that service alone
    // read it, which shows as the group's right.
    let is_credential = metadata.uid() == 0 && mode == 0o440;
    if mode & 0o077 != 0 && !is_credential {
        return Err(WebhookError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(SECRET_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let secret = text.trim_end_matches(['\n', '\r']);
    let is_short = u64::try_from(secret.len()).is_ok_and(|len| len <= SECRET_BYTES_MAX);
    if secret.is_empty() || !is_short || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(form());
    }
    Ok(secret.to_owned().into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_goes_over_tls_or_stays_on_this_machine() {
        let refused = |url: &str, secret: Option<&str>| {
            let secret = secret.map(|secret| SecretString::from(secret.to_owned()));
            Poster::new(url, secret).err().map(|e| e.to_string())
        };
        for url in [
            "https://hooks.example/T0/{secret}",
            "https://hooks.example:8443/x",
            "http://127.0.0.1:9093/{secret}",
            "http://[::1]:9093/x",
            "http://localhost/x",
        ] {
            assert_eq!(refused(url, Some("s3cret")), None, "{url}");
        }
        assert_eq!(refused("http://hooks.example/x", None), None);
        let plain = WebhookError::Plain.to_string();
        for url in ["http://hooks.example/{secret}", "http://10.0.0.7/x"] {
            assert_eq!(refused(url, Some("s3cret")), Some(plain.clone()), "{url}");
        }
        assert_eq!(
            refused("https://hooks.example/{secret}", None),
            Some(WebhookError::NoSecret.to_string())
        );
        for url in [
            "hooks.example",
            "ftp://hooks.example/x",
            "https://",
            "https:///x",
            "https://ada:pw@hooks.example/x",
            "https://{secret}.example/x",
            "https://hooks.example/a b",
        ] {
            let wrong = WebhookError::Url.to_string();
            assert_eq!(refused(url, Some("s3cret")), Some(wrong), "{url}");
        }
    }

    #[test]
    fn a_secret_is_read_from_a_file_that_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("T0/B0/xyz\n", 0o600);
        assert_eq!(read_secret(&path).unwrap().expose_secret(), "T0/B0/xyz");
        for mode in [0o644, 0o640, 0o660] {
            write("T0/B0/xyz\n", mode);
            let refused = read_secret(&path).unwrap_err();
            assert!(matches!(refused, WebhookError::Open { .. }), "{mode:o}");
        }
        let long = "x".repeat(usize::try_from(SECRET_BYTES_MAX).unwrap() + 1);
        for text in ["", "\n", "two\nlines", "a b", "ü", &long] {
            write(text, 0o600);
            let refused = read_secret(&path).unwrap_err();
            assert!(matches!(refused, WebhookError::Form { .. }), "{text:?}");
        }
        let refused = read_secret(dir.path()).unwrap_err();
        assert!(matches!(refused, WebhookError::Form { .. }));
    }
}
