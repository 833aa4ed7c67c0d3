//! The connection to NATS: one for a process, with a key of its own, and small.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind, ServerAddr, ServerError,
};
use bytes::Bytes;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use undercroft_folder::named::read_bounded;
use undercroft_model::{
    DeviceName,
    advice::{Advice, ErrorKind, kind_of_io},
};

use crate::keys::UserKey;

/// How long it may take to connect, in milliseconds: a name, a handshake and a greeting over a slow link.
const CONNECT_MS_MAX: u64 = 10_000;
/// Time between two looks whether the server is still there, in milliseconds. Two in vain end the connection, so
/// that a link that died silently is noticed within a lease.
const PING_MS: u64 = 20_000;
/// The first rest before a lost connection is tried again, in milliseconds; it doubles from there.
const RECONNECT_MS_MIN: u64 = 250;
/// The longest rest before the next try, in milliseconds. A server that is away for hours costs a PC two
/// connections a minute.
const RECONNECT_MS_MAX: u64 = 30_000;
/// Messages that wait to be sent, at most.
const WAITING_TO_SEND_MAX: usize = 128;
/// Messages of one subscription that wait to be looked at, at most. What comes on top is lost, and asked again.
const WAITING_TO_BE_READ_MAX: usize = 1024;
/// How much is read from the socket at once, in bytes.
const READ_BYTES: u16 = 8 * 1024;

/// The largest file of authorities, in bytes: those of a whole operating system are a fifth of that.
const CA_BYTES_MAX: u64 = 1024 * 1024;

/// How to reach the server, and as whom.
#[derive(Debug, Clone)]
pub struct BusSettings {
    /// `tls://HOST:PORT` or `nats://HOST:PORT`.
    pub url: String,
    /// Whom to believe that the server is who it says; without it, the authorities of the operating system.
    pub ca_file: Option<PathBuf>,
    /// Who connects.
    pub key: Arc<UserKey>,
    /// As what the server's own lists name the connection.
    pub name: String,
    /// Where answers go to; NATS' permissions let nobody else listen there.
    pub inbox: Inbox,
}

/// Where answers go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbox {
    /// To a device: `_INBOX_NAME`.
    Device(DeviceName),
    /// To somebody who submits: `_INBOX_submit_NAME`. No device's name has a `_` in it.
    Submitter(String),
    /// To the server of lending, which may listen to all of its account.
    Server,
}

impl Inbox {
    /// The prefix of the subjects.
    pub fn prefix(&self) -> String {
        match self {
            Self::Device(name) => format!("_INBOX_{name}"),
            Self::Submitter(name) => format!("_INBOX_submit_{name}"),
            Self::Server => "_INBOX".to_owned(),
        }
    }
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusLink {
    /// There is one.
    Up,
    /// There is none; it is tried again.
    Down {
        /// What was heard last.
        why: String,
    },
}

/// Why something couldn't be said over NATS.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The address isn't one.
    #[error("{url:?} is no address of a NATS server")]
    Url {
        /// What was given.
        url: String,
    },
    /// The connection would be in plain text, beyond this machine.
    #[error("{url} would be spoken to in plain text")]
    Plain {
        /// The server.
        url: String,
    },
    /// The file with the authority is too large for one.
    #[error("can't read {}: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("no NATS server can be reached at {url}: {detail}")]
    Unreachable {
        /// The server.
        url: String,
        /// What happened.
        detail: String,
    },
    /// The server isn't who it should be, or speaks no TLS.
    #[error("no TLS with {url}: {detail}")]
    Tls {
        /// The server.
        url: String,
        /// What happened.
        detail: String,
    },
    /// The server doesn't know the key.
    #[error("{url} refuses the key {key}")]
    Refused {
        /// The server.
        url: String,
        /// The public half.
        key: String,
    },
    /// No answer came in time.
    #[error("there was no answer on {subject} within {limit_ms} ms")]
    Silent {
        /// What was asked.
        subject: String,
        /// How long it was waited.
        limit_ms: u64,
    },
    /// Nobody listens.
    #[error("nobody listens on {subject}")]
    Nobody {
        /// What was asked.
        subject: String,
    },
    /// NATS didn't take the message.
    #[error("can't send on {subject}: {detail}")]
    Send {
        /// What was asked.
        subject: String,
        /// Why.
        detail: String,
    },
}

impl Advice for BusError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } | Self::Plain { .. } => ErrorKind::Input,
            Self::Authority { source, .. } => kind_of_io(source),
            Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Refused { .. }
            | Self::Silent { .. }
            | Self::Nobody { .. }
            | Self::Send { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Url { .. } => "Write it as `tls://HOST:4222`; `lending.nats_url` has it.",
            Self::Plain { .. } => {
                "Use `tls://`: keys say who somebody is, and hide nothing of what is said. Plain text is for the loopback interface alone."
            }
            Self::Unreachable { .. } => {
                "See whether the server runs (`systemctl status nats`), and whether a firewall or the overlay is in between."
            }
            Self::Tls { .. } => {
                "Give the authority that signed the server's certificate with --ca, and the name that stands in the certificate; a server without TLS refuses it, too."
            }
            Self::Refused { .. } => {
                "The key has to stand in the inventory, and the server has to be reloaded since: `undercroft check`, then rebuild the machine with NATS."
            }
            Self::Silent { .. } => {
                "Either the server of lending is busy or away, or NATS' permissions don't let this key ask there: look into its log."
            }
            Self::Nobody { .. } => {
                "`undercroft lend server` doesn't run, or is in another account than this key."
            }
            Self::Send { .. } | Self::Authority { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// A connection to NATS.
#[derive(Debug, Clone)]
pub struct Bus {
    client: Client,
    link: watch::Receiver<BusLink>,
    url: String,
}

impl Bus {
    /// Connects, or says why not. A connection that is lost later is made again by itself.
    ///
    /// # Errors
    /// When the server can't be reached, isn't who it should be, or refuses the key.
    pub async fn connect(settings: &BusSettings) -> Result<Self, BusError> {
        Self::with(settings, false).await
    }

    /// As [`Self::connect`], but a server that isn't there is waited for in the background. [`Self::link`] says
    /// how it goes.
    ///
    /// # Errors
    /// When the address is none, or plain text would go beyond this machine.
    pub async fn connect_when_there(settings: &BusSettings) -> Result<Self, BusError> {
        Self::with(settings, true).await
    }

    async fn with(settings: &BusSettings, waits: bool) -> Result<Self, BusError> {
        let url = settings.url.clone();
        let no_address = || BusError::Url { url: url.clone() };
        let address: ServerAddr = url.parse().map_err(|_| no_address())?;
        if address.host().is_empty() || !matches!(address.scheme(), "nats" | "tls") {
            return Err(no_address());
        }
        let has_tls = settings.ca_file.is_some() || address.tls_required();
        if !has_tls && !is_loopback(address.host()) {
            return Err(BusError::Plain { url });
        }
        let (said, link) = watch::channel(BusLink::Down {
            why: "no connection was made yet".to_owned(),
        });
        let mut options = ConnectOptions::with_nkey(settings.key.seed().expose_secret().to_owned())
            .name(&settings.name)
            .custom_inbox_prefix(settings.inbox.prefix())
            .require_tls(has_tls)
            .connection_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .ping_interval(Duration::from_millis(PING_MS))
            .client_capacity(WAITING_TO_SEND_MAX)
            .subscription_capacity(WAITING_TO_BE_READ_MAX)
            .read_buffer_capacity(READ_BYTES)
            // Where a server says that others are isn't where the operator said that it is.
            .ignore_discovered_servers()
            .reconnect_delay_callback(rest)
            .event_callback(move |event| {
                note(&said, &event);
                std::future::ready(())
            });
        if let Some(file) = &settings.ca_file {
            // NATS' client would read it whole, however large it is. One that isn't there yet it waits for.
            let read = read_bounded(file, CA_BYTES_MAX);
            if let Err(source) = read
                && source.kind() == io::ErrorKind::FileTooLarge
            {
                let path = file.clone();
                return Err(BusError::Authority { path, source });
            }
            options = options.add_root_certificates(file.clone());
        }
        if waits {
            options = options.retry_on_initial_connect();
        }
        let client = options
            .connect(address)
            .await
            .map_err(|error| told(&error, &url, &settings.key))?;
        Ok(Self { client, link, url })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When nobody listens, or no answer comes within the limit.
    pub async fn request(
        &self,
        subject: String,
        payload: Bytes,
        limit_ms: u64,
    ) -> Result<Bytes, BusError> {
        let request = async_nats::Request::new()
            .payload(payload)
            .timeout(Some(Duration::from_millis(limit_ms)));
        match self.client.send_request(subject.clone(), request).await {
            Ok(message) => Ok(message.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::TimedOut => BusError::Silent { subject, limit_ms },
                RequestErrorKind::NoResponders => BusError::Nobody { subject },
                RequestErrorKind::InvalidSubject
                | RequestErrorKind::MaxPayloadExceeded
                | RequestErrorKind::Other => BusError::Send {
                    subject,
                    detail: error.to_string(),
                },
            }),
        }
    }

    /// How the connection is, and when that changes.
    pub fn link(&self) -> watch::Receiver<BusLink> {
        self.link.clone()
    }

    /// The server, as it was named.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client itself, for what only the server of lending does.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends what waits, and ends the connection.
    pub async fn close(self) {
        // Who leaves needs no more than to have tried.
        let _ = self.client.drain().await;
    }
}

/// How long it rests before a try.
fn rest(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let ms = match attempts {
        0 | 1 => 0,
        _ => RECONNECT_MS_MIN.saturating_mul(2_u64.saturating_pow(doublings)),
    };
    Duration::from_millis(ms.min(RECONNECT_MS_MAX))
}

fn note(said: &watch::Sender<BusLink>, event: &Event) {
    let why = match event {
        Event::Connected => {
            said.send_replace(BusLink::Up);
            return;
        }
        Event::Disconnected => "the connection was lost".to_owned(),
        Event::Closed => "the connection was closed".to_owned(),
        Event::ServerError(ServerError::AuthorizationViolation) => {
            "the server refuses the key".to_owned()
        }
        Event::ClientError(error) => error.to_string(),
        // The connection stands: a message was refused, or came too fast.
        Event::ServerError(_) | Event::SlowConsumer(_) | Event::LameDuckMode | Event::Draining => {
            return;
        }
    };
    said.send_if_modified(|link| {
        let next = BusLink::Down { why };
        // An error of a connection that stands doesn't end it; that is said as well.
        let is_news =
            *link != next && (*link != BusLink::Up || !matches!(event, Event::ClientError(_)));
        if is_news {
            *link = next;
        }
        is_news
    });
}

fn told(error: &async_nats::ConnectError, url: &str, key: &UserKey) -> BusError {
    let url = url.to_owned();
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let text = inner.to_string();
        if !detail.contains(&text) {
            detail = text;
        }
        source = inner.source();
    }
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            BusError::Refused {
                url,
                key: key.public().0,
            }
        }
        ConnectErrorKind::Tls => BusError::Tls { url, detail },
        ConnectErrorKind::ServerParse => BusError::Url { url },
        // A certificate that isn't believed comes as an error of the socket.
        ConnectErrorKind::Io if detail.contains("certificate") => BusError::Tls { url, detail },
        ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => BusError::Unreachable { url, detail },
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_their_limit() {
        let all: Vec<u128> = (0..12).map(|n| rest(n).as_millis()).collect();
        assert_eq!(
            all,
            [
                0, 0, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000
            ]
        );
        assert_eq!(rest(usize::MAX).as_millis(), 30_000);
    }

    #[tokio::test]
    async fn plain_text_stays_on_this_machine() {
        let connect = async |url: &str| {
            let settings = BusSettings {
                url: url.to_owned(),
                ca_file: None,
                key: Arc::new(UserKey::generate()),
                name: "a test".to_owned(),
                inbox: Inbox::Server,
            };
            Bus::connect(&settings).await.unwrap_err()
        };
        assert!(matches!(
            connect("nats://192.0.2.1:4222").await,
            BusError::Plain { .. }
        ));
        for url in ["nats://", "tls://", "http://127.0.0.1"] {
            let error = connect(url).await;
            assert!(matches!(error, BusError::Url { .. }), "{url}: {error}");
        }
        // Nobody listens on port 1 of the loopback interface.
        for url in ["nats://127.0.0.1:1", "nats://localhost:1", "nats://[::1]:1"] {
            let error = connect(url).await;
            assert!(matches!(error, BusError::Unreachable { .. }), "{error}");
        }
    }
}
