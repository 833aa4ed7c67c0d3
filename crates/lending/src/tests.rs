//! What several modules' tests share.

use undercroft_lend::{
    job::{Limits, Runtime},
    offer::Offer,
};
use undercroft_model::inventory::Sensitivity;

/// An offer of two small jobs at a time.
pub(crate) fn offer() -> Offer {
    Offer {
        class: "pc".parse().unwrap(),
        runtimes: [Runtime::Wasm, Runtime::Process].into(),
        tenants: None,
        max_sensitivity: Sensitivity::Internal,
        features: Default::default(),
        slots: 2,
        limits: Limits {
            cpu_percent: 100,
            memory_mb: 1024,
            disk_mb: 1024,
            wall_s: 600,
        },
    }
}

/// What starts a job needs some memory itself: no job is admitted that a sandbox would refuse for that.
#[test]
fn a_job_that_is_admitted_has_memory_enough_for_its_sandbox() {
    assert_eq!(
        undercroft_lend::job::MEMORY_MB_MIN,
        undercroft_sandbox::MEMORY_MB_MIN
    );
}
