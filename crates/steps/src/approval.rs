//! Whether an approval still stands for the first connection to a machine.

use undercroft_model::{Approval, Failure, FailureKind};

/// Whether the first connection may be made on an approval's strength at that time of the wall clock.
///
/// # Errors
/// When it isn't good then: the machine needs another.
pub(crate) fn still_approved(approval: &Approval, wall_ms: u64) -> Result<(), Failure> {
    if approval.is_good_at(wall_ms) {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::PreconditionLost,
        "the approval wasn't good any more when the first connection was to be made",
    ))
}

#[cfg(test)]
mod tests {
    use undercroft_model::CLOCK_BACK_MS_MAX;

    use super::*;

    #[test]
    fn an_approval_that_ran_out_or_is_from_another_time_asks_for_another() {
        let approval = Approval {
            fingerprint: "SHA256:x".to_owned(),
            by: "operator ada".to_owned(),
            granted_wall_ms: 1_000_000,
            expires_wall_ms: 2_000_000,
        };
        for (wall_ms, good) in [
            (1_000_000, true),
            (1_999_999, true),
            (2_000_000, false),
            (1_000_000 - CLOCK_BACK_MS_MAX, true),
            // The clock was set back: nobody can tell when it ends.
            (999_999 - CLOCK_BACK_MS_MAX, false),
        ] {
            let verdict = still_approved(&approval, wall_ms);
            assert_eq!(verdict.is_ok(), good, "{wall_ms}");
            if let Err(failure) = verdict {
                assert_eq!(failure.kind, FailureKind::PreconditionLost);
            }
        }
    }
}
