//! What kubeadm needs on a machine.

use undercroft_testkit::{Missing, peer, program};

use crate::members_common::{Service, System};

/// The programs of a server.
const PEERS: [&str; 6] = [
    "kubeadm",
    "etcd",
    "etcdctl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// What has to be here for a machine.
pub(crate) fn needed() -> Result<(), Missing> {
    for name in PEERS {
        peer(name)?;
    }
    for (name, package) in [
        ("kubectl", "kubernetes-client"),
        ("jq", "jq"),
        ("curl", "curl"),
        ("losetup", "mount"),
        ("nsenter", "util-linux"),
        ("nix-instantiate", "nix-bin"),
    ] {
        program(name, package)?;
    }
    Ok(())
}

/// A machine's system: the programs of a server, and a kubelet and containerd that are played.
pub(crate) fn system() -> System {
    let kubelet = crate::play("kubelet");
    System {
        programs: PEERS.map(|name| (name, peer(name).unwrap())).to_vec(),
        played: vec![
            // kubeadm asks for its version alone.
            ("kubelet", "echo Kubernetes v1.34.4".to_owned()),
            ("journalctl", "echo the kubelet says nothing".to_owned()),
        ],
        // Servers have their administrator's file under one name (nix/modules/kubernetes/host.nix).
        fill: "[ ! -e etc/undercroft/kubeadm/init.yaml ] || ln -s /etc/kubernetes/admin.conf etc/undercroft/kubeconfig"
            .to_owned(),
        beside: format!("{} &", crate::play("containerd")),
        // Pods are no part of the unit.
        service: Service {
            name: "kubelet",
            conditions: "[ -e /var/lib/undercroft/cluster/joined -o -e /run/undercroft/cluster/starting -o -e /etc/kubernetes/manifests/etcd.yaml ]",
            run: format!(
                "set -a\n[ ! -e /var/lib/kubelet/kubeadm-flags.env ] || . /var/lib/kubelet/kubeadm-flags.env\nset +a\nexec {kubelet}\n"
            ),
            stop_tenths: 0,
        },
    }
}
