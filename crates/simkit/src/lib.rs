//! What any deterministic simulation needs, and nothing of what is simulated: virtual time, one
//! source of chance, links that are shared, dice for faults, a search among seeds, a trace.
//!
//! Nothing in here reads a clock or a random device: what happens follows from the seed alone, on
//! every platform and in every version.
//!
//! ```
//! use undercroft_simkit::{Clock, Rng, Spread};
//!
//! // Three machines start; each takes between one and three seconds.
//! let mut rng = Rng::new(7);
//! let mut clock = Clock::new();
//! for machine in ["a", "b", "c"] {
//!     clock.after(Spread::s(1, 3).draw(&mut rng), machine);
//! }
//! while let Some(machine) = clock.pop() {
//!     println!("{machine} is up after {} ms", clock.now_ms());
//! }
//! assert!((1000..=3000).contains(&clock.now_ms()));
//! ```

mod clock;
mod dice;
mod link;
mod rng;
mod seeds;
mod spread;
mod trace;

pub use clock::{Clock, WALL_START_MS};
pub use dice::{Dice, Faults, Kind, UnknownFaults};
pub use link::{FlowId, Link};
pub use rng::Rng;
pub use seeds::{FirstFailure, SeedOutcome, first_failure};
pub use spread::Spread;
pub use trace::{TRACE_LINES_MAX, Trace};
