# Says what the machine runs, what it would boot next, and what it says of its latest boots, a line each: a word and a
# value. Reads alone. Of each file no more is read than such a file has.
vendor=4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
variable() {
    cat "/sys/firmware/efi/efivars/$1-$vendor" 2>/dev/null | tail -c +5 | tr -d '\000'
}
esp=/boot
for at in /boot /efi /boot/efi; do
    [ -d "$at/loader/entries" ] && esp=$at && break
done
# The system that an entry starts, by its init=: an entry's name says nothing.
system_of() {
    [ -n "$1" ] && sed -n 's|^options.* init=\([^ ]*\)/init\( .*\)\{0,1\}$|\1|p;s|^options[[:space:]]*init=\([^ ]*\)/init\( .*\)\{0,1\}$|\1|p' \
        "$esp/loader/entries/$1" 2>/dev/null | head -n 1
}
line() {
    printf '%s %s\n' "$1" "$2"
}
line boot-id "$(cat /proc/sys/kernel/random/boot_id)"
line booted "$(readlink -f /run/booted-system 2>/dev/null)"
line current "$(readlink -f /run/current-system 2>/dev/null)"
line profile "$(readlink -f /nix/var/nix/profiles/system 2>/dev/null)"
default=$(variable LoaderEntryDefault)
[ -n "$default" ] || default=$(sed -n 's/^default[[:space:]]\{1,\}//p' "$esp/loader/loader.conf" 2>/dev/null | tail -n 1)
line once "$(system_of "$(variable LoaderEntryOneShot)")"
line default "$(system_of "$default")"
line report "$(head -c 65536 /run/undercroft/boot.json 2>/dev/null | tr '\n' ' ')"
line fell-back "$(head -c 65536 /var/lib/undercroft/boot/fell-back.json 2>/dev/null | tr '\n' ' ')"
