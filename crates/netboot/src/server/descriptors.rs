//! The process's limit of open descriptors: raised, and reckoned with.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::http::MAX_CONNECTIONS;
use crate::tftp::MAX_TRANSFERS;

/// Descriptors that are left to the rest of the process: its listening sockets and the files that
/// are served, the journal, and pipes of the programs that it runs.
const RESERVED: u64 = 320;

/// How much may be at work at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// HTTP connections.
    pub(crate) connections: usize,
    /// TFTP transfers.
    pub(crate) transfers: usize,
}

/// Raises the soft limit as far as it is needed and may be, and says what fits in it.
pub(crate) fn raise() -> Capacity {
    let wanted = RESERVED + (MAX_CONNECTIONS + MAX_TRANSFERS) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|soft| soft < wanted) {
        // More than the hard limit takes a privilege; without it the hard limit has to do.
        let higher = |maximum: Option<u64>| Rlimit {
            current: Some(maximum.map_or(wanted, |hard| hard.min(wanted))),
            maximum,
        };
        let raised_hard = limit.maximum.map(|hard| hard.max(wanted));
        if setrlimit(Resource::Nofile, higher(raised_hard)).is_err() {
            let _ = setrlimit(Resource::Nofile, higher(limit.maximum));
        }
    }
    Capacity::within(getrlimit(Resource::Nofile).current)
}

impl Capacity {
    /// What fits into a limit: one descriptor for each connection and each transfer, since the
    /// files that they send are open already.
    fn within(soft: Option<u64>) -> Self {
        let all = (MAX_CONNECTIONS + MAX_TRANSFERS) as u64;
        let budget = soft
            .unwrap_or(u64::MAX)
            // Of a limit that is less than twice what is reserved, half is taken.
            .saturating_sub(RESERVED.min(soft.unwrap_or(u64::MAX) / 2))
            .min(all);
        let share = |of: usize| {
            let part = (of as u64).saturating_mul(budget) / all;
            usize::try_from(part).unwrap_or(of).max(1)
        };
        Self {
            connections: share(MAX_CONNECTIONS),
            transfers: share(MAX_TRANSFERS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_work_fits_the_limit() {
        for soft in [64u64, 256, 1024, 1500, 4096, 1 << 20] {
            let capacity = Capacity::within(Some(soft));
            let used = (capacity.connections + capacity.transfers) as u64;
            assert!(
                used + RESERVED.min(soft / 2) <= soft.max(4),
                "{soft}: {capacity:?}"
            );
        }
        let all = Capacity::within(None);
        assert_eq!(
            (all.connections, all.transfers),
            (MAX_CONNECTIONS, MAX_TRANSFERS)
        );
        assert_eq!(Capacity::within(Some(1024)).connections, 469);
    }
}
