//! The right to make namespaces, for the one program that makes them.

use rustix::thread::{
    CapabilitySet, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set,
    set_capabilities,
};

/// As long as it lives, programs that this thread starts have CAP_SYS_ADMIN, where the process has
/// it and isn't root: it was root, and became the owner of the rack's folder, as the system lets no
/// user make namespaces. Whoever makes a namespace of users is without it in all others
/// (user_namespaces(7)), so that nothing in the rack has it.
pub(super) struct Lent(bool);

impl Lent {
    pub(super) fn new() -> Self {
        let right = CapabilitySet::SYS_ADMIN;
        let lend = || -> rustix::io::Result<bool> {
            let mut sets = capabilities(None)?;
            if rustix::process::geteuid().is_root() || !sets.permitted.contains(right) {
                return Ok(false);
            }
            sets.inheritable |= right;
            set_capabilities(None, sets)?;
            configure_capability_in_ambient_set(right, true)?;
            Ok(true)
        };
        // Without it the kernel refuses the namespaces, and that is told.
        Self(lend().unwrap_or(false))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.0 {
            let _ = clear_ambient_capability_set();
        }
    }
}
