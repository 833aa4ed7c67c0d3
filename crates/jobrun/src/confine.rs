//! What is given up before a job begins, for good.

mod files;
mod syscalls;

/// Gives up files and system calls. The version of Landlock that holds from here on; 0 for none.
pub(crate) fn give_up(landlock_abi_min: u32) -> Result<u32, String> {
    let landlock_abi = files::give_up()?;
    if landlock_abi < landlock_abi_min {
        return Err(format!(
            "Landlock's version {landlock_abi_min} was asked for, and the kernel has {landlock_abi}"
        ));
    }
    syscalls::give_up()?;
    Ok(landlock_abi)
}
