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

/// What is counted for each address.
#[derive(Debug, Default)]
pub(super) struct Limits {
    reports: Mutex<BTreeMap<Ipv4Addr, (Instant, u32)>>,
}

impl Limits {
    /// Whether an address may report once more.
    pub(super) fn allow_report(&self, peer: Ipv4Addr) -> bool {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        reports.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
        let (_, count) = reports.entry(peer).or_insert((now, 0));
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
            assert!(limits.allow_report(PEER));
        }
        assert!(!limits.allow_report(PEER));
        assert!(limits.allow_report(Ipv4Addr::new(10, 0, 0, 6)));
    }
}
