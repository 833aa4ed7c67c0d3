//! How much one address may ask for at once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::MAX_REPORTS_PER_MINUTE;

/// How often it is looked at how much of an answer a client has taken.
pub(super) const SLOW_WINDOW: Duration = Duration::from_secs(60);
/// The least that a client has to take of an answer in [`SLOW_WINDOW`], in bytes: a hundredth of
/// what the slowest boot ROM takes. Whoever takes less only holds a place.
pub(super) const SLOWEST_BYTES: u64 = 64 << 10;

/// Who reports: an address, and the token that it shows.
type Reporter = (Ipv4Addr, Option<String>);

/// What is counted for each address.
#[derive(Debug, Default)]
pub(super) struct Limits {
    reports: Mutex<BTreeMap<Reporter, (Instant, u32)>>,
}

/// The most pairs of address and token whose reports are counted; past it those without a count
/// share one for each address.
const COUNTED_MAX: usize = 4096;

impl Limits {
    /// Whether an address may report once more with that token.
    pub(super) fn allow_report(&self, peer: Ipv4Addr, token: Option<String>) -> bool {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        reports.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
        let mut key = (peer, token);
        if reports.len() >= COUNTED_MAX && !reports.contains_key(&key) {
            key.1 = None;
        }
        let (_, count) = reports.entry(key).or_insert((now, 0));
        *count = count.saturating_add(1);
        *count <= MAX_REPORTS_PER_MINUTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[tokio::test]
    async fn an_address_reports_so_often_in_a_minute() {
        let limits = Limits::default();
        for _ in 0..MAX_REPORTS_PER_MINUTE {
            assert!(limits.allow_report(PEER, None));
        }
        assert!(!limits.allow_report(PEER, None));
        assert!(limits.allow_report(Ipv4Addr::new(10, 0, 0, 6), None));
        // A machine's own token has a count of its own, also under a flooded address.
        for token in 0..COUNTED_MAX * 2 {
            limits.allow_report(PEER, Some(token.to_string()));
        }
        assert!(limits.reports.lock().unwrap().len() <= COUNTED_MAX + 1);
        assert!(limits.allow_report(PEER, Some("0".into())));
    }
}
