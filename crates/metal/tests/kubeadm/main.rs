//! The second distribution with the real kubeadm: what the Nix library gives it, the script that
//! machines join by, the secrets that `undercroft secrets init` makes, and the steps of the
//! cluster that ask for all of it.
//!
//! Machines are namespaces: each has a network, processes and an `/etc` of its own, an SSH server,
//! and what a server of kubeadm runs: etcd, kube-apiserver, kube-controller-manager and
//! kube-scheduler, started from the static pods that kubeadm wrote. What isn't here is played: the
//! kubelet by [`kubelet`], containerd by [`containerd`], systemd by a script.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on stops"
)]

mod containerd;
mod documents;
mod fleet;
mod founding;
mod kubelet;
mod machine;
#[path = "../members_common/mod.rs"]
mod members_common;
#[path = "../namespace_common/mod.rs"]
mod namespace_common;

use undercroft_testkit::OrSkip as _;

/// Names what a process of this file plays.
const ROLE: &str = "UNDERCROFT_TEST_ROLE";

/// The shell that has this file's program play a part of a machine.
pub(crate) fn play(role: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let mut arguments = std::env::args()
        .skip_while(|word| word != "--exact")
        .skip(1);
    let test = arguments.next().unwrap();
    format!(
        "env {ROLE}={role} {} --exact {test} --nocapture --test-threads=1",
        program.display()
    )
}

/// Runs a test of this file in a network namespace of its own. True inside of it; false outside,
/// and in a process that has played its part.
pub(crate) async fn inside(test: &str) -> bool {
    match std::env::var(ROLE).as_deref() {
        Ok("kubelet") => kubelet::run().await,
        Ok("containerd") => containerd::run().await,
        _ => {
            let here = machine::needed().or_skip().is_some();
            return here && namespace_common::inside(test, || None);
        }
    }
    false
}
