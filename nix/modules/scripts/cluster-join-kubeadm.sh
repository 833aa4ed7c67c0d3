# shellcheck shell=bash
# Founds or joins a kubeadm cluster, once. Run again it goes on, or finds that there is nothing to do.

kubernetes=$root/etc/kubernetes
config=$root/etc/undercroft/kubeadm
manifests=$kubernetes/manifests
server_url=${UNDERCROFT_SERVER:-}
log=$run/cluster/kubeadm.log

last_words() {
    journalctl --unit kubelet.service --lines 3 --output cat --no-pager 2>/dev/null | tail -c 600 | tr '\n' ';'
}

is_in() {
    if [ "$UNDERCROFT_ROLE" = server ]; then
        kubectl --kubeconfig "$kubernetes/admin.conf" --server "https://$UNDERCROFT_ADDRESS:6443" \
            --request-timeout=5s get --raw /readyz || return 1
    fi
    kubectl --kubeconfig "$kubernetes/kubelet.conf" --request-timeout=5s get node "$UNDERCROFT_NODE"
}

place() {
    need_file "$1" "run undercroft secrets check"
    install_whole "$3" "$1" "$2"
}

# Every server has the authorities from the secrets: kubeadm leaves those that are there, and
# nothing of them travels over the cluster (no --upload-certs, whose key lives two hours).
place_authorities() {
    local file
    for file in ca front-proxy-ca; do
        place "$secrets/kubeadm/pki/$file.crt" "$kubernetes/pki/$file.crt" 0644
        place "$secrets/kubeadm/pki/$file.key" "$kubernetes/pki/$file.key" 0600
    done
    place "$secrets/kubeadm/pki/etcd-ca.crt" "$kubernetes/pki/etcd/ca.crt" 0644
    place "$secrets/kubeadm/pki/etcd-ca.key" "$kubernetes/pki/etcd/ca.key" 0600
    place "$secrets/kubeadm/pki/sa.pub" "$kubernetes/pki/sa.pub" 0644
    place "$secrets/kubeadm/pki/sa.key" "$kubernetes/pki/sa.key" 0600
    place "$secrets/kubeadm/encryption-config.yaml" "$kubernetes/pki/encryption-config.yaml" 0600
}

# kube-vip's pod stands among kubeadm's own, as the address has to answer before kubeadm is done.
place_virtual_address() {
    [ -n "${1:-}" ] || return 0
    mkdir -p "$manifests"
    ln -sfn "$1" "$manifests/kube-vip.json"
}

# What kubeadm said, from its first error on; where it names none, its last words.
kubeadm_errors() {
    local said
    said=$(sed -n '/^[[:space:]]*\(error\|\[ERROR \)/,$p' "$1" |
        sed '/If you know what you are doing/d; /To see the stack trace/d')
    [ -n "$said" ] || said=$(tail -n 3 "$1")
    # As one line. Its end says most.
    echo "$said" | tail -c 1500 | tr -s '[:space:]' ' ' | sed 's/^ //; s/ $//'
}

# What can be done about it, where that is known.
kubeadm_hint() {
    case $1 in
    *"find a JWS signature"* | *"invalid for this cluster or it has expired"*)
        echo "; the token has expired, or is another cluster's: undercroft up makes a new one"
        ;;
    *"pinned"*)
        echo "; the cluster's authority isn't the one in this machine's secrets (kubeadm/ca_cert_hash): see undercroft secrets check, or whose cluster answers at ${server_url#https://}"
        ;;
    *"already exists in the cluster"*)
        echo "; if that is what this machine was, undercroft up takes it out before the join"
        ;;
    esac
}

# Runs kubeadm, and fails with what it said.
run_kubeadm() {
    local status said
    # Its answer is that of kubeadm, not of tee.
    kubeadm "$@" 2>&1 | tee "$log" >&2
    status=${PIPESTATUS[0]}
    [ "$status" -ne 0 ] || return 0
    said=$(kubeadm_errors "$log")
    fail "kubeadm $1 failed with exit code $status: $said$(kubeadm_hint "$said")"
}

# What kubeadm began and didn't end can't be gone on with. Before this machine was a member nothing
# of it is worth keeping.
clean_up_attempt() {
    say "an earlier attempt didn't end; what it left is taken away"
    run_kubeadm reset --force --cri-socket unix:///run/containerd/containerd.sock
}

found() {
    refuse_second_cluster
    place_authorities
    place_virtual_address "${UNDERCROFT_VIP_FOUNDING:-}"
    : >"$starting"
    # The token that kubeadm makes is nobody's: the controller has one made for each join.
    run_kubeadm init --config "$config/init.yaml" --skip-token-print
}

join() {
    local address=${server_url#https://} join_file=$run/cluster/join.yaml hash
    address=${address%/}
    [ -n "${UNDERCROFT_TOKEN:-}" ] ||
        fail "no token was handed over; make one on a server with kubeadm token create --ttl 15m and put UNDERCROFT_TOKEN=… into $join_env"
    [[ $UNDERCROFT_TOKEN =~ ^[a-z0-9]{6}[.][a-z0-9]{16}$ ]] ||
        fail "UNDERCROFT_TOKEN in $join_env isn't a token of kubeadm's, which looks like abcdef.0123456789abcdef"
    hash=${UNDERCROFT_CA_HASH:-}
    if [ -z "$hash" ]; then
        need_file "$secrets/kubeadm/ca_cert_hash" "it proves that the server is the right one"
        hash=$(cat "$secrets/kubeadm/ca_cert_hash")
    fi
    wait_for "the server $server_url doesn't answer" answers "${address%:*}"
    if [ "$UNDERCROFT_ROLE" = server ]; then
        place_authorities
        place_virtual_address "${UNDERCROFT_VIP:-}"
    fi
    : >"$starting"
    # The token goes by way of a file in memory, and never among the arguments.
    (
        umask 077
        UNDERCROFT_CA_HASH=$hash UNDERCROFT_ENDPOINT=$address \
            jq '. + {discovery: {
                bootstrapToken: {
                    token: env.UNDERCROFT_TOKEN,
                    apiServerEndpoint: env.UNDERCROFT_ENDPOINT,
                    caCertHashes: [env.UNDERCROFT_CA_HASH]
                },
                tlsBootstrapToken: env.UNDERCROFT_TOKEN
            }}' "$config/join.json" >"$join_file"
    ) || fail "can't write $join_file"
    trap 'rm -f "$run/cluster/join.yaml"' EXIT
    run_kubeadm join --config "$join_file"
}

begin
refuse_older_minor
# systemd ends what takes too long.
trap 'fail "it was stopped after $SECONDS s; the last that kubeadm said: $(tail -n 1 "$log" 2>/dev/null)"' TERM
if [ ! -e "$marker" ]; then
    if [ -e "$ended" ] && [ -e "$kubernetes/kubelet.conf" ]; then
        # It was cut off after kubeadm had done its work.
        : >"$starting"
    else
        if [ -e "$began" ]; then
            clean_up_attempt
        elif [ -e "$kubernetes/kubelet.conf" ] || [ -e "$root/var/lib/etcd/member" ]; then
            fail "$kubernetes holds what is left of another cluster; run $leave --wipe if that cluster is gone"
        fi
        : >"$began"
        if [ -n "$UNDERCROFT_FOUNDER" ]; then
            found
        else
            join
        fi
        # An API that answers isn't enough: what joiners need of it is made last.
        : >"$ended"
        sync "$ended" 2>/dev/null || true
    fi
fi

systemctl start --no-block kubelet.service || fail "kubelet.service can't be started"
wait_for "the kubelet" is_in
place_virtual_address "${UNDERCROFT_VIP:-}"
finish
