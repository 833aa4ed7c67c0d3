# shellcheck shell=bash
# Makes a file system on a data disk, if and only if nothing at all is on it.
#
#     data-disk DEVICE LABEL
#
# A disk with any signature, a partition table included, or with anything but zeros in its first
# and last MiB is left as it is: it may hold what nobody has a copy of.
set -eu

device=$1
label=$2

signatures=$(wipefs --no-act --noheadings --output TYPE "$device")
if [ -n "$signatures" ]; then
    if [ "$signatures" = ext4 ]; then
        exit 0
    fi
    echo "$device isn't empty (it has ${signatures//$'\n'/, }) and isn't touched; make an ext4 file system on it by hand, or take its role away" >&2
    exit 1
fi

size=$(blockdev --getsize64 "$device" 2>/dev/null || stat --format=%s "$device")
mib=1048576
if [ "$size" -lt $((16 * mib)) ]; then
    echo "$device has $size bytes, which is too small" >&2
    exit 1
fi
zeros() {
    # dd and not head: the last MiB is read without the rest of the disk.
    dd if="$device" bs=$mib skip="$1" count=1 status=none | cmp --silent --bytes=$mib - /dev/zero
}
if ! zeros 0 || ! zeros $((size / mib - 1)); then
    echo "$device has no known signature but isn't empty, and isn't touched; wipe it by hand if it may be used" >&2
    exit 1
fi

echo "making a file system on $device, which is empty" >&2
mkfs.ext4 -q -F -L "$label" "$device"
