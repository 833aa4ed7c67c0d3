//! Where an installed machine keeps what the command asks it for, and what its units are called.
//!
//! The machine's modules read the same from nix/lib/on-machine.json: a test holds the two together, and another
//! finds whoever spells one of them out instead of naming it.

/// The program that takes a machine out of its cluster, with all that it holds of it.
pub const CLUSTER_LEAVE: &str = "/etc/undercroft/cluster-leave";
/// What the unit that joins says of how far it is, in JSON.
pub const CLUSTER_REPORT: &str = "/run/undercroft/cluster.json";
/// The key of an encrypted layout, while the disks are laid out.
pub const DISK_KEY: &str = "/run/undercroft/disk.key";
/// The machine's own SSH host key.
pub const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
/// There from the first try to join on.
pub const JOIN_BEGAN: &str = "/var/lib/undercroft/cluster/began";
/// What only the controller knows, for one join: variables of the unit's environment.
pub const JOIN_ENV: &str = "/run/undercroft/cluster/join.env";
/// The unit that founds or joins a cluster, without `.service`.
pub const JOIN_UNIT: &str = "undercroft-cluster-join";
/// There once the machine is a member, over reboots.
pub const JOINED: &str = "/var/lib/undercroft/cluster/joined";
/// The folder of k3s' certificates for etcd.
pub const K3S_ETCD: &str = "/var/lib/rancher/k3s/server/tls/etcd";
/// There once kubeadm has come to its end.
pub const KUBEADM_ENDED: &str = "/var/lib/undercroft/cluster/kubeadm-ended";
/// The folder of kubeadm's certificates for etcd.
pub const KUBEADM_ETCD: &str = "/etc/kubernetes/pki/etcd";
/// The administrator's credentials on a server, whichever distribution made them.
pub const KUBECONFIG: &str = "/etc/undercroft/kubeconfig";
/// The TCP port of a machine's node exporter. 9100 is that of the exporter which kube-prometheus-stack runs.
pub const NODE_EXPORTER_PORT: u16 = 9101;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_modules_have_the_same() {
        let of_nix: serde_json::Value =
            serde_json::from_str(include_str!("../../../nix/lib/on-machine.json")).unwrap();
        let own = serde_json::json!({
            "clusterLeave": CLUSTER_LEAVE,
            "clusterReport": CLUSTER_REPORT,
            "diskKey": DISK_KEY,
            "hostKey": HOST_KEY,
            "joinBegan": JOIN_BEGAN,
            "joinEnv": JOIN_ENV,
            "joinUnit": JOIN_UNIT,
            "joined": JOINED,
            "k3sEtcd": K3S_ETCD,
            "kubeadmEnded": KUBEADM_ENDED,
            "kubeadmEtcd": KUBEADM_ETCD,
            "kubeconfig": KUBECONFIG,
            "nodeExporterPort": NODE_EXPORTER_PORT,
        });
        assert_eq!(of_nix, own);
    }
}
