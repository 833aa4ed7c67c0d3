# shellcheck shell=bash
# The machine came up healthy: what was booted becomes the default.
set -u

selected=$(loader_variable LoaderEntrySelected)
if ! have_entry "$selected"; then
    say "the boot loader doesn't tell which entry it booted; its default stays as it is"
    report unknown
    exit 0
fi
if [ "$(loader_variable LoaderEntryDefault)" != "$selected" ]; then
    "$bootctl" --esp-path="$root$esp" set-default "$selected" || exit 1
    say "$selected came up healthy and is now the default"
fi
# Of one that didn't, what was written is true until another than it fell back to is the default.
# Looked at in each boot: the power may have gone right after the default was written.
if [ "$(json_of "$state/fell-back.json" | jq -r '.to?')" != "$selected" ]; then
    rm -f "$state/fell-back.json"
fi
report proven
