//! What machines boot and run, built on this machine: parts of Debian for the rack and the installer,
//! the installer's image, and the systems, by a flake or by the rack's own builder.

pub mod debian;
pub mod installer;
pub mod system;
