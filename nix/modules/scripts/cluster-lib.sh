# shellcheck shell=bash
# What joining and leaving a cluster have in common.
set -u

root=${UNDERCROFT_ROOT:-}
# Kept over reboots: "joined" once this machine is a member, "began" from the first try on.
state=$root/var/lib/undercroft/cluster
run=$root/run/undercroft
marker=$state/joined
began=$state/began
# There from when kubeadm has come to its end: what is left is to see the machine's part run.
ended=$state/kubeadm-ended
starting=$run/cluster/starting
join_env=$run/cluster/join.env
report_file=$run/cluster.json
unit=undercroft-cluster-join.service
leave=/etc/undercroft/cluster-leave
kubeadm_etcd=$root/etc/kubernetes/pki/etcd
secrets=$root$UNDERCROFT_SECRETS

say() { echo "undercroft: $*" >&2; }

report() {
    mkdir -p "$run"
    jq -n --arg state "$1" --arg reason "${2:-}" --arg node "$UNDERCROFT_NODE" \
        '{version: 1, node: $node, state: $state, reason: $reason}' >"$report_file.new" &&
        mv -f "$report_file.new" "$report_file"
}

fail() {
    say "$*"
    report failed "$*"
    exit 1
}

# Whether something answers at an address's API. Any answer counts: who it is doesn't matter.
answers() {
    curl --silent --insecure --output /dev/null --connect-timeout 3 --max-time 6 "https://$1:6443/version"
}

# A founder whose cluster is already there must not found another one beside it.
refuse_second_cluster() {
    local other
    for other in $UNDERCROFT_OTHERS; do
        if answers "${other#*=}"; then
            fail "${other%%=*} (${other#*=}) answers for a cluster already, and founding another would split the fleet; to bring this machine back into it, name another founder in the inventory"
        fi
    done
}

# Waits until a command succeeds, for what is left of the limit. $meanwhile is done before each pause.
wait_for() {
    local what=$1
    shift
    until "$@" >/dev/null 2>&1; do
        "${meanwhile:-:}"
        [ "$SECONDS" -lt "$UNDERCROFT_JOIN_LIMIT_S" ] ||
            fail "$what: not within $UNDERCROFT_JOIN_LIMIT_S s; $(last_words)"
        sleep "${UNDERCROFT_PAUSE_S:-3}"
    done
}

# Of an older minor than the one that ran on this machine's data the unit would stay stopped.
refuse_older_minor() {
    local why
    [ -n "${UNDERCROFT_VERSION_PROGRAM:-}" ] || return 0
    why=$("$UNDERCROFT_VERSION_PROGRAM" look) || fail "$why"
}

need_file() {
    [ -s "$1" ] || fail "$1 is missing or empty: $2"
}

# install_whole MODE FROM TO: the file is there whole, on the disk, or not at all. A power cut in the
# middle of a write leaves an empty file under the name that is written to.
install_whole() {
    { install -D -m "$1" "$2" "$3.new" && sync "$3.new" && mv -f "$3.new" "$3" && sync "${3%/*}"; } ||
        fail "can't write $3"
}

begin() {
    mkdir -p "$state" "$run/cluster"
    report joining
}

finish() {
    : >"$marker"
    sync "$marker" 2>/dev/null || true
    rm -f "$join_env" "$starting"
    report joined
    say "this machine is a member of the cluster"
}
