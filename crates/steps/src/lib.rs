//! What a step asks of a machine, and what the answer proves. Both worlds, the real one and the
//! simulated, come to their verdicts here.

mod approval;
mod disko;
mod inspect;

pub use approval::still_approved;
pub use disko::{script_devices, script_wipes_what_is_planned};
pub use inspect::{Wanted, find_disk, find_disks, inspect};
