//! Any text is a file of leases: what is taken up lies in the range, is one machine's, and ends.

#![no_main]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use undercroft_netboot::dhcp::{LeaseStore, restore_leases};

const NOW_MS: u64 = 1_000_000;
const LEASE_MS: u64 = 3_600_000;

fuzz_target!(|text: &str| {
    let (first, last) = (Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 19));
    let mut store = LeaseStore::new(first, last);
    restore_leases(text, &mut store, NOW_MS, LEASE_MS);
    let leases = store.leases(NOW_MS);
    assert_eq!(leases.len(), store.len());
    let mut machines = BTreeSet::new();
    for lease in leases {
        let Some((mac, expires_ms)) = lease.lease else {
            panic!("{} is nobody's", lease.address);
        };
        assert!(store.contains(lease.address) && machines.insert(mac));
        assert!(expires_ms > NOW_MS && expires_ms <= NOW_MS + LEASE_MS);
        assert_eq!(store.address_of(mac, NOW_MS), Some(lease.address));
    }
});
