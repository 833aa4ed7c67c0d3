//! Undercroft's real world: SSH, Nix, power, the journal, and the QEMU rack.
