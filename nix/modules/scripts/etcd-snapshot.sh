# shellcheck shell=bash
# Takes a snapshot of this member, encrypts it to the operators, and keeps the newest ones.
#
# What is in plain text stays in the datastore's own folder, which has the same in plain text, and
# only until it is encrypted.
set -eu
umask 077
folder=${UNDERCROFT_SNAPSHOTS:-/var/lib/undercroft/etcd-snapshots}
node=${UNDERCROFT_NODE:?the name of this machine}
datastore=${UNDERCROFT_DATASTORE:?the folder of etcd itself}
recipient=${UNDERCROFT_RECIPIENT:?the file with the age recipient}
keep=${UNDERCROFT_KEEP:?how many are kept}

[ -s "$recipient" ] || {
    echo "no snapshot was taken: $recipient, which it is encrypted to, isn't there" >&2
    exit 1
}
work=$datastore/undercroft-snapshot
# What is there was left by a power cut.
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
mkdir "$work"
mkdir -p "$folder"
rm -f "$folder"/*.part

etcdctl snapshot save "$work/etcd.db" >/dev/null
name=$folder/etcd-$node-$(date -u +%Y%m%dT%H%M%SZ).db.age
# Under another name until it is whole and on the disk: a snapshot that was cut short must not push
# a good one out.
age --encrypt --recipients-file "$recipient" --output "$name.part" "$work/etcd.db"
sync "$name.part"
mv "$name.part" "$name"
find "$folder" -maxdepth 1 -name 'etcd-*.db.age' | sort --reverse | tail -n "+$((keep + 1))" | while read -r old; do
    rm -f "$old"
done
