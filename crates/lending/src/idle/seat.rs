//! What is known of a seat, and by whom.

use tokio::sync::watch;

/// How long a compositor or an X server may take to say what it is, in milliseconds. It is a few milliseconds.
pub(crate) const GREETING_MS_MAX: u64 = 5_000;

/// What is known of the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seat {
    /// Nothing came from them for the time that was asked for.
    Away {
        /// Who says so.
        source: String,
    },
    /// They are there.
    Present {
        /// Who says so.
        source: String,
    },
    /// Nobody says.
    Unknown {
        /// Why not, as a clause.
        why: String,
    },
}

impl Seat {
    /// Why nothing is lent now; `None` where the owner is away.
    pub fn why_not(&self) -> Option<String> {
        match self {
            Self::Away { .. } => None,
            Self::Present { .. } => Some("its owner is there".to_owned()),
            Self::Unknown { why } => {
                Some(format!("nobody knows whether its owner is there: {why}"))
            }
        }
    }
}

/// What becomes known of a seat is sent here.
#[derive(Debug)]
pub(crate) struct Tell {
    source: String,
    to: watch::Sender<Seat>,
}

impl Tell {
    pub(crate) fn new(source: String, to: &watch::Sender<Seat>) -> Self {
        let to = to.clone();
        Self { source, to }
    }

    /// Who says so.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn is_away(&self, is_away: bool) {
        let source = self.source.clone();
        let seat = match is_away {
            true => Seat::Away { source },
            false => Seat::Present { source },
        };
        self.to.send_if_modified(|known| {
            let is_news = *known != seat;
            *known = seat;
            is_news
        });
    }
}
