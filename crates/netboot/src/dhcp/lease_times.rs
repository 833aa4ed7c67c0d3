//! When a lease, a hold and a pause begin and end, to the millisecond.

use std::net::Ipv4Addr;

use undercroft_model::MacAddr;

use super::leases::{
    DECLINE_HOLD_MS, FIXED_GRACE_MS, FIXED_PAUSE_MS, IN_USE_HOLD_MS, LeaseStore, OFFER_HOLD_MS,
    PROBED_FOR_MS, PROBED_POOL,
};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const LAST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 13);
const FIXED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

fn nobody(_: Ipv4Addr) -> bool {
    false
}

#[test]
fn a_lease_holds_until_its_end_and_no_longer() {
    let mut store = LeaseStore::new(FIRST, LAST);
    assert!(store.is_empty());
    assert!(store.bind(mac(1), FIRST, 1000, 500));
    assert_eq!((store.len(), store.is_empty()), (1, false));
    assert_eq!(store.address_of(mac(1), 1499), Some(FIRST));
    assert_eq!(
        store.address_of(mac(1), 1500),
        None,
        "its end is no part of it"
    );
    assert_eq!(store.leases(1499).len(), 1);
    assert_eq!(store.leases(1500).len(), 0);
    assert!(!store.clone().bind(mac(2), FIRST, 1499, 500));
    assert!(store.clone().bind(mac(2), FIRST, 1500, 500));
    // An offer holds for its time, and renews no less than a lease that lasts longer.
    let mut store = LeaseStore::new(FIRST, LAST);
    let address = store.offer(mac(1), None, nobody, 0).unwrap();
    assert_eq!(store.address_of(mac(1), OFFER_HOLD_MS - 1), Some(address));
    assert_eq!(store.address_of(mac(1), OFFER_HOLD_MS), None);
    let long = 10 * OFFER_HOLD_MS;
    assert!(store.bind(mac(1), address, 0, long));
    assert_eq!(store.offer(mac(1), None, nobody, 5), Some(address));
    assert_eq!(store.address_of(mac(1), long - 1), Some(address));
    // A lease of an earlier run comes back where it still holds.
    for (expires_ms, holds) in [(99, false), (100, false), (101, true)] {
        let mut next = LeaseStore::new(FIRST, LAST);
        next.restore(mac(1), FIRST, expires_ms, 100);
        assert_eq!(
            next.address_of(mac(1), 100).is_some(),
            holds,
            "{expires_ms}"
        );
    }
    let mut next = LeaseStore::new(FIRST, LAST);
    next.restore(mac(1), FIXED, 101, 100);
    assert!(next.is_empty(), "it is of another range");
    next.restore(mac(1), FIRST, 200, 100);
    next.restore(mac(1), LAST, 200, 100);
    assert_eq!((next.len(), next.address_of(mac(1), 100)), (1, Some(LAST)));
    next.restore(mac(2), LAST, 200, 100);
    assert_eq!((next.len(), next.address_of(mac(1), 100)), (1, None));
    next.forget(LAST);
    assert!(next.is_empty());
}

#[test]
fn the_range_is_all_of_it_and_nothing_else() {
    let store = LeaseStore::new(FIRST, LAST);
    for last in 0..=255 {
        let address = Ipv4Addr::new(10, 0, 0, last);
        assert_eq!(
            store.contains(address),
            (10..=13).contains(&last),
            "{address}"
        );
    }
    let mut empty = LeaseStore::empty();
    assert_eq!(empty.offer(mac(1), Some(FIRST), nobody, 0), None);
    assert!(!empty.bind(mac(1), FIRST, 0, 1000));
    let mut one = LeaseStore::new(FIRST, FIRST);
    assert_eq!(one.offer(mac(1), None, nobody, 0), Some(FIRST));
    assert_eq!(one.offer(mac(2), None, nobody, 0), None);
    // What is taken is given to nobody, also not to who had it.
    let mut store = LeaseStore::new(FIRST, LAST);
    assert_eq!(store.offer(mac(1), Some(LAST), nobody, 0), Some(LAST));
    let other = store.offer(mac(1), Some(LAST), |address| address == LAST, 0);
    assert!(other.is_some_and(|address| address != LAST), "{other:?}");
    assert_eq!(store.len(), 1);
    // The same machine gets the same address again after it was forgotten, others get others.
    let first = |n: u8| {
        LeaseStore::new([10, 0, 0, 1].into(), [10, 0, 0, 250].into()).offer(mac(n), None, nobody, 0)
    };
    let mut all: Vec<_> = (0..50).map(first).collect();
    assert_eq!(all, (0..50).map(first).collect::<Vec<_>>());
    all.sort_unstable();
    all.dedup();
    assert!(all.len() > 25, "{} of 50", all.len());
}

#[test]
fn one_machine_has_one_address() {
    let mut store = LeaseStore::new(FIRST, LAST).recording();
    assert!(store.bind(mac(1), FIRST, 0, 1000));
    assert!(store.bind(mac(1), FIRST, 10, 1000));
    assert_eq!(store.take_changes().len(), 2, "renewed, not given up");
    assert!(store.bind(mac(1), LAST, 20, 1000));
    let changes = store.take_changes();
    assert_eq!(changes.len(), 2);
    assert_eq!((changes[0].address, changes[0].lease), (FIRST, None));
    assert_eq!(
        (changes[1].address, changes[1].lease),
        (LAST, Some((mac(1), 1020)))
    );
    assert_eq!((store.len(), store.address_of(mac(1), 20)), (1, Some(LAST)));
    assert!(!store.bind(mac(2), LAST, 30, 1000) && !store.bind(mac(2), FIXED, 30, 1000));
    store.release(mac(2));
    assert_eq!(store.len(), 1);
    store.decline(mac(1), LAST, 40);
    let changes = store.take_changes();
    assert_eq!((changes[0].address, changes[0].lease), (LAST, None));
    assert!(store.leases(40).is_empty(), "nobody has it");
    assert!(!store.bind(mac(1), LAST, 40 + DECLINE_HOLD_MS - 1, 1000));
    assert!(store.bind(mac(1), LAST, 40 + DECLINE_HOLD_MS, 1000));
}

#[test]
fn a_probe_counts_for_its_time() {
    let mut store = LeaseStore::new(FIRST, LAST).probing();
    assert!(!store.probed(FIRST, None, |_| false, false, 0));
    let offer = |now_ms| store.clone().offer(mac(1), Some(FIRST), nobody, now_ms);
    assert_eq!(offer(0), Some(FIRST));
    assert_eq!(offer(PROBED_FOR_MS - 1), Some(FIRST));
    assert_eq!(offer(PROBED_FOR_MS), None);
    let probes = |now_ms| store.clone().to_probe(nobody, now_ms).contains(&FIRST);
    assert!(!probes(PROBED_FOR_MS - 1) && probes(PROBED_FOR_MS));
    // Once it is given it has to be probed again for the next.
    assert_eq!(store.offer(mac(1), None, nobody, 0), Some(FIRST));
    store.release(mac(1));
    assert_eq!(store.offer(mac(2), None, nobody, 0), None);
    // One that is taken or given isn't probed, and what is outside of the range isn't kept.
    assert!(store.bind(mac(1), LAST, 0, 1000));
    let asked = store.to_probe(|address| address == FIRST, 0);
    assert_eq!(asked, [[10, 0, 0, 11], [10, 0, 0, 12]].map(Ipv4Addr::from));
    assert!(
        !store.probed(LAST, Some(mac(7)), |_| false, false, 0),
        "its holder answers"
    );
    assert_eq!(store.address_of(mac(1), 0), Some(LAST));
    assert!(!store.probed(FIXED, Some(mac(7)), |_| false, false, 0));
    // Somebody has it: nobody else gets it until that is forgotten.
    assert!(store.probed(FIRST, Some(mac(7)), |_| false, false, 0));
    assert!(!store.clone().bind(mac(2), FIRST, IN_USE_HOLD_MS - 1, 1000));
    assert!(store.bind(mac(2), FIRST, IN_USE_HOLD_MS, 1000));
    // No more is probed at once than the pool holds, and as much as it lacks.
    let mut wide = LeaseStore::new([10, 1, 0, 1].into(), [10, 1, 0, 250].into()).probing();
    let asked = wide.to_probe(nobody, 0);
    assert_eq!(asked.len(), PROBED_POOL);
    for address in asked.iter().take(5) {
        wide.probed(*address, None, |_| false, false, 0);
    }
    assert_eq!(wide.to_probe(nobody, 0).len(), PROBED_POOL - 5);
    let mut plain = LeaseStore::new(FIRST, LAST);
    assert!(
        plain.to_probe(nobody, 0).is_empty(),
        "nobody asked for probes"
    );
}

#[test]
fn a_declined_fixed_address_pauses_once() {
    let mut store = LeaseStore::new(FIRST, LAST);
    assert!(!store.fixed_rests(mac(1), FIXED, 0));
    store.decline_fixed(mac(1), FIXED, 0);
    assert_eq!(store.to_probe(nobody, 0), [FIXED]);
    assert!(store.to_probe(nobody, 0).is_empty(), "once");
    assert!(store.fixed_rests(mac(1), FIXED, FIXED_PAUSE_MS - 1));
    assert!(
        !store.fixed_rests(mac(2), FIXED, 0),
        "it is another machine's pause"
    );
    assert!(!store.fixed_rests(mac(1), FIXED, FIXED_PAUSE_MS));
    let grace_ms = FIXED_PAUSE_MS + FIXED_GRACE_MS;
    store.decline_fixed(mac(1), FIXED, grace_ms - 1);
    assert!(!store.fixed_rests(mac(1), FIXED, grace_ms - 1));
    store.decline_fixed(mac(1), FIXED, grace_ms);
    assert!(store.fixed_rests(mac(1), FIXED, grace_ms));
    // Another machine that holds it is news once, and counts for its time.
    let mut store = LeaseStore::new(FIRST, LAST);
    let own = |m: MacAddr| m == mac(1);
    assert!(
        !store.probed(FIXED, Some(mac(1)), own, true, 0),
        "its own answer"
    );
    assert!(store.probed(FIXED, Some(mac(7)), own, true, 0));
    assert!(!store.probed(FIXED, Some(mac(7)), own, true, 0));
    assert!(
        store.probed(FIXED, Some(mac(8)), own, true, 0),
        "another one"
    );
    assert!(store.fixed_rests(mac(1), FIXED, IN_USE_HOLD_MS - 1));
    assert!(!store.fixed_rests(mac(1), FIXED, IN_USE_HOLD_MS));
    let soon = IN_USE_HOLD_MS - IN_USE_HOLD_MS / 6;
    assert!(store.to_probe(nobody, soon - 1).is_empty());
    assert_eq!(store.to_probe(nobody, soon), [FIXED]);
    assert!(!store.probed(FIXED, None, own, true, soon));
    assert!(!store.fixed_rests(mac(1), FIXED, soon));
    // As many wishes are kept as there is room for.
    for last in 0..200 {
        store.decline_fixed(mac(last), Ipv4Addr::new(10, 0, 9, last), 0);
    }
    assert_eq!(store.to_probe(nobody, 0).len(), PROBED_POOL);
    assert!(store.to_probe(nobody, 0).is_empty());
}
