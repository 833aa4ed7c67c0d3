# shellcheck shell=bash
# Founds or joins a kubeadm cluster, once. Run again it goes on, or finds that there is nothing to do.

kubernetes=$root/etc/kubernetes
config=$root/etc/undercroft/kubeadm
manifests=$kubernetes/manifests
server_url=${UNDERCROFT_SERVER:-}

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
    install -D -m "$3" "$1" "$2" || fail "can't write $2"
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

# What kubeadm began and didn't end can't be gone on with. Before this machine was a member nothing
# of it is worth keeping.
clean_up_attempt() {
    say "an earlier attempt didn't end; what it left is taken away"
    kubeadm reset --force --cri-socket unix:///run/containerd/containerd.sock >&2 || fail "kubeadm reset failed"
}

found() {
    refuse_second_cluster
    place_authorities
    place_virtual_address "${UNDERCROFT_VIP_FOUNDING:-}"
    : >"$starting"
    # The token that kubeadm makes is nobody's: the controller has one made for each join.
    kubeadm init --config "$config/init.yaml" --skip-token-print >&2 ||
        fail "kubeadm init failed; see journalctl --unit undercroft-cluster-join"
}

join() {
    local address=${server_url#https://} join_file=$run/cluster/join.yaml hash
    address=${address%/}
    [ -n "${UNDERCROFT_TOKEN:-}" ] ||
        fail "no token was handed over; make one on a server with kubeadm token create --ttl 15m and put UNDERCROFT_TOKEN=… into /run/undercroft/cluster/join.env"
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
    if ! kubeadm join --config "$join_file" >&2; then
        rm -f "$join_file"
        fail "kubeadm join failed; see journalctl --unit undercroft-cluster-join"
    fi
    rm -f "$join_file"
}

begin
if [ ! -e "$marker" ]; then
    if [ -e "$began" ]; then
        if [ -e "$kubernetes/kubelet.conf" ] && is_in >/dev/null 2>&1; then
            # It was cut off after kubeadm had done its work.
            finish
            place_virtual_address "${UNDERCROFT_VIP:-}"
            exit 0
        fi
        clean_up_attempt
    elif [ -e "$kubernetes/kubelet.conf" ] || [ -e "$root/var/lib/etcd/member" ]; then
        fail "$kubernetes holds what is left of another cluster; run /etc/undercroft/cluster-leave --wipe if that cluster is gone"
    fi
    : >"$began"
    if [ -n "$UNDERCROFT_FOUNDER" ]; then
        found
    else
        join
    fi
fi

systemctl start --no-block kubelet.service || fail "kubelet.service can't be started"
wait_for "the kubelet" is_in
place_virtual_address "${UNDERCROFT_VIP:-}"
finish
