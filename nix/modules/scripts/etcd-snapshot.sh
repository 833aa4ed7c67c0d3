# shellcheck shell=bash
# Takes a snapshot of this member and keeps the newest ones.
set -eu
folder=${UNDERCROFT_SNAPSHOTS:-/var/lib/undercroft/etcd-snapshots}
keep=${UNDERCROFT_KEEP:?how many are kept}

mkdir -p "$folder"
name=$folder/etcd-$(date -u +%Y%m%dT%H%M%SZ).db
# Under another name until it is whole: a snapshot that was cut short must not push a good one out.
rm -f "$folder"/*.part
etcdctl snapshot save "$name.part" >/dev/null
mv "$name.part" "$name"
find "$folder" -maxdepth 1 -name 'etcd-*.db' | sort --reverse | tail -n "+$((keep + 1))" | while read -r old; do
    rm -f "$old"
done
