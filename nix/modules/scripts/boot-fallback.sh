# shellcheck shell=bash
# The machine isn't healthy. Where it runs a generation on trial, it goes back to the one that is
# the default; where it runs the default already, there is nothing better, and it stays up.
set -u

system=$(booted_system)
selected=$(loader_variable LoaderEntrySelected)
default=$(loader_variable LoaderEntryDefault)
good=$(proven_system)
if [ -z "$selected" ] || [ "$selected" = "$default" ] ||
    { [ -n "$system" ] && { [ "$system" = "$good" ] || [ "$system" = "$(system_of "$default")" ]; }; }; then
    say "${selected:-this generation} isn't healthy, and there is no other to go back to"
    report proven
    exit 0
fi
# The time limit of a trial is over while the last look found nothing that speaks against the machine.
boot_id=$(cat "$root/proc/sys/kernel/random/boot_id")
health=$(json_of "$run/health.json")
if [ "$(jq -r --arg boot_id "$boot_id" 'select(.boot_id? == $boot_id) | .gate' <<<"$health")" = true ]; then
    say "nothing was found against $selected; it isn't left"
    report trying
    exit 0
fi
to=$(entry_of "$good")
[ -n "$to" ] || to=$default
if ! have_entry "$to"; then
    say "$selected isn't healthy, and no earlier generation has proved itself"
    report trying
    exit 0
fi
# The default may have got another name since, or the firmware has lost it. One that it loses again is
# gone back to once: else the machine would do nothing but start.
if [ "$(system_of "$default")" != "$(system_of "$to")" ]; then
    if [ -n "$system" ] && [ "$(json_of "$state/fell-back.json" | jq -r '.system?')" = "$system" ]; then
        say "$selected isn't healthy and was left before; the firmware doesn't keep $to as its default"
        report trying
        exit 0
    fi
    if ! "$bootctl" --esp-path="$root$esp" set-default "$to"; then
        say "$selected isn't healthy, and the firmware's variables can't be written"
        report trying
        exit 0
    fi
fi

# Kept over the reboot: the controller reads there why its generation isn't the one that runs.
mkdir -p "$state"
jq -n --arg entry "$selected" --arg to "$to" --arg system "$system" --arg to_system "$(system_of "$to")" \
    --arg boot_id "$boot_id" \
    --argjson at_s "$(date +%s)" \
    --argjson health "$health" \
    '{entry: $entry, to: $to, system: $system, to_system: $to_system, boot_id: $boot_id, at_s: $at_s,
      failed: [$health.checks[]? | select(.ok or .gates == false or .answered == false | not) | {name, output}]}' \
    >"$state/fell-back.json.new" && mv -f "$state/fell-back.json.new" "$state/fell-back.json"
sync
say "$selected isn't healthy; going back to $to"
report fell-back
"${UNDERCROFT_SYSTEMCTL:-systemctl}" reboot
