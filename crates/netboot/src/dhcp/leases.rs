//! Which machine has which address of the dynamic range. Pure: the time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use undercroft_model::MacAddr;

/// How long an address is kept for a machine that it was offered to: longer than a PXE ROM's
/// retries take together (4 + 8 + 16 + 32 s).
pub const OFFER_HOLD_MS: u64 = 90_000;
/// How long an address is left alone after a client found it in use.
pub const DECLINE_HOLD_MS: u64 = 600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Machine(MacAddr),
    Declined,
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
        let free = |store: &Self, address: u32| {
            !store.by_address.contains_key(&address) && !taken(Ipv4Addr::from_bits(address))
        };
        let address = wanted
            .filter(|address| self.contains(*address))
            .map(Ipv4Addr::to_bits)
            .filter(|address| free(self, *address))
            .or_else(|| self.search(mac, free))?;
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
        }
        self.put(bits, Holder::Machine(mac), now_ms.saturating_add(lease_ms));
        true
    }

    /// A machine found its address in use: nobody gets it for [`DECLINE_HOLD_MS`]. Only the
    /// machine that the address was offered to can say so.
    pub fn decline(&mut self, mac: MacAddr, address: Ipv4Addr, now_ms: u64) {
        let bits = address.to_bits();
        if self.by_mac.get(&mac) == Some(&bits) {
            self.remove(bits);
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
