//! Which machine has which address of the dynamic range. Pure: the time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use undercroft_model::MacAddr;

/// How long an address is kept for a machine that it was offered to: longer than a PXE ROM's
/// retries take together (4 + 8 + 16 + 32 s).
pub const OFFER_HOLD_MS: u64 = 90_000;
/// How long an address is left alone after a client found it in use.
pub const DECLINE_HOLD_MS: u64 = 600_000;
/// How long an address is left alone after a probe found it in use: longer than the kernel keeps
/// a neighbour that is gone, so that the next probe tells the truth.
pub const IN_USE_HOLD_MS: u64 = 60_000;
/// How long an address counts as free after a probe.
pub const PROBED_FOR_MS: u64 = 300_000;
/// How many addresses are kept probed, so that an offer waits for no probe.
pub const PROBED_POOL: usize = 32;
/// How long a machine that declined its fixed address gets no offer, in milliseconds: long enough
/// to find out who holds the address, and short enough that firmware is still asking afterwards.
pub const FIXED_PAUSE_MS: u64 = 20_000;
/// How long after that pause another DECLINE makes none, so that forged ones keep no machine from
/// its address.
pub const FIXED_GRACE_MS: u64 = 60_000;
/// The most addresses that a client would like and that wait to be probed for it.
const MAX_WISHES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Machine(MacAddr),
    /// Somebody has it who doesn't have it from us.
    Declined,
}

/// What has changed and is to be kept across a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseChange {
    /// The address.
    pub address: Ipv4Addr,
    /// Who has it, and until when in milliseconds; `None` when nobody has it any more.
    pub lease: Option<(MacAddr, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    holder: Holder,
    expires_ms: u64,
}

/// The leases of a dynamic range; never more than the range has addresses.
///
/// They are keyed by Ethernet address and not by client identifier (option 61): a PXE ROM, iPXE
/// and the system that follows each send an identifier of their own, and the machine is to keep
/// one address throughout.
#[derive(Debug, Clone)]
pub struct LeaseStore {
    first: u32,
    last: u32,
    by_address: BTreeMap<u32, Lease>,
    by_mac: BTreeMap<MacAddr, u32>,
    expiry: BTreeSet<(u64, u32)>,
    /// Addresses are probed before they are offered.
    probing: bool,
    /// Addresses that were probed and are free, and until when that counts.
    probed: BTreeMap<u32, u64>,
    /// Addresses to be probed next.
    wishes: BTreeSet<u32>,
    /// Fixed addresses that another machine holds, which, and until when that counts.
    held: BTreeMap<Ipv4Addr, (MacAddr, u64)>,
    /// Machines that have declined their fixed address: until when there is a pause, and until
    /// when another DECLINE makes none.
    pauses: BTreeMap<MacAddr, (u64, u64)>,
    changes: Option<Vec<LeaseChange>>,
}

impl LeaseStore {
    /// An empty store for the addresses `first` to `last`, both included.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Self {
        Self {
            first: first.to_bits(),
            last: last.to_bits(),
            by_address: BTreeMap::new(),
            by_mac: BTreeMap::new(),
            expiry: BTreeSet::new(),
            probing: false,
            probed: BTreeMap::new(),
            wishes: BTreeSet::new(),
            held: BTreeMap::new(),
            pauses: BTreeMap::new(),
            changes: None,
        }
    }

    /// The same store, which from now on offers only what was probed; see [`Self::to_probe`].
    #[must_use]
    pub fn probing(mut self) -> Self {
        self.probing = true;
        self
    }

    /// The same store, which from now on records what is to be kept; see [`Self::take_changes`].
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.changes = Some(Vec::new());
        self
    }

    /// What has changed since the last time.
    pub fn take_changes(&mut self) -> Vec<LeaseChange> {
        self.changes
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Takes a lease of an earlier run up again, if it still holds.
    pub fn restore(&mut self, mac: MacAddr, address: Ipv4Addr, expires_ms: u64, now_ms: u64) {
        let bits = address.to_bits();
        if !self.contains(address) || expires_ms <= now_ms {
            return;
        }
        if let Some(other) = self.by_mac.get(&mac).copied() {
            self.remove(other);
        }
        self.remove(bits);
        self.put(bits, Holder::Machine(mac), expires_ms);
    }

    /// Nobody has an address any more.
    pub fn forget(&mut self, address: Ipv4Addr) {
        self.remove(address.to_bits());
    }

    /// All leases that hold.
    pub fn leases(&self, now_ms: u64) -> Vec<LeaseChange> {
        self.by_address
            .iter()
            .filter(|(_, lease)| lease.expires_ms > now_ms)
            .filter_map(|(address, lease)| match lease.holder {
                Holder::Machine(mac) => Some(LeaseChange {
                    address: Ipv4Addr::from_bits(*address),
                    lease: Some((mac, lease.expires_ms)),
                }),
                Holder::Declined => None,
            })
            .collect()
    }

    /// The addresses that are to be probed now, at most [`PROBED_POOL`]: those that somebody asked
    /// for first, then as many as keep the pool full.
    pub fn to_probe(&mut self, taken: impl Fn(Ipv4Addr) -> bool, now_ms: u64) -> Vec<Ipv4Addr> {
        self.expire(now_ms);
        self.probed.retain(|_, until_ms| *until_ms > now_ms);
        self.pauses.retain(|_, (_, grace_ms)| *grace_ms > now_ms);
        // A fixed address that was held is looked at again shortly before that is forgotten.
        let soon = now_ms.saturating_add(IN_USE_HOLD_MS / 6);
        let held = self
            .held
            .iter()
            .filter(|(_, (_, until_ms))| *until_ms <= soon);
        let mut all: Vec<Ipv4Addr> = held.map(|(address, _)| *address).collect();
        self.held.retain(|_, (_, until_ms)| *until_ms > now_ms);
        all.extend(
            std::mem::take(&mut self.wishes)
                .into_iter()
                .map(Ipv4Addr::from_bits),
        );
        if self.probing && self.first <= self.last {
            let missing = PROBED_POOL.saturating_sub(self.probed.len());
            let more = (self.first..=self.last)
                .filter(|bits| {
                    !self.by_address.contains_key(bits) && !self.probed.contains_key(bits)
                })
                .map(Ipv4Addr::from_bits)
                .filter(|address| !taken(*address) && !all.contains(address))
                .take(missing);
            let more: Vec<_> = more.collect();
            all.extend(more);
        }
        all.truncate(PROBED_POOL);
        all
    }

    /// What a probe found: who holds an address, or that nobody does. `owner` names the machine
    /// whose fixed address it is, so that its own answer isn't taken for another's. Whether it is
    /// news that another machine holds the address.
    pub fn probed(
        &mut self,
        address: Ipv4Addr,
        by: Option<MacAddr>,
        owner: impl Fn(MacAddr) -> bool,
        is_fixed: bool,
        now_ms: u64,
    ) -> bool {
        let bits = address.to_bits();
        let Some(by) = by.filter(|mac| !owner(*mac)) else {
            self.held.remove(&address);
            if self.contains(address) {
                self.probed
                    .insert(bits, now_ms.saturating_add(PROBED_FOR_MS));
            }
            return false;
        };
        self.probed.remove(&bits);
        if is_fixed {
            let until_ms = now_ms.saturating_add(IN_USE_HOLD_MS);
            return self
                .held
                .insert(address, (by, until_ms))
                .map(|(mac, _)| mac)
                != Some(by);
        }
        if self.contains(address) && !self.by_address.contains_key(&bits) {
            self.put(
                bits,
                Holder::Declined,
                now_ms.saturating_add(IN_USE_HOLD_MS),
            );
            return true;
        }
        false
    }

    /// A machine found its fixed address in use. The address is probed, and until that is done
    /// the machine gets no offer; a machine that declines again soon after gets one all the same,
    /// for anybody can send a DECLINE in its name.
    pub fn decline_fixed(&mut self, mac: MacAddr, address: Ipv4Addr, now_ms: u64) {
        self.wish(address);
        let graced = self
            .pauses
            .get(&mac)
            .is_some_and(|(_, grace_ms)| *grace_ms > now_ms);
        if !graced {
            let pause_ms = now_ms.saturating_add(FIXED_PAUSE_MS);
            let grace_ms = pause_ms.saturating_add(FIXED_GRACE_MS);
            self.pauses.insert(mac, (pause_ms, grace_ms));
        }
    }

    /// Whether a fixed address is not to be offered at present: another machine holds it, or its
    /// own machine has just declined it.
    pub fn fixed_rests(&self, mac: MacAddr, address: Ipv4Addr, now_ms: u64) -> bool {
        let held = self
            .held
            .get(&address)
            .is_some_and(|(_, until_ms)| *until_ms > now_ms);
        let paused = self
            .pauses
            .get(&mac)
            .is_some_and(|(pause_ms, _)| *pause_ms > now_ms);
        held || paused
    }

    fn wish(&mut self, address: Ipv4Addr) {
        if self.wishes.len() < MAX_WISHES {
            self.wishes.insert(address.to_bits());
        }
    }

    fn record(&mut self, address: u32, lease: Option<(MacAddr, u64)>) {
        if let Some(changes) = &mut self.changes {
            let address = Ipv4Addr::from_bits(address);
            changes.push(LeaseChange { address, lease });
        }
    }

    /// A store that has no addresses to give.
    pub fn empty() -> Self {
        Self::new(Ipv4Addr::from_bits(1), Ipv4Addr::from_bits(0))
    }

    /// Whether an address lies in the range.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address.to_bits())
    }

    /// How many addresses are offered, leased or declined.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether no address is in use.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// The address that a machine has or was offered.
    pub fn address_of(&self, mac: MacAddr, now_ms: u64) -> Option<Ipv4Addr> {
        let address = self.by_mac.get(&mac)?;
        let lease = self.by_address.get(address)?;
        (lease.expires_ms > now_ms).then(|| Ipv4Addr::from_bits(*address))
    }

    /// Finds an address for a machine and keeps it for [`OFFER_HOLD_MS`]: the one it has, else
    /// the one it would like, else one that hangs on its Ethernet address, so that it gets the
    /// same one again after we have forgotten it. `taken` names addresses that are not to be
    /// given: the fixed ones. `None` when no address is free.
    pub fn offer(
        &mut self,
        mac: MacAddr,
        wanted: Option<Ipv4Addr>,
        taken: impl Fn(Ipv4Addr) -> bool,
        now_ms: u64,
    ) -> Option<Ipv4Addr> {
        self.expire(now_ms);
        if let Some(address) = self.by_mac.get(&mac).copied() {
            if !taken(Ipv4Addr::from_bits(address)) {
                let until = self
                    .by_address
                    .get(&address)
                    .map_or(0, |lease| lease.expires_ms)
                    .max(now_ms.saturating_add(OFFER_HOLD_MS));
                self.put(address, Holder::Machine(mac), until);
                return Some(Ipv4Addr::from_bits(address));
            }
            self.remove(address);
        }
        let unheld = |store: &Self, address: u32| {
            !store.by_address.contains_key(&address) && !taken(Ipv4Addr::from_bits(address))
        };
        let free = |store: &Self, address: u32| {
            let probed = store
                .probed
                .get(&address)
                .is_some_and(|until| *until > now_ms);
            unheld(store, address) && (!store.probing || probed)
        };
        let wanted = wanted
            .filter(|address| self.contains(*address))
            .map(Ipv4Addr::to_bits)
            .filter(|address| unheld(self, *address));
        let ready = wanted.filter(|address| free(self, *address));
        if let (Some(address), None) = (wanted, ready) {
            self.wish(Ipv4Addr::from_bits(address));
        }
        let address = ready.or_else(|| self.search(mac, free))?;
        self.probed.remove(&address);
        self.put(
            address,
            Holder::Machine(mac),
            now_ms.saturating_add(OFFER_HOLD_MS),
        );
        Some(Ipv4Addr::from_bits(address))
    }

    fn search(&self, mac: MacAddr, free: impl Fn(&Self, u32) -> bool) -> Option<u32> {
        let count = u64::from(self.last.checked_sub(self.first)?) + 1;
        if u64::try_from(self.by_address.len()).is_ok_and(|used| used >= count) {
            return None;
        }
        let start = fnv1a(&mac.0) % count;
        (0..count)
            .map(|step| (start + step) % count)
            .filter_map(|offset| u32::try_from(offset).ok())
            .map(|offset| self.first + offset)
            .find(|address| free(self, *address))
    }

    /// Leases an address to a machine until `now_ms + lease_ms`. `false` when it is outside the
    /// range or another machine's.
    pub fn bind(&mut self, mac: MacAddr, address: Ipv4Addr, now_ms: u64, lease_ms: u64) -> bool {
        self.expire(now_ms);
        if !self.contains(address) {
            return false;
        }
        let bits = address.to_bits();
        match self.by_address.get(&bits).map(|lease| lease.holder) {
            Some(Holder::Machine(holder)) if holder != mac => return false,
            Some(Holder::Declined) => return false,
            _ => {}
        }
        if let Some(other) = self.by_mac.get(&mac).copied()
            && other != bits
        {
            self.remove(other);
            self.record(other, None);
        }
        let expires_ms = now_ms.saturating_add(lease_ms);
        self.put(bits, Holder::Machine(mac), expires_ms);
        self.probed.remove(&bits);
        self.record(bits, Some((mac, expires_ms)));
        true
    }

    /// A machine found its address in use: nobody gets it for [`DECLINE_HOLD_MS`]. Only the
    /// machine that the address was offered to can say so.
    pub fn decline(&mut self, mac: MacAddr, address: Ipv4Addr, now_ms: u64) {
        let bits = address.to_bits();
        if self.by_mac.get(&mac) == Some(&bits) {
            self.remove(bits);
            self.record(bits, None);
            self.put(
                bits,
                Holder::Declined,
                now_ms.saturating_add(DECLINE_HOLD_MS),
            );
        }
    }

    /// A machine gives its address back, or has chosen another server.
    pub fn release(&mut self, mac: MacAddr) {
        if let Some(address) = self.by_mac.get(&mac).copied() {
            self.remove(address);
            self.record(address, None);
        }
    }

    fn put(&mut self, address: u32, holder: Holder, expires_ms: u64) {
        let lease = Lease { holder, expires_ms };
        if let Some(old) = self.by_address.insert(address, lease) {
            self.expiry.remove(&(old.expires_ms, address));
        }
        self.expiry.insert((expires_ms, address));
        if let Holder::Machine(mac) = holder {
            self.by_mac.insert(mac, address);
        }
    }

    fn remove(&mut self, address: u32) {
        if let Some(lease) = self.by_address.remove(&address) {
            self.expiry.remove(&(lease.expires_ms, address));
            if let Holder::Machine(mac) = lease.holder
                && self.by_mac.get(&mac) == Some(&address)
            {
                self.by_mac.remove(&mac);
            }
        }
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((expires_ms, address)) = self.expiry.first().copied() {
            if expires_ms > now_ms {
                break;
            }
            self.expiry.remove(&(expires_ms, address));
            self.remove(address);
        }
    }
}

/// The FNV-1a hash: spreads Ethernet addresses, which differ in their last octets most, over a
/// range; nothing relies on it being hard to guess.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
    const LAST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 13);

    fn mac(n: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, n])
    }

    fn nobody(_: Ipv4Addr) -> bool {
        false
    }

    #[test]
    fn a_full_range_gives_nothing_until_something_expires() {
        let mut store = LeaseStore::new(FIRST, LAST);
        let given: BTreeSet<_> = (0..4)
            .map(|n| store.offer(mac(n), None, nobody, 0).unwrap())
            .collect();
        assert_eq!(given.len(), 4);
        assert_eq!(store.offer(mac(9), None, nobody, 0), None);
        assert!(store.offer(mac(9), None, nobody, OFFER_HOLD_MS).is_some());
    }

    #[test]
    fn fixed_addresses_are_never_given() {
        let mut store = LeaseStore::new(FIRST, LAST);
        for n in 0..4 {
            let address = store.offer(mac(n), Some(FIRST), |a| a == FIRST, 0);
            assert_ne!(address, Some(FIRST));
        }
    }

    #[test]
    fn a_declined_address_rests() {
        let mut store = LeaseStore::new(FIRST, LAST);
        let address = store.offer(mac(1), Some(FIRST), nobody, 0).unwrap();
        store.decline(mac(2), address, 0);
        assert_eq!(
            store.address_of(mac(1), 0),
            Some(address),
            "another's word counts for nothing"
        );
        store.decline(mac(1), address, 0);
        assert_ne!(store.offer(mac(1), Some(address), nobody, 1), Some(address));
        assert!(!store.bind(mac(1), address, 1, 1000));
        assert!(store.bind(mac(1), address, DECLINE_HOLD_MS, 1000));
    }

    #[test]
    fn a_probing_store_offers_only_what_was_probed() {
        let mut store = LeaseStore::new(FIRST, LAST).probing();
        assert_eq!(store.offer(mac(1), Some(LAST), nobody, 0), None);
        let asked = store.to_probe(nobody, 0);
        assert_eq!(
            asked.first(),
            Some(&LAST),
            "what a client would like is probed first"
        );
        assert_eq!(asked.len(), 4);
        for address in asked {
            let by = (address == FIRST).then(|| mac(77));
            assert_eq!(
                store.probed(address, by, |_| false, false, 0),
                address == FIRST
            );
        }
        assert_eq!(store.offer(mac(1), Some(LAST), nobody, 1), Some(LAST));
        for n in 2..9 {
            assert_ne!(store.offer(mac(n), Some(FIRST), nobody, 1), Some(FIRST));
        }
        assert!(!store.bind(mac(9), FIRST, 1, 1000));
        let again = store.to_probe(nobody, IN_USE_HOLD_MS);
        assert_eq!(again, [FIRST], "who was there may be gone");
    }

    #[test]
    fn leases_come_back_after_a_restart() {
        let mut store = LeaseStore::new(FIRST, LAST).recording();
        let address = store.offer(mac(1), None, nobody, 0).unwrap();
        assert!(store.take_changes().is_empty(), "an offer is no lease");
        assert!(store.bind(mac(1), address, 0, 1000));
        let changes = store.take_changes();
        assert_eq!(changes, store.leases(1));
        let mut next = LeaseStore::new(FIRST, LAST);
        for change in changes {
            let (mac, expires_ms) = change.lease.unwrap();
            next.restore(mac, change.address, expires_ms, 500);
        }
        assert_eq!(next.address_of(mac(1), 500), Some(address));
        assert_ne!(
            next.offer(mac(2), Some(address), nobody, 500),
            Some(address)
        );
        store.release(mac(1));
        assert_eq!(
            store.take_changes(),
            [LeaseChange {
                address,
                lease: None
            }]
        );
    }

    #[test]
    fn a_declined_fixed_address_rests_but_forgeries_keep_no_machine_away() {
        let fixed = Ipv4Addr::new(10, 0, 0, 99);
        let mut store = LeaseStore::new(FIRST, LAST);
        let mut answered_ms = 0;
        for now in (0..800_000).step_by(1000) {
            store.decline_fixed(mac(1), fixed, now);
            let _ = store.to_probe(nobody, now);
            answered_ms += if store.fixed_rests(mac(1), fixed, now) {
                0
            } else {
                1000
            };
        }
        assert!(answered_ms >= 600_000, "{answered_ms}");
        // Who answers for the address counts, as long as the probes see it.
        assert!(store.probed(fixed, Some(mac(7)), |m| m == mac(1), true, 800_000));
        assert!(!store.probed(fixed, Some(mac(7)), |m| m == mac(1), true, 810_000));
        assert!(store.fixed_rests(mac(1), fixed, 865_000));
        assert!(store.to_probe(nobody, 865_000).contains(&fixed));
        store.probed(fixed, Some(mac(1)), |m| m == mac(1), true, 1_000_000);
        assert!(!store.fixed_rests(mac(1), fixed, 1_000_000));
    }

    proptest! {
        #[test]
        fn no_address_is_ever_two_machines(steps in prop::collection::vec((0u8..8, 0u8..5, 0u64..200_000), 1..200)) {
            let mut store = LeaseStore::new(FIRST, LAST);
            let mut now = 0;
            for (machine, what, wait) in steps {
                now += wait;
                match what {
                    0 | 1 => { store.offer(mac(machine), None, nobody, now); }
                    2 => if let Some(a) = store.address_of(mac(machine), now) {
                        prop_assert!(store.bind(mac(machine), a, now, 3_600_000));
                    },
                    3 => store.release(mac(machine)),
                    _ => if let Some(a) = store.address_of(mac(machine), now) {
                        store.decline(mac(machine), a, now);
                    },
                }
                let held: Vec<_> = (0..8).filter_map(|m| store.address_of(mac(m), now)).collect();
                let distinct: BTreeSet<_> = held.iter().collect();
                prop_assert_eq!(held.len(), distinct.len());
                prop_assert!(store.len() <= 4);
                prop_assert_eq!(store.expiry.len(), store.by_address.len());
            }
        }
    }
}
