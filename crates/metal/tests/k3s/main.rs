//! The first distribution with the real k3s: the flags that the Nix library gives it, the scripts
//! that machines join and leave by, the secrets that `undercroft secrets init` makes, and the steps
//! of the cluster that ask for all of it.
//!
//! Machines are namespaces: each has a network, processes and an `/etc` of its own, an SSH server,
//! and k3s' server with its etcd and its API. What isn't here is played: systemd by a script, and
//! a server's kubelet by what it would have registered.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on stops"
)]

mod fleet;
mod founding;
#[path = "../members_common/mod.rs"]
mod members_common;
#[path = "../namespace_common/mod.rs"]
mod namespace_common;

use std::path::PathBuf;

use undercroft_testkit::{Missing, OrSkip as _, peer, program};

/// Names a k3s of one's own; else it is looked for on PATH.
const K3S: &str = "UNDERCROFT_K3S";

/// The program. Its modules can't be had as those of the other programs are, so that it is not among
/// what `cargo xtask peers` builds.
pub(crate) fn k3s() -> Result<PathBuf, Missing> {
    if let Some(named) = std::env::var_os(K3S) {
        let named = PathBuf::from(named);
        let missing = || Missing::new("the k3s that is named isn't there", format!("set {K3S}"));
        return named.is_file().then_some(named).ok_or_else(missing);
    }
    program("k3s", "none; its releases have it").map_err(|_| {
        Missing::new(
            "there is no k3s here",
            format!("put one of its releases on PATH, or name one by {K3S}"),
        )
    })
}

/// What has to be here for a machine.
fn needed() -> Result<(), Missing> {
    k3s()?;
    peer("etcdctl")?;
    for (name, package) in [
        ("jq", "jq"),
        ("curl", "curl"),
        ("nsenter", "util-linux"),
        ("ip", "iproute2"),
    ] {
        program(name, package)?;
    }
    Ok(())
}

/// Runs a test of this file in a network namespace of its own. True inside of it.
pub(crate) fn inside(test: &str) -> bool {
    needed().or_skip().is_some() && namespace_common::inside(test, || None)
}
