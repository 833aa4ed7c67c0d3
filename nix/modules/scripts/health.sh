# shellcheck shell=bash
# Says whether this machine is what it should be.
#
#     undercroft-health --once             run every check once and print the result
#     undercroft-health --wait SECONDS     repeat until every check passes, SECONDS at most
#
# The result is JSON in $UNDERCROFT_RUN/health.json, written whole or not at all. Exit 0: no check
# that gates was failed. Exit 1: one was. Exit 64: wrong usage.
#
# A check that ends with 75 asked somebody else, and nobody answered: that says nothing of this
# machine. It is waited for as long as there is time, and holds nothing against the machine then.
set -u

checks=${UNDERCROFT_HEALTH_CHECKS:?the file that lists the checks}
root=${UNDERCROFT_ROOT:-}
run=${UNDERCROFT_RUN:-$root/run/undercroft}
node=${UNDERCROFT_NODE:-$(uname -n)}
# Between two rounds, in seconds.
pause=${UNDERCROFT_HEALTH_PAUSE_S:-5}
# EX_TEMPFAIL of sysexits.h, by which a check says that nobody answered.
silence=75
# What is kept of a check's output, in bytes from its end.
output_bytes=600

usage() {
    echo "usage: undercroft-health --once | --wait SECONDS" >&2
    exit 64
}

wait_s=0
case ${1:-} in
--once) [ $# -eq 1 ] || usage ;;
--wait)
    [ $# -eq 2 ] || usage
    wait_s=$2
    case $wait_s in
    '' | *[!0-9]*) usage ;;
    esac
    ;;
*) usage ;;
esac

mkdir -p "$run"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Runs one check with its time limit; its exit code and the end of its output go to files.
one() {
    local place=$1 limit_s=$2 script=$3 code=0
    timeout --kill-after=5 "$limit_s" "$script" >"$work/$place.output" 2>&1 </dev/null || code=$?
    if [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then
        echo "no answer within $limit_s s" >>"$work/$place.output"
    fi
    tail -c "$output_bytes" "$work/$place.output" | tr -d '\000' >"$work/$place.end"
    echo "$code" >"$work/$place.code"
}

# Runs every check at the same time, as each has its own limit, and writes the result.
round() {
    local place=0 limit_s script
    jq -r '.checks[] | [.timeoutSec, .script] | @tsv' "$checks" >"$work/list" || return 1
    while IFS=$'\t' read -r limit_s script; do
        one "$place" "$limit_s" "$script" &
        place=$((place + 1))
    done <"$work/list"
    wait

    local results=$work/results
    : >"$results"
    local each
    for ((each = 0; each < place; each++)); do
        # A check that left no code was killed with its shell.
        jq -c --argjson place "$each" \
            --argjson code "$(cat "$work/$each.code" 2>/dev/null || echo 255)" \
            --argjson silence "$silence" \
            --rawfile output "$work/$each.end" \
            '.checks[$place] | {name, description, gates, ok: ($code == 0), answered: ($code != $silence), exit_code: $code, output: ($output | rtrimstr("\n"))}' \
            "$checks" >>"$results" || return 1
    done

    jq -s \
        --arg node "$node" \
        --arg boot_id "$(cat "$root/proc/sys/kernel/random/boot_id" 2>/dev/null)" \
        --arg system "$(readlink -f "$root/run/current-system" 2>/dev/null)" \
        --arg booted_system "$(readlink -f "$root/run/booted-system" 2>/dev/null)" \
        --arg generation "$(readlink "$root/nix/var/nix/profiles/system" 2>/dev/null)" \
        --argjson checked_at_s "$(date +%s)" \
        '{
            version: 1,
            node: $node,
            boot_id: $boot_id,
            system: $system,
            booted_system: $booted_system,
            generation: $generation,
            checked_at_s: $checked_at_s,
            healthy: all(.[]; .ok),
            gate: all(.[]; .ok or (.gates and .answered | not)),
            unanswered: [.[] | select(.answered | not) | .name],
            checks: .
        }' "$results" >"$run/health.json.new" || return 1
    mv -f "$run/health.json.new" "$run/health.json"
    # The machine may yet be answered: what it waits for is every check that gates.
    local gate
    read -r gate all < <(jq -r '"\(.gate) \(all(.checks[]; .ok or (.gates | not)))"' "$run/health.json")
    [ "$gate" = true ]
}

until_s=$((SECONDS + wait_s))
while :; do
    passed=''
    all=''
    if round; then
        passed=1
    fi
    if [ "$all" = true ] || [ "$SECONDS" -ge "$until_s" ]; then
        break
    fi
    sleep "$pause"
done

if [ "$wait_s" -eq 0 ]; then
    cat "$run/health.json"
else
    jq -r '.checks[] | select(.ok | not) | "\(.name): \(.output | gsub("\n"; "; "))"' "$run/health.json" >&2
fi
[ -n "$passed" ]
