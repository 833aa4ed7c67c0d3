//! Who may hold a resource, and when a machine is to be looked at again.

use std::collections::BTreeSet;

use undercroft_model::{RetryPolicy, StepId};

/// A machine's place in the engine, in the order of the plan's names.
pub(crate) type NodeIndex = usize;

/// So many may hold it at once; the others wait, the lowest step first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Semaphore {
    pub(crate) limit: u32,
    pub(crate) held: u32,
    waiting: BTreeSet<(StepId, NodeIndex)>,
}

impl Semaphore {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Takes it if there is room, or else queues for it.
    pub(crate) fn take_or_wait(&mut self, step: StepId, node: NodeIndex) -> bool {
        if self.held < self.limit {
            self.held += 1;
            true
        } else {
            self.waiting.insert((step, node));
            false
        }
    }

    /// Gives it back and names the machine that may ask for it next.
    pub(crate) fn give_back(&mut self) -> Option<NodeIndex> {
        self.held = self.held.saturating_sub(1);
        self.next()
    }

    /// Takes the machine that may ask next out of the queue.
    pub(crate) fn next(&mut self) -> Option<NodeIndex> {
        if self.held < self.limit {
            self.waiting.pop_first().map(|(_, node)| node)
        } else {
            None
        }
    }

    pub(crate) fn leave(&mut self, step: StepId, node: NodeIndex) {
        self.waiting.remove(&(step, node));
    }
}

/// The wait before the next try after that many failed ones, at least one: it doubles.
pub(crate) fn backoff_ms(retry: &RetryPolicy, failed: u32) -> u64 {
    let doublings = failed.saturating_sub(1).min(32);
    retry
        .backoff_ms
        .saturating_mul(1 << doublings)
        .min(retry.backoff_ms_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = RetryPolicy {
            attempts_max: 9,
            backoff_ms: 5_000,
            backoff_ms_max: 60_000,
        };
        let waits: Vec<u64> = (1..=6).map(|n| backoff_ms(&retry, n)).collect();
        assert_eq!(waits, [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
        assert_eq!(backoff_ms(&retry, u32::MAX), 60_000);
    }

    #[test]
    fn the_lowest_step_goes_first() {
        let mut two = Semaphore::new(2);
        assert!(two.take_or_wait(StepId(7), 7) && two.take_or_wait(StepId(8), 8));
        assert!(!two.take_or_wait(StepId(5), 5) && !two.take_or_wait(StepId(3), 3));
        assert_eq!(two.give_back(), Some(3));
        assert!(two.take_or_wait(StepId(3), 3));
        two.leave(StepId(5), 5);
        assert_eq!((two.give_back(), two.held), (None, 1));
    }
}
