# shellcheck shell=bash
# Founds or joins a k3s cluster, once. Run again it goes on, or finds that there is nothing to do.

data=$root/var/lib/rancher/k3s
token=${UNDERCROFT_TOKEN_FILE:-}
server_url=${UNDERCROFT_SERVER:-}
# Beside the datastore, from when its API was ready for the first time.
served=$data/server/undercroft-served
discarded=$run/cluster/datastore-discarded

last_words() {
    journalctl --unit k3s.service --lines 3 --output cat --no-pager 2>/dev/null | tail -c 600 | tr '\n' ';'
}

# A server is in when its own API answers; an agent when the cluster knows its kubelet.
is_in() {
    local config=$data/agent/kubelet.kubeconfig
    if [ "$UNDERCROFT_ROLE" = server ]; then
        k3s kubectl --kubeconfig "$root/etc/rancher/k3s/k3s.yaml" --request-timeout=5s get --raw /readyz || return 1
        [ -e "$served" ] || { : >"$served" && sync "$served"; }
    fi
    k3s kubectl --kubeconfig "$config" --request-timeout=5s get node "$UNDERCROFT_NODE"
}

# The founder's certificates come from the secrets, so that the token holds their hash and every
# machine knows it beforehand. Other servers get them from the cluster itself. Files that are there
# are k3s' own by now.
place_authorities() {
    local file from to
    mkdir -p "$data/server/tls/etcd" "$data/server/cred"
    chmod 0700 "$data/server" "$data/server/tls" "$data/server/cred"
    for file in server-ca client-ca request-header-ca; do
        place "$secrets/k3s/tls/$file.crt" "$data/server/tls/$file.crt" 0444
        place "$secrets/k3s/tls/$file.key" "$data/server/tls/$file.key" 0400
    done
    for file in server peer; do
        place "$secrets/k3s/tls/etcd-$file-ca.crt" "$data/server/tls/etcd/$file-ca.crt" 0444
        place "$secrets/k3s/tls/etcd-$file-ca.key" "$data/server/tls/etcd/$file-ca.key" 0400
    done
    place "$secrets/k3s/tls/service.key" "$data/server/tls/service.key" 0400
    place "$secrets/k3s/encryption-config.json" "$data/server/cred/encryption-config.json" 0600
}

place() {
    [ -s "$2" ] && return
    need_file "$1" "the founder makes the cluster from it; run undercroft secrets check"
    install_whole "$3" "$1" "$2"
}

# A founder that was cut off in its first seconds has a datastore without what k3s begins with. k3s won't
# go on with it and makes no other, at any start. Nothing is in it as long as its API was never ready; it
# is taken away once in a boot, as what fails twice has another reason.
discard_unserved() {
    [ -n "$UNDERCROFT_FOUNDER" ] && [ ! -e "$marker" ] && [ ! -e "$served" ] && [ ! -e "$discarded" ] || return 0
    journalctl --unit k3s.service --boot --lines 20 --output cat --no-pager 2>/dev/null |
        grep --quiet "no bootstrap data found" || return 0
    : >"$discarded"
    systemctl stop k3s.service || fail "k3s.service can't be stopped"
    refuse_second_cluster
    say "k3s was cut off before its datastore had anything in it; it begins with a new one"
    rm -rf "$data/server/db"
    systemctl start --no-block k3s.service || fail "k3s.service can't be started"
}

begin
refuse_older_minor
if [ ! -e "$marker" ]; then
    [ -n "$token" ] || fail "this machine has no token for the cluster: set up secrets, or undercroft.kubernetes.tokenFile"
    need_file "$root$token" "it is the token by which this machine joins"
    if [ -e "$data/server/db" ] || [ -e "$data/agent/client-kubelet.crt" ]; then
        # k3s ignores how it was told to begin once there is a datastore.
        [ -e "$began" ] ||
            fail "$data holds what is left of another cluster, and k3s would go on with it; run $leave --wipe if that cluster is gone"
    elif [ -n "$UNDERCROFT_FOUNDER" ]; then
        refuse_second_cluster
    fi
    : >"$began"
    if [ -n "$UNDERCROFT_FOUNDER" ] && [ -d "$secrets/k3s/tls" ]; then
        place_authorities
    fi
    if [ -z "$UNDERCROFT_FOUNDER" ]; then
        address=${server_url#https://}
        address=${address%:*}
        wait_for "the server $server_url doesn't answer" answers "$address"
    fi
    : >"$starting"
fi

# Not waited for here: until it is in, k3s tries again by itself, and its own start has no limit.
systemctl reset-failed k3s.service 2>/dev/null || true
systemctl start --no-block k3s.service || fail "k3s.service can't be started"
meanwhile=discard_unserved wait_for "k3s" is_in
finish
