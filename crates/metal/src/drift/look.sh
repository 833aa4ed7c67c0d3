# What a machine says of itself, for a look that changes nothing: lines of a tag, a tab and a value. What can't be
# told is left out, so that nobody takes silence for "nothing is wrong". Files that users of the machine can write
# come line by line behind a tag.
root=
LC_ALL=C
export LC_ALL
# The vendor of the boot loader's variables: https://systemd.io/BOOT_LOADER_INTERFACE/
loader=4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
# The largest file of each kind that is read, in bytes, and how long a user's file may take, in seconds.
report_bytes=262144
keys_bytes=65536
keys_s=5

tell() { printf '%s\t%s\n' "$1" "$2"; }

# Where a link leads; its text where the end isn't there.
leads() {
    [ -L "$root$1" ] || return 0
    readlink -f "$root$1" 2>/dev/null || readlink "$root$1" 2>/dev/null
}

# A report of the machine's own, in one line.
report() {
    [ -f "$root/run/undercroft/$2" ] || return 0
    tell "$1" "$(head -c "$report_bytes" "$root/run/undercroft/$2" | tr '\n\t\r\000' '    ')"
}

# Total and free KiB of the file system that a folder is on.
room() {
    df -P -k "$root$2" 2>/dev/null | while read -r _ total _ free _; do
        case $total$free in
        *[!0-9]* | '') ;;
        *) tell "$1" "$total $free" ;;
        esac
    done
}

# The folder of the EFI system partition, where there is one with a boot menu.
esp() {
    for each in /boot /efi /boot/efi; do
        [ -d "$root$each/loader" ] && echo "$each" && return
    done
}

# The system that an entry of the boot menu starts, by its init=.
system_of() {
    case $1 in
    '' | */*) return 0 ;;
    esac
    sed -n 's/^options[[:space:]]\{1,\}\(.*[[:space:]]\)\{0,1\}init=\([^[:space:]]*\)\/init\([[:space:]].*\)\{0,1\}$/\2/p' \
        "$root$2/loader/entries/$1" 2>/dev/null | head -n 1
}

boot() {
    menu=$(esp)
    [ -n "$menu" ] || return 0
    room esp "$menu"
    variable=$root/sys/firmware/efi/efivars/LoaderEntryDefault-$loader
    # The file can't be sought in, and tail gives up on such a file unless it comes through a pipe.
    # shellcheck disable=SC2002
    default=$(cat "$variable" 2>/dev/null | tail -c +5 | tr -d '\000')
    tell default "$(system_of "$default" "$menu")"
    proven=$(readlink "$root/nix/var/nix/profiles/system-profiles/undercroft-proven-1-link" 2>/dev/null)
    [ -z "$proven" ] || tell proven "$proven"
    sizes=$(stat -L -c %s "$root/run/current-system/kernel" "$root/run/current-system/initrd" 2>/dev/null)
    bytes=0
    for each in $sizes; do bytes=$((bytes + each)); done
    [ "$bytes" -eq 0 ] || tell boot-files "$bytes"
}

# Each line of a file that may be a key, behind the account and the name of the file.
key_lines() {
    [ -f "$3" ] || return 0
    if [ "$(timeout "$keys_s" head -c $((keys_bytes + 1)) "$3" | wc -c)" -gt "$keys_bytes" ]; then
        tell keys lost
        return 0
    fi
    timeout "$keys_s" head -c "$keys_bytes" "$3" | tr '\t\r\000' '   ' | grep -E '(ssh|ecdsa)-' |
        while IFS= read -r line || [ -n "$line" ]; do
            printf 'key\t%s\t%s\t%s\n' "$1" "$2" "$line"
        done
}

keys() {
    named=$root/run/current-system/etc/ssh/authorized_keys.d
    # Without it nobody knows what the system itself names.
    [ -d "$named/" ] && [ -r "$root/etc/passwd" ] || return 0
    for each in "$named"/*; do
        case $each in
        # How NixOS notes the mode of a file.
        *.mode | *.uid | *.gid) ;;
        *) key_lines "${each##*/}" '' "$each" ;;
        esac
    done
    files=$(sed -n 's/^[[:space:]]*AuthorizedKeysFile[[:space:]]\{1,\}//p' "$root/etc/ssh/sshd_config" 2>/dev/null | head -n 1)
    # No name of a file there is a pattern.
    set -f
    # sshd_config(5), AuthorizedKeysFile.
    [ -n "$files" ] || files='.ssh/authorized_keys .ssh/authorized_keys2'
    while IFS=: read -r user _ _ _ _ home _; do
        for each in $files; do
            each=$(printf '%s' "$each" | sed "s#%h#$home#g; s#%u#$user#g; s#%%#%#g")
            case $each in
            none) continue ;;
            /*) ;;
            *) each=$home/$each ;;
            esac
            key_lines "$user" "$each" "$root$each"
        done
    done <"$root/etc/passwd"
    set +f
    tell keys told
}

units() {
    failed=$(systemctl list-units --state=failed --plain --no-legend --no-pager --full 2>/dev/null) || return 0
    printf '%s\n' "$failed" | while read -r unit _; do
        [ -z "$unit" ] || tell unit "$unit"
    done
    tell units told
}

tell drift 1
tell boot "$(cat "$root/proc/sys/kernel/random/boot_id" 2>/dev/null)"
tell time "$(date +%s)"
tell current "$(leads /run/current-system)"
tell booted "$(leads /run/booted-system)"
report boot-report boot.json
report health-report health.json
room store /nix/store
boot
units
keys
tell end ''
