# shellcheck shell=bash
# Takes this machine's part of the cluster away: its datastore, its certificates, its containers.
if [ "${1:-}" != --wipe ] || [ $# -ne 1 ]; then
    echo "usage: cluster-leave --wipe    (deletes this machine's etcd and containers; take the node out of the cluster first)" >&2
    exit 64
fi
systemctl stop k3s.service || fail "k3s.service can't be stopped"
# k3s leaves its containers running when it stops; this is its own way of ending them.
if command -v k3s-killall.sh >/dev/null; then
    k3s-killall.sh >&2
fi
rm -rf "$root/var/lib/rancher/k3s" "$root/etc/rancher/node" "$state"
# What the administrator's credentials open is another cluster by the next join.
rm -f "$starting" "$root/etc/rancher/k3s/k3s.yaml"
# The static pods of the machine's system lay among k3s' files, and are there again for the next join.
if command -v systemd-tmpfiles >/dev/null; then
    systemd-tmpfiles --create --prefix=/var/lib/rancher >&2
fi
# It counts as done while it is active, and is to be done again.
systemctl stop "$unit" 2>/dev/null || true
report left
