# Shared by the programs beside it. POSIX sh; runs under busybox ash and bash.
#
# UNDERCROFT_ROOT is put before /sys, /proc, /dev and /run: tests give a made-up machine there.

PATH=${PATH:+$PATH:}/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin
export PATH
R=${UNDERCROFT_ROOT:-}
SYS=$R/sys
PROC=$R/proc
STATE=$R/run/undercroft
MNT=${UNDERCROFT_MNT:-/mnt}
PROGRAM=${0##*/}

EXIT_FAILED=1
EXIT_NOT_YET=10
EXIT_NO_DISK=20
EXIT_AMBIGUOUS_DISK=21
EXIT_DISK_TOO_SMALL=22
EXIT_DISK_IN_USE=23
EXIT_NO_CLOSURE=30
EXIT_NOT_A_SYSTEM=31
EXIT_BOOT_LOADER=32
EXIT_NOT_BOOTABLE=33
EXIT_BAD_PATH=40
EXIT_NOT_MOUNTED=41
EXIT_USAGE=64

say() { printf '%s: %s\n' "$PROGRAM" "$*" >&2; }

# die CODE MESSAGE...
die() {
    code=$1
    shift
    say "$*"
    exit "$code"
}

usage() { die $EXIT_USAGE "usage: $*"; }

# One line of a file, without the blanks around it; empty if there is no such file.
line_of() {
    line=
    [ -r "$1" ] && IFS=' 	' read -r line <"$1" 2>/dev/null
    printf '%s' "$line"
}

# A JSON string, or null for an empty one. Everything that isn't printable ASCII is dropped:
# serial numbers come from the hardware and may hold anything.
json() {
    [ -n "$1" ] || {
        printf null
        return
    }
    case $1 in
    *[!0-9A-Za-z\ ._:/+=@,\(\)-]*)
        printf '"%s"' "$(printf '%s' "$1" | LC_ALL=C tr -dc ' -~' | sed 's/[\\"]/\\&/g')"
        ;;
    *) printf '"%s"' "$1" ;;
    esac
}

lower() { printf '%s' "$1" | tr A-Z a-z; }

# The names of the machine's disks, in the kernel's order.
disks() {
    for block in "$SYS"/block/*; do
        name=${block##*/}
        case $name in
        loop* | ram* | zram* | dm-* | md* | sr* | fd* | nbd* | mtdblock* | '*') continue ;;
        mmcblk*boot* | mmcblk*rpmb) continue ;;
        esac
        case $(line_of "$block/size") in '' | 0) continue ;; esac
        printf '%s\n' "$name"
    done
}

disk_bytes() { echo $(($(line_of "$SYS/block/$1/size") * 512)); }

disk_serial() {
    block=$SYS/block/$1
    if [ -r "$block/serial" ]; then
        line_of "$block/serial"
    elif [ -r "$block/device/serial" ]; then
        line_of "$block/device/serial"
    elif [ -r "$block/device/vpd_pg80" ]; then
        # SCSI's "unit serial number" page: 4 bytes of header, then the number (SPC-4, 7.8.16).
        set -- $(tail -c +5 "$block/device/vpd_pg80" 2>/dev/null | LC_ALL=C tr -dc ' -~')
        printf '%s' "$*"
    fi
}

# The World Wide Name as lsblk prints it: naa numbers as 0x..., NVMe's own as they are.
disk_wwn() {
    block=$SYS/block/$1
    wwid=$(line_of "$block/wwid")
    [ -n "$wwid" ] || wwid=$(line_of "$block/device/wwid")
    case $wwid in
    naa.*) printf '0x%s' "${wwid#naa.}" ;;
    eui.* | uuid.*) printf '%s' "$wwid" ;;
    esac
}

disk_transport() {
    case $1 in
    nvme*) printf nvme ;;
    vd*) printf virtio ;;
    mmcblk*) printf mmc ;;
    *)
        case $(readlink -f "$SYS/block/$1") in
        */usb*) printf usb ;;
        */ata*) printf sata ;;
        *) printf scsi ;;
        esac
        ;;
    esac
}

disks_json() {
    comma=
    printf '['
    for name in $(disks); do
        printf '%s{"path":"/dev/%s","serial":%s,"wwn":%s,"size_bytes":%s,"model":%s,"transport":"%s"}' \
            "$comma" "$name" "$(json "$(disk_serial "$name")")" "$(json "$(disk_wwn "$name")")" \
            "$(disk_bytes "$name")" "$(json "$(line_of "$SYS/block/$name/device/model")")" \
            "$(disk_transport "$name")"
        comma=,
    done
    printf ']'
}

# The Ethernet interfaces that are hardware (ARPHRD_ETHER is 1).
interfaces() {
    for net in "$SYS"/class/net/*; do
        [ -e "$net/device" ] && [ "$(line_of "$net/type")" = 1 ] || continue
        printf '%s\n' "${net##*/}"
    done
}

macs_json() {
    comma=
    printf '['
    for name in $(interfaces); do
        printf '%s"%s"' "$comma" "$(line_of "$SYS/class/net/$name/address")"
        comma=,
    done
    printf ']'
}

machine_uuid() {
    uuid=$(lower "$(line_of "$SYS/class/dmi/id/product_uuid")")
    case $uuid in
    00000000-0000-0000-0000-000000000000 | ffffffff-ffff-ffff-ffff-ffffffffffff) ;;
    ????????-????-????-????-????????????) printf '%s' "$uuid" ;;
    esac
}

firmware() {
    if [ -d "$SYS/firmware/efi" ]; then
        printf uefi
    elif [ -d "$SYS/firmware/devicetree/base" ] && [ ! -d "$SYS/class/dmi/id" ]; then
        printf device-tree
    else
        printf bios
    fi
}

nix_system() { printf '%s-linux' "${UNDERCROFT_MACHINE:-$(uname -m)}"; }
boot_id() { line_of "$PROC/sys/kernel/random/boot_id"; }

memory_mb() {
    while read -r key value _; do
        [ "$key" = MemTotal: ] && echo $((value / 1024)) && return
    done <"$PROC/meminfo"
    echo 0
}

# The fields that the report and /undercroft/inspect have in common.
facts_json() {
    printf '"version":1,"nonce":%s,"uuid":%s,"macs":%s,"address":%s,"boot_id":%s,' \
        "$(json "$(line_of "$STATE/nonce")")" "$(json "$(machine_uuid)")" "$(macs_json)" \
        "$(json "$(line_of "$STATE/address")")" "$(json "$(boot_id)")"
    printf '"host_key":%s,"fingerprint":%s,"system":"%s","firmware":"%s","memory_mb":%s,' \
        "$(json "$(line_of "$STATE/host_key")")" "$(json "$(line_of "$STATE/fingerprint")")" \
        "$(nix_system)" "$(firmware)" "$(memory_mb)"
    printf '"installer":%s,"token":%s,"disks":%s' \
        "$(json "$(line_of "$R/etc/undercroft-installer")")" \
        "$(json "$(parameter undercroft.token)")" "$(disks_json)"
}

# The value of a word of the kernel's command line, such as undercroft.report=URL.
parameter() {
    for word in $(cat "$PROC/cmdline"); do
        case $word in "$1="*) printf '%s' "${word#*=}" && return ;; esac
    done
    return 1
}

# Whether something is mounted at a path.
mounted() {
    while read -r _ at _; do [ "$at" = "$1" ] && return 0; done <"$PROC/mounts"
    return 1
}

# What is mounted at a path, the last of several.
mounted_device() {
    device=
    while read -r from at _; do [ "$at" = "$1" ] && device=$from; done <"$PROC/mounts"
    printf '%s' "$device"
}

# Unmounts everything at and below a path, the deepest first.
unmount_tree() {
    sync
    while read -r _ at _; do
        case $at in "$1" | "$1"/*) printf '%s\n' "$at" ;; esac
    done <"$PROC/mounts" | sort -r | while read -r at; do
        umount "$at" || return 1
    done
}

# partition DISK NUMBER: the kernel puts a p between where the disk's name ends with a digit.
partition_of() {
    case $1 in
    *[0-9]) printf '%sp%s' "$1" "$2" ;;
    *) printf '%s%s' "$1" "$2" ;;
    esac
}

# The device files of a disk's own partitions, from the kernel and not from their names:
# /dev/nvme0n10 begins with the name of /dev/nvme0n1 and is another disk.
partitions_of() {
    for part in "$SYS/block/$1/$1"*; do
        [ -e "$part/partition" ] && printf '/dev/%s\n' "${part##*/}"
    done
}

# find_disk SERIAL WWN: finds the one disk that is meant; either may be empty, and what is given must
# be what the disk says. Sets name. It is the rule of DiskIdentity::matches: serial numbers letter by
# letter, the hexadecimal digits of WWNs in either case.
find_disk() {
    wanted_serial=$1
    wanted_wwn=$(lower "$2")
    wanted="${1:+serial number '$1'}${1:+${2:+ and }}${2:+WWN '$2'}"
    [ -n "$wanted" ] || die $EXIT_NO_DISK "a disk without serial number and WWN is no disk"
    found=
    seen=
    for name in $(disks); do
        serial=$(disk_serial "$name")
        wwn=$(disk_wwn "$name")
        seen="$seen /dev/$name(serial=${serial:-none},wwn=${wwn:-none})"
        [ -z "$wanted_serial" ] || [ "$serial" = "$wanted_serial" ] || continue
        [ -z "$wanted_wwn" ] || [ "$(lower "$wwn")" = "$wanted_wwn" ] || continue
        found="$found $name"
    done
    set -- $found
    case $# in
    0) die $EXIT_NO_DISK "no disk has the $wanted; this machine has:${seen:- none}" ;;
    1) name=$1 ;;
    *) die $EXIT_AMBIGUOUS_DISK "more than one disk has the $wanted: $*" ;;
    esac
}
