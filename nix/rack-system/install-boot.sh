#!@busybox@/bin/sh
# Writes the boot files of every generation of the system profile to the ESP: what NixOS' builder
# for systemd-boot does. Each file is written beside its place, synced and renamed, and compared
# first: a run that a power cut ended is put right by running it again.
set -eu
PATH=@out@/sw/bin
export PATH
BOOT=/boot
PROFILE=/nix/var/nix/profiles/system
# As many as fit on the ESP, with room for the next one.
MAX_GENERATIONS=6

fail() {
    echo "install-boot: $*" >&2
    exit 1
}
grep -q " $BOOT vfat " /proc/mounts || fail "no FAT file system is mounted at $BOOT"
[ -e "$PROFILE" ] || fail "$PROFILE doesn't exist"
mkdir -p $BOOT/EFI/nixos $BOOT/EFI/systemd $BOOT/EFI/BOOT $BOOT/loader/entries

# put SOURCE TARGET
put() {
    cmp -s "$1" "$2" && return
    cp "$1" "$2.new"
    sync -d "$2.new"
    cmp -s "$1" "$2.new" || fail "$2 doesn't read back as it was written; is the ESP full?"
    mv -f "$2.new" "$2"
}

# put_text TARGET, with the text on the standard input
put_text() {
    cat >"/run/install-boot.$$"
    put "/run/install-boot.$$" "$1"
    rm -f "/run/install-boot.$$"
}

# The name of a store file on the ESP: its store path, which is as good as its content.
esp_name() {
    path=${1#/nix/store/}
    printf 'EFI/nixos/%s.efi' "$(printf '%s' "$path" | tr / -)"
}

default=$(basename "$(readlink $PROFILE)")
default=${default#system-}
default=${default%-link}
generations=$(for link in $PROFILE-*-link; do
    number=${link#"$PROFILE"-}
    echo "${number%-link}"
done | sort -n | tail -n $MAX_GENERATIONS)
case " $(echo $generations) " in *" $default "*) ;; *) generations="$default $generations" ;; esac

keep=
for number in $generations; do
    system=$(readlink -f "$PROFILE-$number-link")
    [ -e "$system/init" ] || continue
    kernel=$(readlink -f "$system/kernel")
    initrd=$(readlink -f "$system/initrd")
    put "$kernel" "$BOOT/$(esp_name "$kernel")"
    put "$initrd" "$BOOT/$(esp_name "$initrd")"
    keep="$keep $(esp_name "$kernel") $(esp_name "$initrd") nixos-generation-$number.conf"
    put_text "$BOOT/loader/entries/nixos-generation-$number.conf" <<ENTRY
title Undercroft rack system
sort-key nixos
version Generation $number, $(cat "$system/nixos-version")
linux /$(esp_name "$kernel")
initrd /$(esp_name "$initrd")
options init=$system/init $(cat "$system/kernel-params")
ENTRY
done
put @loader@/systemd-boot@efi@.efi "$BOOT/EFI/systemd/systemd-boot@efi@.efi"
put @loader@/systemd-boot@efi@.efi "$BOOT/EFI/BOOT/BOOT$(printf '%s' @efi@ | tr a-z A-Z).EFI"
# The default last: it must never name an entry that isn't there.
put_text $BOOT/loader/loader.conf <<LOADER
timeout 0
default nixos-generation-$default.conf
console-mode keep
LOADER

# Only now may the files of generations that are gone go too.
for file in $BOOT/EFI/nixos/* $BOOT/loader/entries/nixos-generation-*; do
    [ -e "$file" ] || continue
    case "$keep " in
    *" ${file#$BOOT/} "* | *" ${file##*/} "*) ;;
    *) rm -f "$file" ;;
    esac
done
sync
echo "install-boot: default nixos-generation-$default.conf of $(echo "$generations" | wc -w) generations"
