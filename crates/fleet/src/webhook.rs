//! A webhook that is told when what a service waits for changes, when something fails, and when all goes on again.
//!
//! Nothing that the other end does holds up a round: notices wait in a queue with an end, and are posted beside
//! the rounds, one after the other, each for a limited time.

mod news;
mod post;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;
use tokio::{
    task::{JoinError, JoinHandle},
    time::Instant,
};
use undercroft_model::{
    advice::{Advice, ErrorKind},
    document::Version,
};

use crate::{
    documents::{NOTICE_WAITS_MAX, Notice},
    standing::Board,
};
use news::News;
pub use post::POST_MS_MAX;
use post::{PostError, Poster};

/// The most notices that wait; of more, the oldest is given up.
pub const QUEUE_MAX: usize = 32;
/// How often one notice is posted at most.
pub const TRIES_MAX: u32 = 8;
/// The wait before the second try, in milliseconds; it doubles with each.
pub const RETRY_MS_MIN: u64 = 2_000;
/// The longest wait between two tries, in milliseconds.
pub const RETRY_MS_MAX: u64 = 5 * 60_000;
/// How often it is looked whether there is news, in milliseconds.
const LOOK_MS: u64 = 5_000;
/// The longest secret, in bytes.
const SECRET_BYTES_MAX: u64 = 4096;
/// What stands in a URL for the secret.
const PLACE: &str = "{secret}";

/// Why a webhook can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It is no URL of a web server.
    #[error("the webhook's URL is none of a web server's (https://HOST/PATH)")]
    Url,
    /// Whoever listens on the way would learn the secret.
    #[error("a secret is sent over https alone, and to this machine itself")]
    Plain,
    /// The URL has a place for a secret, and there is none.
    #[error("the webhook's URL has a place for a secret, {PLACE}, and none is given")]
    NoSecret,
    /// The secret's file can't be read.
    #[error("{path} can't be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others can read the secret.
    #[error("{path} can be read by others (mode {mode:04o})")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is in the file is no secret of a webhook.
    #[error(
        "{path} holds no secret of a webhook: one line of visible ASCII, of {SECRET_BYTES_MAX} bytes at most"
    )]
    Form {
        /// The file.
        path: PathBuf,
    },
}

impl Advice for WebhookError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Input
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Open { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Plain => "Give a URL with https.".to_owned(),
            Self::NoSecret => "Name its file with --webhook-secret.".to_owned(),
            Self::Url | Self::File { .. } | Self::Form { .. } => return None,
        })
    }
}

/// Where notices go.
#[derive(Debug)]
pub struct Webhook(Arc<Poster>);

impl Webhook {
    /// A webhook. The secret stands in for `{secret}` in the URL; where the URL has no such place, it is sent as a
    /// bearer's token.
    ///
    /// # Errors
    /// When that can't be used.
    pub fn new(url: &str, secret: Option<SecretString>) -> Result<Self, WebhookError> {
        Poster::new(url, secret).map(|poster| Self(Arc::new(poster)))
    }

    /// The secret in a file that nobody but its owner can read.
    ///
    /// # Errors
    /// When others can read it, or it holds none.
    pub fn secret(path: &Path) -> Result<SecretString, WebhookError> {
        post::read_secret(path)
    }

    /// Tells what is new on the board, until it is dropped. `say` is told what can't be delivered, once for each
    /// row of failures.
    pub(crate) async fn tell(self, fleet: String, board: Arc<Board>, say: impl Fn(&str)) {
        let mut changes = board.changes();
        let mut news = News::default();
        let mut queue = Queue::default();
        loop {
            if let Some(new) = news.of(board.told()) {
                queue.add(&fleet, new);
            }
            queue.post_if_due(&self.0);
            let wake = Duration::from_millis(LOOK_MS);
            let wake = queue.due().map_or(wake, |due| due.min(wake));
            tokio::select! {
                Ok(()) = changes.changed() => {}
                done = posted(&mut queue.posting) => {
                    if let Some(text) = queue.done(done) {
                        say(&text);
                    }
                }
                () = tokio::time::sleep(wake) => {}
            }
        }
    }
}

type Posted = Result<Result<(), PostError>, JoinError>;

/// What came of the notice that is being posted; never, where none is.
async fn posted(posting: &mut Option<JoinHandle<Result<(), PostError>>>) -> Posted {
    match posting {
        Some(handle) => handle.await,
        None => std::future::pending().await,
    }
}

/// The notices that wait, the oldest first.
#[derive(Debug, Default)]
struct Queue {
    notices: VecDeque<Notice>,
    posting: Option<JoinHandle<Result<(), PostError>>>,
    /// Tries of the oldest, and when the next is due.
    tries: u32,
    again_at: Option<Instant>,
    missed: u64,
    /// Whether it was said that nobody takes them.
    said: bool,
}

impl Queue {
    fn add(&mut self, fleet: &str, new: news::New) {
        let more = new.told.waits.len().saturating_sub(NOTICE_WAITS_MAX);
        let mut waits = new.told.waits;
        waits.truncate(NOTICE_WAITS_MAX);
        self.notices.push_back(Notice {
            version: Version,
            fleet: fleet.to_owned(),
            at_ms: undercroft_process::clock::wall_ms_now(),
            course: new.told.course,
            before: new.before,
            sentence: new.told.sentence,
            waits,
            more_waits: u64::try_from(more).unwrap_or(u64::MAX),
            drift: new.told.drift,
            missed: 0,
        });
        if self.notices.len() > QUEUE_MAX {
            // The oldest may be under way; the one behind it makes room then.
            let at = usize::from(self.posting.is_some());
            self.missed += u64::from(self.notices.remove(at).is_some());
            if at == 0 {
                (self.tries, self.again_at) = (0, None);
            }
        }
    }

    /// How long until the oldest is posted; `None` where nothing waits for that.
    fn due(&self) -> Option<Duration> {
        let waits = self.posting.is_none() && !self.notices.is_empty();
        waits.then(|| {
            self.again_at.map_or(Duration::ZERO, |at| {
                at.saturating_duration_since(Instant::now())
            })
        })
    }

    fn post_if_due(&mut self, poster: &Arc<Poster>) {
        if self.due() != Some(Duration::ZERO) {
            return;
        }
        let Some(notice) = self.notices.front_mut() else {
            return;
        };
        notice.missed = self.missed;
        // Its own types are what is written: that can't fail.
        let body = serde_json::to_string(notice).unwrap_or_default();
        let poster = Arc::clone(poster);
        self.posting = Some(tokio::task::spawn_blocking(move || poster.post(&body)));
    }

    /// Something came of the oldest; what is to be said of it.
    fn done(&mut self, posted: Posted) -> Option<String> {
        self.posting = None;
        let failed = match posted {
            Ok(Ok(())) => {
                // More may have been given up since it was written.
                let counted = self.notices.pop_front().map_or(0, |taken| taken.missed);
                self.missed = self.missed.saturating_sub(counted);
                (self.tries, self.again_at) = (0, None);
                return std::mem::take(&mut self.said)
                    .then(|| "the webhook takes notices again".to_owned());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "posting it stopped because of a fault in Undercroft itself".to_owned(),
        };
        self.tries += 1;
        if self.tries >= TRIES_MAX {
            self.notices.pop_front();
            self.missed += 1;
            (self.tries, self.again_at) = (0, None);
        } else {
            let wait_ms = RETRY_MS_MIN.saturating_mul(1 << (self.tries - 1).min(20));
            let wait = Duration::from_millis(wait_ms.min(RETRY_MS_MAX));
            self.again_at = Some(Instant::now() + wait);
        }
        let first = !std::mem::replace(&mut self.said, true);
        first.then(|| format!("the webhook takes no notices: {failed}; it is tried again"))
    }
}

#[cfg(test)]
mod tests;
