//! Our own converter of host keys, for machines of the virtual rack.
//!
//! The rack's machines open their secrets with the real `sops`, which wants the host key as an age
//! identity. `ssh-to-age` makes it one where it is at hand; its source isn't to be had from
//! everywhere, so that an example of `undercroft-sops` does the same, linked statically since
//! those machines have no libc. Its name says that it is no peer.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
};

use super::files::{failed, make_dir};
use crate::run::{Failed, Step};

/// What the program is called.
pub(super) const NAME: &str = "own-ssh-to-age";
/// The example that it is built from.
const EXAMPLE: &str = "ssh_to_age";

/// Builds it where its source has changed. Its path comes back.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Failed> {
    let target = format!("{ARCH}-unknown-linux-gnu");
    let built = folder.join("src").join(NAME);
    Step::new(&format!("build {NAME}"), "cargo")
        .args(["build", "--quiet", "--package"])
        .args(["undercroft-sops", "--example", EXAMPLE])
        // With a target that is named, the flags are the program's and not its build scripts'.
        .args(["--target", &target, "--target-dir"])
        .args([built.as_os_str()])
        // It runs for a moment, so that it needn't be fast, and is copied to each machine: without
        // what a debugger would want.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_DEV_STRIP", "symbols")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .run()?;
    let example = built.join(&target).join("debug/examples").join(EXAMPLE);
    let dir = folder.join(format!("{NAME}-{}", env!("CARGO_PKG_VERSION")));
    make_dir(&dir)?;
    // Copied beside its place and moved there: a test may be reading the old one.
    let (new, program) = (dir.join("new"), dir.join(NAME));
    fs::copy(&example, &new)
        .and_then(|_| fs::rename(&new, &program))
        .map_err(|e| failed(format!("{}: {e}", program.display())))?;
    Ok(program)
}
