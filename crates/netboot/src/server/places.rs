//! How many of a kind may be at work at once, in all and for one address, and who gives way.
//!
//! Everybody on the boot network can open as many connections, and ask for as many files, as they
//! like, and whoever asks over UDP can do so under any address. So a limit alone would let one
//! sender shut all others out. Here a newcomer takes the place of whoever has shown least: first
//! of those that never gave a sign of life, then of the idlest of the address that has most.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// What the holder of a place has shown, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nothing yet: no acknowledgement, no whole request.
    Unproven,
    /// It was served, and keeps its place in case it wants more.
    Idle,
    /// It is being served.
    AtWork,
}

#[derive(Debug)]
struct Holder {
    peer: Ipv4Addr,
    standing: Standing,
    last_sign: Instant,
    leave: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    holders: BTreeMap<u64, Holder>,
    per_peer: BTreeMap<Ipv4Addr, usize>,
    next_id: u64,
}

impl Table {
    fn count(&self, peer: Ipv4Addr) -> usize {
        self.per_peer.get(&peer).copied().unwrap_or(0)
    }

    fn remove(&mut self, id: u64) -> Option<Holder> {
        let holder = self.holders.remove(&id)?;
        if let Some(count) = self.per_peer.get_mut(&holder.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_peer.remove(&holder.peer);
            }
        }
        Some(holder)
    }
}

/// The places of one server.
#[derive(Debug)]
pub(crate) struct Places {
    table: Mutex<Table>,
    max: usize,
    max_per_peer: usize,
}

/// Why a newcomer gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Its address has as many as one may have, all of them at work.
    OfPeer,
    /// All places are taken by others that are at work, and none of them has more than it.
    OfAll,
}

/// A place was found.
#[derive(Debug)]
pub(crate) struct Entered {
    /// The place; it is free again when this is dropped.
    pub(crate) place: Place,
    /// The address that had to give one up for it.
    pub(crate) evicted: Option<Ipv4Addr>,
}

impl Places {
    pub(crate) fn new(max: usize, max_per_peer: usize) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            max: max.max(1),
            max_per_peer: max_per_peer.clamp(1, max.max(1)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer, for which another may have to leave.
    pub(crate) fn enter(self: &Arc<Self>, peer: Ipv4Addr) -> Result<Entered, Full> {
        let mut table = self.lock();
        let own = table.count(peer);
        let victim = if own >= self.max_per_peer {
            let victim = table
                .holders
                .iter()
                .filter(|(_, h)| h.peer == peer && h.standing < Standing::AtWork)
                .min_by_key(|(_, h)| (h.standing, h.last_sign))
                .map(|(id, _)| *id);
            Some(victim.ok_or(Full::OfPeer)?)
        } else if table.holders.len() >= self.max {
            Some(self.victim(&table, own).ok_or(Full::OfAll)?)
        } else {
            None
        };
        let evicted = victim.and_then(|id| table.remove(id)).map(|holder| {
            holder.leave.notify_one();
            holder.peer
        });
        let id = table.next_id;
        table.next_id = table.next_id.wrapping_add(1);
        let leave = Arc::new(Notify::new());
        table.holders.insert(
            id,
            Holder {
                peer,
                standing: Standing::Unproven,
                last_sign: Instant::now(),
                leave: leave.clone(),
            },
        );
        *table.per_peer.entry(peer).or_default() += 1;
        drop(table);
        Ok(Entered {
            place: Place {
                places: self.clone(),
                id,
                leave,
            },
            evicted,
        })
    }

    /// Who gives way to a newcomer whose address has `own` places.
    fn victim(&self, table: &Table, own: usize) -> Option<u64> {
        let by_least = table.holders.iter().min_by_key(|(_, h)| {
            let greed = usize::MAX - table.count(h.peer);
            (h.standing, greed, h.last_sign)
        });
        if let Some((id, holder)) = by_least
            && holder.standing < Standing::AtWork
        {
            return Some(*id);
        }
        table
            .holders
            .iter()
            .filter(|(_, h)| table.count(h.peer) > own + 1)
            .min_by_key(|(_, h)| (usize::MAX - table.count(h.peer), h.last_sign))
            .map(|(id, _)| *id)
    }

    /// How many places an address has.
    pub(crate) fn count(&self, peer: Ipv4Addr) -> usize {
        self.lock().count(peer)
    }
}

/// A place among [`Places`]; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
    leave: Arc<Notify>,
}

impl Place {
    /// Tells that the holder gave a sign of life, and what it does now.
    pub(crate) fn sign(&self, standing: Standing) {
        if let Some(holder) = self.places.lock().holders.get_mut(&self.id) {
            holder.standing = standing;
            holder.last_sign = Instant::now();
        }
    }

    /// What wakes when the holder is to leave.
    pub(crate) fn leave(&self) -> Arc<Notify> {
        self.leave.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, n)
    }

    async fn later() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    #[tokio::test]
    async fn nine_greedy_addresses_never_shut_a_tenth_out() {
        let places = Places::new(64, 16);
        let mut all = Vec::new();
        for n in 1..=9 {
            for _ in 0..16 {
                let entered = places.enter(peer(n)).unwrap();
                entered.place.sign(Standing::AtWork);
                all.push(entered.place);
                later().await;
                if all.len() == 64 {
                    break;
                }
            }
            if all.len() == 64 {
                break;
            }
        }
        for n in 100..104 {
            let entered = places.enter(peer(n)).unwrap();
            assert_eq!(entered.evicted.map(|a| a.octets()[3] < 10), Some(true));
            entered.place.sign(Standing::AtWork);
            all.push(entered.place);
        }
    }

    #[tokio::test]
    async fn what_never_gave_a_sign_goes_first_and_the_oldest_of_it() {
        let places = Places::new(3, 3);
        let worker = places.enter(peer(1)).unwrap().place;
        worker.sign(Standing::AtWork);
        later().await;
        let first = places.enter(peer(2)).unwrap();
        later().await;
        let _second = places.enter(peer(3)).unwrap();
        later().await;
        let third = places.enter(peer(4)).unwrap();
        assert_eq!(third.evicted, Some(peer(2)));
        tokio::time::timeout(Duration::from_secs(1), first.place.leave().notified())
            .await
            .unwrap();
        // The place that was lost is not freed a second time.
        drop(first);
        assert_eq!(places.enter(peer(5)).unwrap().evicted, Some(peer(3)));
    }

    #[tokio::test]
    async fn an_address_displaces_only_its_own_idle_ones() {
        let places = Places::new(8, 2);
        let one = places.enter(peer(1)).unwrap().place;
        let two = places.enter(peer(1)).unwrap().place;
        one.sign(Standing::AtWork);
        two.sign(Standing::Idle);
        assert_eq!(places.enter(peer(1)).unwrap().evicted, Some(peer(1)));
        one.sign(Standing::AtWork);
        let three = places.enter(peer(1)).unwrap().place;
        three.sign(Standing::AtWork);
        assert_eq!(places.enter(peer(1)).unwrap_err(), Full::OfPeer);
        assert_eq!(places.count(peer(1)), 2);
        drop((one, two, three));
        assert_eq!(places.count(peer(1)), 0);
    }

    #[tokio::test]
    async fn who_works_alone_is_not_displaced_by_another() {
        let places = Places::new(2, 2);
        let all: Vec<_> = (1..=2)
            .map(|n| places.enter(peer(n)).unwrap().place)
            .collect();
        for place in &all {
            place.sign(Standing::AtWork);
        }
        assert_eq!(places.enter(peer(3)).unwrap_err(), Full::OfAll);
    }
}
