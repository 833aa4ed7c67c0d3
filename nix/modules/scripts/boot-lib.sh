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

# The generation that last proved itself, as a system profile of its own. So it is a root of Nix' garbage
# collector, of which `nix-collect-garbage -d` leaves the current generation; and whoever writes the boot
# menu's entries writes one for it, as each profile's generations are counted by themselves.
profiles=$root/nix/var/nix/profiles
proven=$profiles/system-profiles/undercroft-proven

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

# Prints the system that an entry starts, by its init=. An entry's name says nothing: numbers are used
# again, and newer releases of NixOS name entries by a hash.
system_of() {
    local key rest
    have_entry "$1" || return 0
    while read -r key rest || [ -n "$key" ]; do
        [ "$key" = options ] || continue
        [[ " $rest " =~ \ init=([^ ]+)/init\  ]] && echo "${BASH_REMATCH[1]}"
    done <"$root$esp/loader/entries/$1"
}

# Prints the entry that starts a system. Of several, that of the proven generation's own profile, which
# isn't cleared away with its number.
entry_of() {
    local each key rest found=''
    [ -n "$1" ] || return 0
    for each in "$root$esp"/loader/entries/*.conf; do
        [ "$(system_of "${each##*/}")" = "$1" ] || continue
        found=${each##*/}
        while read -r key rest; do
            [ "$key" = title ] && [[ $rest == *"[${proven##*/}]"* ]] && break 2
        done <"$each"
    done
    echo "$found"
}

# Prints the system that was booted, as its kernel was told.
booted_system() {
    local words
    words=$(cat "$root/proc/cmdline" 2>/dev/null)
    [[ " $words " =~ \ init=([^ ]+)/init\  ]] && echo "${BASH_REMATCH[1]}"
}

# Prints the system that last proved itself, where it is still there.
proven_system() {
    local system
    system=$(readlink "$proven-1-link") && [ -e "$root$system" ] && echo "$system"
}

# Keeps a system as the one that proved itself. Every name ends as those of generations do: whatever else
# lies beside the profile is taken for another profile.
keep_proven() {
    mkdir -p "${proven%/*}" || return
    ln -sfn "$1" "$proven-new-link" && mv -fT "$proven-new-link" "$proven-1-link" || return
    [ -L "$proven" ] ||
        { ln -sfn "${proven##*/}-1-link" "$proven-profile-link" && mv -fT "$proven-profile-link" "$proven"; }
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
        --arg system "$(booted_system)" --arg proven "$(proven_system)" \
        --argjson fell_back "$(json_of "$state/fell-back.json")" \
        '{version: 1, selected: $selected, default: $default, state: $state, system: $system, proven: $proven, fell_back: $fell_back}' \
        >"$run/boot.json.new"; then
        mv -f "$run/boot.json.new" "$run/boot.json"
    else
        say "can't write $run/boot.json"
    fi
}
