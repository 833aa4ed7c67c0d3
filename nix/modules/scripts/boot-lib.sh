# shellcheck shell=bash
# What the boot scripts share. Variables of the firmware are read as the kernel shows them and
# written with bootctl, which knows their attributes.

root=${UNDERCROFT_ROOT:-}
run=${UNDERCROFT_RUN:-$root/run/undercroft}
state=${UNDERCROFT_STATE:-$root/var/lib/undercroft/boot}
esp=${UNDERCROFT_ESP:-/boot}
bootctl=${UNDERCROFT_BOOTCTL:-bootctl}

# The vendor of the loader's variables: https://systemd.io/BOOT_LOADER_INTERFACE/
loader_vendor=4a67b082-0a4c-41cf-b6c7-440b29bb8c4f

say() { echo "undercroft: $*" >&2; }

# Prints a variable of the boot loader's, or nothing. The file holds four bytes of attributes and
# then UTF-16; names of entries are ASCII. It can't be sought in, and tail gives up on such a file
# unless it comes through a pipe.
loader_variable() {
    local file=$root/sys/firmware/efi/efivars/$1-$loader_vendor
    [ -r "$file" ] || return 0
    # shellcheck disable=SC2002
    cat "$file" | tail -c +5 | tr -d '\000'
}

# Whether an entry is there to be booted.
have_entry() {
    [ -n "$1" ] && [ -e "$root$esp/loader/entries/$1" ]
}

# Prints a file's JSON, or null where there is none or only half of it.
json_of() {
    { [ -s "$1" ] && jq --compact-output . "$1" 2>/dev/null; } || echo null
}

# Writes what is known about this boot for the controller to read. Nothing else depends on it.
report() {
    mkdir -p "$run"
    if jq -n --arg selected "$(loader_variable LoaderEntrySelected)" \
        --arg default "$(loader_variable LoaderEntryDefault)" \
        --arg state "$1" \
        --argjson fell_back "$(json_of "$state/fell-back.json")" \
        '{version: 1, selected: $selected, default: $default, state: $state, fell_back: $fell_back}' \
        >"$run/boot.json.new"; then
        mv -f "$run/boot.json.new" "$run/boot.json"
    else
        say "can't write $run/boot.json"
    fi
}
