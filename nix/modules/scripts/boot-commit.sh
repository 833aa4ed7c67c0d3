# shellcheck shell=bash
# The machine came up healthy: what was booted is kept as the generation that proved itself, and becomes
# the default.
set -u

system=$(booted_system)
selected=$(loader_variable LoaderEntrySelected)
default=$(loader_variable LoaderEntryDefault)
# Before it is the default: what is the default is never without its root.
if [ -n "$system" ] && [ "$system" != "$(proven_system)" ]; then
    keep_proven "$system" || say "can't keep $system as the generation that proved itself"
fi

entry=$selected
if [ -n "$system" ] && [ "$(system_of "$selected")" != "$system" ]; then
    entry=$(entry_of "$system")
fi
if ! have_entry "$entry"; then
    say "the boot loader doesn't tell which entry it booted; its default stays as it is"
    report unknown
    exit 0
fi
if [ "$default" != "$entry" ] && { [ -z "$system" ] || [ "$(system_of "$default")" != "$system" ]; }; then
    "$bootctl" --esp-path="$root$esp" set-default "$entry" || exit 1
    say "$entry came up healthy and is now the default"
fi
# Of one that didn't, what was written is true until another than it fell back to is the default.
# Looked at in each boot: the power may have gone right after the default was written.
fell_back=$(json_of "$state/fell-back.json")
if [ "$(jq -r '.to_system? // ""' <<<"$fell_back")" != "$system" ] ||
    { [ -z "$system" ] && [ "$(jq -r '.to?' <<<"$fell_back")" != "$entry" ]; }; then
    rm -f "$state/fell-back.json"
fi
report proven
