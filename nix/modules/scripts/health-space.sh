# shellcheck shell=bash
# Whether no file system of the machine's own is full. SPACE: a folder on each, with the percents at
# which it is said, as FOLDER=PERCENT. Where several are on one file system the lowest counts.
set -u
root=${UNDERCROFT_ROOT:-}
declare -A limits fullness
for each in ${SPACE:?}; do
    at=$root${each%=*} limit=${each##*=}
    [ -e "$at" ] || continue
    read -r percent target < <(df --output=pcent,target "$at" 2>/dev/null | tail -n 1)
    case ${percent:-} in
    [0-9]*%) ;;
    *) continue ;;
    esac
    fullness[$target]=${percent%\%}
    [ "$limit" -ge "${limits[$target]:-100}" ] || limits[$target]=$limit
done
bad=0
for target in "${!fullness[@]}"; do
    [ "${fullness[$target]}" -ge "${limits[$target]:-100}" ] || continue
    echo "$target is ${fullness[$target]}% full; ${limits[$target]:-100}% is too much"
    bad=1
done
exit "$bad"
