//! Whole machines with real firmware: from powered off to up, and through the accidents on the way.

mod accidents;
mod bring_up;
mod fleet;
mod netboot;
