//! How much one address may ask for at once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::{MAX_CONNECTIONS_PER_ADDRESS, MAX_REPORTS_PER_MINUTE};

/// What is counted for each address.
#[derive(Debug, Default)]
pub(super) struct Limits {
    connections: Mutex<BTreeMap<Ipv4Addr, usize>>,
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

/// A connection's place among those of its address.
pub(super) struct Admission {
    limits: Arc<Limits>,
    peer: Ipv4Addr,
}

impl Admission {
    pub(super) fn new(limits: &Arc<Limits>, peer: Ipv4Addr) -> Option<Self> {
        let mut all = limits
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(peer).or_default();
        if *count >= MAX_CONNECTIONS_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Self {
            limits: limits.clone(),
            peer,
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut all = self
            .limits
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn an_address_has_so_many_connections_and_gets_them_back() {
        let limits = Arc::new(Limits::default());
        let all: Vec<_> = (0..MAX_CONNECTIONS_PER_ADDRESS)
            .map(|_| Admission::new(&limits, PEER).unwrap())
            .collect();
        assert!(Admission::new(&limits, PEER).is_none());
        assert!(Admission::new(&limits, Ipv4Addr::new(10, 0, 0, 6)).is_some());
        drop(all);
        assert!(Admission::new(&limits, PEER).is_some());
    }

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
