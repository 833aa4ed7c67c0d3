# shellcheck shell=bash
# Whether this machine has its address, which the kernel knows: nobody else is asked.
#
# A card without a carrier says nothing of this machine, as its switch may be off: the check ends with
# 75 then (see health.sh).
set -u
root=${UNDERCROFT_ROOT:-}
address=${ADDRESS:?the address of this machine}
# The card that has it: its name, or its Ethernet address, or neither for any card.
interface=${INTERFACE:-}
mac=${MAC:-}

ip -o -4 address show | grep --quiet --fixed-strings " inet $address/" && exit 0

cards=()
for each in "$root"/sys/class/net/*; do
    if [ -n "$interface" ]; then
        [ "${each##*/}" = "$interface" ] || continue
    else
        [ -e "$each/device" ] || continue
        [ -z "$mac" ] || [ "$(cat "$each/address")" = "$mac" ] || continue
    fi
    cards+=("$each")
done
[ "${#cards[@]}" -gt 0 ] || {
    echo "there is no network card ${interface:-$mac}: its driver is missing, or it is"
    exit 1
}
silent=
for each in "${cards[@]}"; do
    # Of a card that nobody brought up it can't be read.
    case $(cat "$each/carrier" 2>/dev/null) in
    1)
        echo "${each##*/} has a carrier, and the machine doesn't have $address"
        exit 1
        ;;
    0) silent="$silent ${each##*/}" ;;
    esac
done
[ -n "$silent" ] || {
    echo "no network card was brought up"
    exit 1
}
echo "no carrier at$silent"
exit 75
