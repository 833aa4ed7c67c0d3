//! An uplink, shared fairly by everything that is sent at the same time.

use std::collections::{BTreeMap, BTreeSet};

/// A transfer on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId(u64);

/// Processor sharing in integers: all flows run at the same rate, the least of what one machine
/// takes and of an equal part of the uplink.
///
/// `served` counts the bytes that a flow which had been there from the start would have got. A
/// flow that joins at `served = s` with `b` bytes to go is through when `served` is `s + b`, so
/// that no flow needs to be touched when another joins or leaves: each costs O(log n).
#[derive(Debug)]
pub struct Link {
    uplink_bytes_per_ms: u64,
    host_bytes_per_ms: u64,
    served: u64,
    updated_ms: u64,
    next_id: u64,
    goals: BTreeSet<(u64, FlowId)>,
    flows: BTreeMap<FlowId, u64>,
    busy_ms: u64,
    shared_ms: u64,
}

impl Link {
    /// A link that nothing is sent on: what it carries in all, and what one machine takes, in
    /// bytes per millisecond.
    pub fn new(uplink_bytes_per_ms: u64, host_bytes_per_ms: u64) -> Self {
        Self {
            uplink_bytes_per_ms: uplink_bytes_per_ms.max(1),
            host_bytes_per_ms: host_bytes_per_ms.max(1),
            served: 0,
            updated_ms: 0,
            next_id: 0,
            goals: BTreeSet::new(),
            flows: BTreeMap::new(),
            busy_ms: 0,
            shared_ms: 0,
        }
    }

    /// Bytes per millisecond that each flow gets now.
    fn rate(&self) -> u64 {
        let flows = u64::try_from(self.flows.len()).unwrap_or(u64::MAX).max(1);
        (self.uplink_bytes_per_ms / flows).clamp(1, self.host_bytes_per_ms)
    }

    fn update(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.updated_ms);
        self.updated_ms = self.updated_ms.max(now_ms);
        if self.flows.is_empty() {
            return;
        }
        let rate = self.rate();
        self.served += rate * passed_ms;
        self.busy_ms += passed_ms;
        if rate < self.host_bytes_per_ms {
            self.shared_ms += passed_ms;
        }
    }

    /// A transfer begins.
    pub fn join(&mut self, now_ms: u64, bytes: u64) -> FlowId {
        self.update(now_ms);
        self.next_id += 1;
        let id = FlowId(self.next_id);
        let goal = self.served + bytes;
        self.goals.insert((goal, id));
        self.flows.insert(id, goal);
        id
    }

    /// A transfer is broken off. Gives the bytes that were still to go.
    pub fn leave(&mut self, now_ms: u64, id: FlowId) -> u64 {
        self.update(now_ms);
        let Some(goal) = self.flows.remove(&id) else {
            return 0;
        };
        self.goals.remove(&(goal, id));
        goal.saturating_sub(self.served)
    }

    /// Milliseconds until the next transfer is through, if nothing changes.
    pub fn next_in_ms(&mut self, now_ms: u64) -> Option<u64> {
        self.update(now_ms);
        let (goal, _) = self.goals.first()?;
        Some(goal.saturating_sub(self.served).div_ceil(self.rate()))
    }

    /// A transfer that is through, if there is one; it leaves the link.
    pub fn take_done(&mut self, now_ms: u64) -> Option<FlowId> {
        self.update(now_ms);
        let (goal, id) = *self.goals.first()?;
        if goal > self.served {
            return None;
        }
        self.goals.remove(&(goal, id));
        self.flows.remove(&id);
        Some(id)
    }

    /// Milliseconds in which anything was sent, and those in which the uplink, not the machines,
    /// set the pace.
    pub fn busy_and_shared_ms(&self) -> (u64, u64) {
        (self.busy_ms, self.shared_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_flows_share_and_the_second_gets_the_rest() {
        let mut link = Link::new(100, 80);
        let a = link.join(0, 1000);
        assert_eq!(
            link.next_in_ms(0),
            Some(13),
            "alone, the machine's own rate"
        );
        let b = link.join(10, 1000);
        assert_eq!(link.next_in_ms(10), Some(4), "200 bytes at 50 each");
        assert_eq!(link.take_done(14), Some(a));
        assert_eq!(link.take_done(14), None);
        assert_eq!(link.leave(24, b), 0, "200 by 14, then 80 a millisecond");
        assert_eq!(link.next_in_ms(24), None);
        assert_eq!(link.busy_and_shared_ms(), (24, 4));
    }
}
