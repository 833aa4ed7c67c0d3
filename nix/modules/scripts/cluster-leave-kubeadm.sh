# shellcheck shell=bash
# Takes this machine's part of the cluster away: its etcd, its certificates, its containers.
if [ "${1:-}" != --wipe ] || [ $# -ne 1 ]; then
    echo "usage: cluster-leave --wipe    (deletes this machine's etcd and containers; take the node out of the cluster first)" >&2
    exit 64
fi
kubeadm reset --force --cri-socket unix:///run/containerd/containerd.sock >&2 || fail "kubeadm reset failed"
rm -rf "$root/etc/cni/net.d" "$state"
rm -f "$starting"
# It counts as done while it is active, and is to be done again.
systemctl stop undercroft-cluster-join.service 2>/dev/null || true
report left
