# shellcheck shell=bash
# Runs after the boot loader's entries are written. The new generation is booted once; the one
# that last proved itself stays the default, so that any reset in between ends there.
set -u

# NixOS' installer writes the new generation's entry as the default of loader.conf; the variable
# LoaderEntryDefault, where it is set, outranks that.
entry=$(sed -n 's/^default[[:space:]]\{1,\}//p' "$root$esp/loader/loader.conf" 2>/dev/null | tail -n 1)
have_entry "$entry" || entry=$(entry_of "$(readlink -f "$profiles/system")")

if [ "${NIXOS_INSTALL_BOOTLOADER:-}" = 1 ]; then
    # A new installation: what an earlier one left in the firmware would name entries that aren't
    # there, or others of the same name.
    "$bootctl" --esp-path="$root$esp" set-oneshot "" 2>/dev/null || true
    "$bootctl" --esp-path="$root$esp" set-default "" 2>/dev/null || true
    exit 0
fi

good=$(entry_of "$(proven_system)")
if [ -z "$good" ]; then
    # From before proven generations were kept.
    good=$(loader_variable LoaderEntryDefault)
fi
if ! have_entry "$good"; then
    # Nothing has proved itself yet: what runs at least came up.
    good=$(entry_of "$(booted_system)")
    [ -n "$good" ] || good=$(loader_variable LoaderEntrySelected)
fi
if [ -z "$entry" ] || ! have_entry "$good"; then
    say "the boot loader doesn't tell which entry runs; the new generation becomes the default at once"
    exit 0
fi

# The default first: a power cut between the two leaves the old generation in place.
if ! "$bootctl" --esp-path="$root$esp" set-default "$good"; then
    say "the firmware's variables can't be written; the new generation becomes the default at once"
    exit 0
fi
system=$(system_of "$entry")
if [ "$entry" = "$good" ] || { [ -n "$system" ] && [ "$system" = "$(system_of "$good")" ]; }; then
    "$bootctl" --esp-path="$root$esp" set-oneshot "" || true
    exit 0
fi
if ! "$bootctl" --esp-path="$root$esp" set-oneshot "$entry"; then
    # Without the one try the new generation would never be booted at all.
    "$bootctl" --esp-path="$root$esp" set-default "" || true
    say "the boot loader can't try $entry once; it becomes the default at once"
    exit 0
fi
say "$entry is booted once; $good stays the default until the machine is healthy"
