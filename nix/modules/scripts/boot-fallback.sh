# shellcheck shell=bash
# The machine isn't healthy. Where it runs a generation on trial, it goes back to the one that is
# the default; where it runs the default already, there is nothing better, and it stays up.
set -u

selected=$(loader_variable LoaderEntrySelected)
default=$(loader_variable LoaderEntryDefault)
if [ -z "$selected" ] || [ "$selected" = "$default" ]; then
    say "${selected:-this generation} isn't healthy, and there is no other to go back to"
    report proven
    exit 0
fi
if ! have_entry "$default"; then
    say "$selected isn't healthy, and no earlier generation has proved itself"
    report trying
    exit 0
fi

# Kept over the reboot: the controller reads there why its generation isn't the one that runs.
mkdir -p "$state"
jq -n --arg entry "$selected" --arg to "$default" --arg boot_id "$(cat "$root/proc/sys/kernel/random/boot_id")" \
    --argjson at_s "$(date +%s)" \
    --argjson health "$(json_of "$run/health.json")" \
    '{entry: $entry, to: $to, boot_id: $boot_id, at_s: $at_s,
      failed: [$health.checks[]? | select(.ok or .gates == false or .answered == false | not) | {name, output}]}' \
    >"$state/fell-back.json.new" && mv -f "$state/fell-back.json.new" "$state/fell-back.json"
sync
say "$selected isn't healthy; going back to $default"
report fell-back
"${UNDERCROFT_SYSTEMCTL:-systemctl}" reboot
