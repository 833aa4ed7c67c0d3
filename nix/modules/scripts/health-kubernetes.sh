# shellcheck shell=bash
# Whether this machine's node is Ready, asked with the kubelet's own identity: it may read itself, and
# a node that was thrown out can't. Who answers for the cluster is the API at the kubelet's endpoint, or
# any server at its own address.
#
# An API that is away says nothing of this machine: the check ends with 75 then (see health.sh).
set -u
root=${UNDERCROFT_ROOT:-}
unit=${UNIT:?the unit that runs the kubelet}
kubeconfig=$root${KUBELET_CONFIG:?the kubeconfig of the kubelet}
node=${UNDERCROFT_NODE:?the name of this machine}
# Where each server listens, as URLs.
servers=${SERVERS:-}
# "1" on the only server of a cluster: its own API is a part of what runs on it.
sole=${SOLE_SERVER:-}
# How long one API is asked, and all of them, in seconds; the check itself has 40.
ask_s=6
all_s=25

# Before its turn to join the machine is as it should be without a cluster.
[ -e "$root${JOINED:?}" ] || {
    echo "has not joined yet"
    exit 0
}
[ -z "${VERSION_PROGRAM:-}" ] || "$VERSION_PROGRAM" look || exit 1
state=$(systemctl show --property=ActiveState --value "$unit")
case $state in
active) ;;
# k3s ends where it finds no server for long, and is started again.
activating) echo "$unit is being started, or ends and is started again" ;;
*)
    echo "$unit isn't running: it is ${state:-unknown}"
    exit 1
    ;;
esac
[ -s "$kubeconfig" ] || {
    echo "$kubeconfig is missing or empty"
    exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Asks one API for the node. 0: it is in $work/node. 1: it said no, which is in $work/said. 75: it
# said nothing of this node.
ask() {
    # KUBECTL may be two words.
    # shellcheck disable=SC2086
    timeout --kill-after=2 "$ask_s" ${KUBECTL:?} --kubeconfig "$kubeconfig" --request-timeout="$((ask_s - 1))s" "$@" \
        get --raw "/api/v1/nodes/$node" >"$work/node" 2>"$work/said" && return
    case $(tail -n 1 "$work/said") in
    "Error from server (NotFound)"* | "Error from server (Forbidden)"* | "error: You must be logged in to the server"*) return 1 ;;
    esac
    return 75
}

# Judges what a first API said; nothing where it was silent.
judge() {
    ask "$@"
    case $? in
    1)
        tail -n 1 "$work/said"
        exit 1
        ;;
    75) return ;;
    esac
    local ready
    ready=$(jq -r '[.status.conditions[]? | select(.type == "Ready")][0] | "\(.status): \(.message)"' "$work/node") || return
    case $ready in
    True*) [ "$state" = active ] && exit 0 ;;
    *) echo "Ready is $ready" ;;
    esac
    exit 1
}

judge
for server in $servers; do
    [ "$SECONDS" -lt "$all_s" ] || break
    judge --server "$server"
done
echo "no API server answered; the last word: $(tail -n 1 "$work/said")"
[ -z "$sole" ] || {
    echo "the cluster has no other server than this machine"
    exit 1
}
exit 75
