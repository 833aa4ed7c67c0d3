//! What is given up before a job begins, for good.

mod files;
mod syscalls;

/// What something is confined for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// A program or a component.
    Job,
    /// The builder of a Nix derivation, and all that it starts: compilers, shells, what they have just built.
    Build,
}

/// Gives up files and system calls. The version of Landlock that holds from here on; 0 for none.
pub(crate) fn give_up(landlock_abi_min: u32, room: Room) -> Result<u32, String> {
    let landlock_abi = files::give_up(room)?;
    if landlock_abi < landlock_abi_min {
        return Err(format!(
            "Landlock's version {landlock_abi_min} was asked for, and the kernel has {landlock_abi}"
        ));
    }
    syscalls::give_up()?;
    Ok(landlock_abi)
}
