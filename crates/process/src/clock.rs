//! The two clocks, read in one place.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use undercroft_model::Now;

/// The start that [`Now::mono_ms`] counts from: the first reading in this process.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the Unix epoch, as this machine believes; 0 where its clock is before that.
pub fn wall_ms_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Both clocks at this moment.
pub fn now() -> Now {
    Now {
        mono_ms: u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX),
        wall_ms: wall_ms_now(),
    }
}
