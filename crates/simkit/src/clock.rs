//! Virtual time: what happens next, and when.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Where the simulated wall clock starts: 2026-01-05 08:00 UTC, a Monday morning. In
/// milliseconds since the Unix epoch.
pub const WALL_START_MS: u64 = 1_767_600_000_000;

struct Due<T> {
    at_ms: u64,
    seq: u64,
    what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.seq) == (other.at_ms, other.seq)
    }
}
impl<T> Eq for Due<T> {}
impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.seq).cmp(&(other.at_ms, other.seq))
    }
}

/// The events to come, earliest first; events of the same millisecond in the order in which they
/// were scheduled, so that a run depends on nothing but its seed.
pub struct Clock<T> {
    now_ms: u64,
    wall_offset_ms: i64,
    seq: u64,
    heap: BinaryHeap<Reverse<Due<T>>>,
}

impl<T> Default for Clock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clock<T> {
    /// A clock at the start of time, with nothing due.
    pub fn new() -> Self {
        Self {
            now_ms: 0,
            wall_offset_ms: 0,
            seq: 0,
            heap: BinaryHeap::new(),
        }
    }

    /// Milliseconds since the simulation began.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// What a wall clock shows, in milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        (WALL_START_MS + self.now_ms).saturating_add_signed(self.wall_offset_ms)
    }

    /// Sets the wall clock forward or back; what is due stays due.
    pub fn jump_wall(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    /// Schedules an event after a delay.
    pub fn after(&mut self, delay_ms: u64, what: T) {
        self.seq += 1;
        self.heap.push(Reverse(Due {
            at_ms: self.now_ms + delay_ms,
            seq: self.seq,
            what,
        }));
    }

    /// When the next event is due.
    pub fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(due)| due.at_ms)
    }

    /// Goes on to the next event and takes it.
    pub fn pop(&mut self) -> Option<T> {
        let Reverse(due) = self.heap.pop()?;
        self.now_ms = self.now_ms.max(due.at_ms);
        Some(due.what)
    }

    /// Lets time pass up to a moment before the next event.
    pub fn advance_to(&mut self, at_ms: u64) {
        self.now_ms = self.now_ms.max(at_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_ties_in_the_order_of_scheduling() {
        let mut clock = Clock::new();
        for (delay_ms, name) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            clock.after(delay_ms, name);
        }
        let mut order = String::new();
        while let Some(name) = clock.pop() {
            order.push(name);
        }
        assert_eq!((order.as_str(), clock.now_ms()), ("abcd", 5));
    }

    #[test]
    fn the_wall_clock_jumps_and_the_other_does_not() {
        let mut clock: Clock<()> = Clock::new();
        clock.advance_to(1000);
        clock.jump_wall(-3_600_000);
        assert_eq!(clock.now_ms(), 1000);
        assert_eq!(clock.wall_ms(), WALL_START_MS + 1000 - 3_600_000);
    }
}
