# shellcheck shell=bash
# Takes this machine's part of the cluster away: its etcd, its certificates, its containers.
if [ "${1:-}" != --wipe ] || [ $# -ne 1 ]; then
    echo "usage: cluster-leave --wipe    (deletes this machine's etcd and containers; take the node out of the cluster first)" >&2
    exit 64
fi

etcd() {
    etcdctl --endpoints https://127.0.0.1:2379 --cacert "$kubeadm_etcd/ca.crt" --cert "$kubeadm_etcd/server.crt" --key "$kubeadm_etcd/server.key" "$@"
}

# kubeadm deletes etcd's data in any case, and takes the member out only as long as the cluster has
# the machine's Node. A member that stays behind would count among those that the others need.
leave_etcd() {
    local members id
    [ -e "$root/etc/kubernetes/manifests/etcd.yaml" ] || return 0
    # Where etcd doesn't answer the cluster is gone, or will miss this member in any case.
    members=$(etcd member list 2>/dev/null) || return 0
    # The last one has nobody to leave.
    [ "$(echo "$members" | wc -l)" -gt 1 ] || return 0
    id=$(echo "$members" | grep -F "https://$UNDERCROFT_ADDRESS:2380" | cut -d , -f 1)
    [ -n "$id" ] || return 0
    etcd member remove "$id" >&2 ||
        fail "etcd can't spare this machine's member now; bring its other members back first"
}

leave_etcd
kubeadm reset --force --cri-socket unix:///run/containerd/containerd.sock >&2 || fail "kubeadm reset failed"
rm -rf "$root/etc/cni/net.d" "$state" "$root/var/lib/kubelet/undercroft-kubernetes-version"
rm -f "$starting"
# It counts as done while it is active, and is to be done again.
systemctl stop "$unit" 2>/dev/null || true
report left
