//! What the server counts, in Prometheus' text format, and how it is, for whoever may ask: on the loopback interface,
//! or where an operator says so.

use std::{collections::BTreeMap, io, net::SocketAddr};

use tokio::net::TcpListener;
use undercroft_lend::{
    DeviceName,
    server::record::{JobRecord, State},
};
use undercroft_metrics::{NumberKind, Text, seconds};

use super::event::RefusedFor;

/// A device that was heard of within so long is there, in milliseconds: it asks at least once a minute.
pub(crate) const SEEN_MS_MAX: u64 = 150_000;

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) refused: BTreeMap<RefusedFor, u64>,
    pub(crate) stored: [u64; 3],
    pub(crate) assigned: u64,
    /// From submission to the first assignment.
    pub(crate) waited_ms: u64,
    pub(crate) waited: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// What all content takes, when it was looked at last.
    pub(crate) kept_bytes: u64,
    pub(crate) removed_bytes: u64,
    pub(crate) seen_ms: BTreeMap<DeviceName, u64>,
}

impl Counts {
    pub(crate) fn refuse(&mut self, reason: RefusedFor) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// All of it as text. `mono_ms` is now.
    pub(crate) fn text<'a>(
        &self,
        jobs: impl Iterator<Item = &'a JobRecord>,
        is_connected: bool,
        mono_ms: u64,
    ) -> String {
        let mut states: BTreeMap<&str, u64> =
            ["queued", "leased", "done", "dead"].map(|s| (s, 0)).into();
        for record in jobs {
            let state = match record.state {
                State::Queued => "queued",
                State::Leased(_) => "leased",
                State::Done { .. } => "done",
                State::Dead(_) => "dead",
            };
            *states.entry(state).or_default() += 1;
        }
        let mut out = Text::new("undercroft_lend");
        out.family("jobs", NumberKind::Gauge, "Jobs by state.");
        for (state, count) in &states {
            out.number("jobs", &[("state", state)], count);
        }
        out.one(
            "connected",
            NumberKind::Gauge,
            "Whether NATS is there.",
            u8::from(is_connected),
        );
        let there = self.seen_ms.values();
        let there = there.filter(|at| mono_ms.saturating_sub(**at) <= SEEN_MS_MAX);
        out.one(
            "devices",
            NumberKind::Gauge,
            "Devices heard of lately.",
            there.count(),
        );
        out.one(
            "content_kept_bytes",
            NumberKind::Gauge,
            "Bytes of content that is kept.",
            self.kept_bytes,
        );
        self.counters(&mut out);
        out.finish()
    }

    fn counters(&self, out: &mut Text) {
        out.family(
            "refused_total",
            NumberKind::Counter,
            "Messages refused, by reason.",
        );
        for reason in RefusedFor::ALL {
            let count = self.refused.get(&reason).copied().unwrap_or(0);
            out.number("refused_total", &[("reason", reason.as_str())], count);
        }
        out.family(
            "stored_total",
            NumberKind::Counter,
            "Changes asked of the store, by answer.",
        );
        for (how, count) in ["yes", "conflict", "unknown"].iter().zip(self.stored) {
            out.number("stored_total", &[("how", how)], count);
        }
        out.one(
            "assigned_total",
            NumberKind::Counter,
            "Times that jobs were handed out.",
            self.assigned,
        );
        out.family(
            "wait_seconds",
            NumberKind::Summary,
            "From submission to the first assignment.",
        );
        out.number("wait_seconds_sum", &[], seconds(self.waited_ms));
        out.number("wait_seconds_count", &[], self.waited);
        out.family(
            "content_bytes_total",
            NumberKind::Counter,
            "Bytes of content, by direction.",
        );
        for (direction, bytes) in [("in", self.bytes_in), ("out", self.bytes_out)] {
            out.number("content_bytes_total", &[("direction", direction)], bytes);
        }
        out.one(
            "content_removed_bytes_total",
            NumberKind::Counter,
            "Bytes of content that no job needed any more.",
            self.removed_bytes,
        );
    }
}

/// Where numbers are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsAt {
    /// The address.
    pub at: SocketAddr,
    /// Whether it may be another than one of the loopback interface, as nobody is asked who they are.
    pub beyond_loopback: bool,
}

/// Listens where numbers are asked for.
pub(crate) async fn listen(asked_for: MetricsAt) -> io::Result<TcpListener> {
    if !asked_for.at.ip().is_loopback() && !asked_for.beyond_loopback {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "numbers say how much is lent, and are given on the loopback interface alone unless --metrics-beyond-loopback says otherwise",
        ));
    }
    TcpListener::bind(asked_for.at).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_stay_on_this_machine_unless_somebody_says_otherwise() {
        let listens = async |at: &str, beyond_loopback: bool| {
            let at = at.parse().unwrap();
            let asked_for = MetricsAt {
                at,
                beyond_loopback,
            };
            listen(asked_for).await.is_ok()
        };
        assert!(listens("127.0.0.1:0", false).await);
        assert!(!listens("0.0.0.0:0", false).await);
        assert!(listens("0.0.0.0:0", true).await);
    }
}
