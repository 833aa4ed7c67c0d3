//! What is set before anything else is done: secrets stay out of what a crash leaves.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core files, of this process and of all that it starts: editors, ssh, Nix, the rack's machines.
///
/// Where the kernel is told to give cores to a program (core(5)), it gives them whatever the limit, and most
/// such programs look at the limit themselves; see [`keep_memory_private`].
pub(crate) fn no_core_files() {
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Lowering one's own limits is always allowed.
    let _ = setrlimit(Resource::Core, nothing);
}

/// Makes this process one that the kernel never dumps, to a file or to a program, and that no other process
/// of the same user can read (PR_SET_DUMPABLE, prctl(2)).
///
/// It ends with the next program that is run. The rack's supervisor doesn't call it: commands enter its
/// namespaces by its entry in /proc, which would be root's then.
pub(crate) fn keep_memory_private() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
