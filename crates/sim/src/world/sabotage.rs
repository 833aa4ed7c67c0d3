//! Faults of the controller's own side, for tests that show that the checkers see them. Outside of
//! tests there are none.

use undercroft_engine::Event;
use undercroft_model::{Failure, FailureKind, Outcome};

use super::SimWorld;

/// What the controller's side does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A disk is wiped although it was laid out before.
    WipesAgain,
    /// A fingerprint counts as approved although nobody approved it.
    ApprovesAnyone,
    /// A machine counts as up whatever it runs.
    CallsAnythingUp,
    /// A report that anybody can send ends what its machine is doing.
    BelievesReports,
    /// Nobody hears of an installer that has reported in.
    LosesReports,
    /// A server joins without a look at etcd's members.
    JoinsBlindly,
    /// A server that should join founds a cluster of its own.
    FoundsAgain,
    /// A machine counts as Ready whether Kubernetes knows it or not.
    CallsAnythingReady,
    /// A machine whose Node was deleted is waited for, and its kubelet never started anew.
    WaitsForTheDeleted,
    /// A server that was installed anew joins beside the member that it was.
    ReplacesNobody,
    /// What a join that was cut off has added to etcd is taken for what was there before.
    RemovesWhatJoins,
    /// The network of the pods is brought in and never works.
    NetworkNeverReady,
}

impl SimWorld {
    #[cfg(test)]
    pub(super) fn is_sabotaged(&self, by: Sabotage) -> bool {
        self.sabotage == Some(by)
    }

    /// Whether a test still has something to take away.
    #[cfg(test)]
    pub(crate) fn has_pending_loss(&self) -> bool {
        self.targeted_loss
            .as_ref()
            .is_some_and(|loss| !loss.is_over)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests the world knows")]
    pub(crate) fn has_pending_loss(&self) -> bool {
        false
    }

    /// What the controller makes of what it is told.
    pub(crate) fn as_controller_sees(&self, event: Event) -> Event {
        let Event::Reported { node, .. } = &event else {
            return event;
        };
        let running = self.ops.iter().find(|(_, op)| op.order.node == *node);
        match running {
            Some((op, _)) if self.is_sabotaged(Sabotage::BelievesReports) => {
                let message = "it has reported in anew";
                let failure = Failure::new(FailureKind::PreconditionLost, message);
                let outcome = Outcome::Failed { failure };
                Event::Ended { op: *op, outcome }
            }
            _ => event,
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests the world knows")]
    pub(super) fn is_sabotaged(&self, _by: Sabotage) -> bool {
        false
    }
}
