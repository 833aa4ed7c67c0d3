# Given the disks that are wiped: whether another disk has a ZFS pool whose name stands where ZFS keeps
# its labels, in the first or the last 512 KiB, of one of them or of a partition of theirs. Then it
# ends with 10 and says the other disk, the wiped one and the pool.
wiped=
for disk in "$@"; do
    disk=$(readlink -f "$disk")
    wiped="$wiped $disk"
    for part in /sys/class/block/"${disk##*/}"/"${disk##*/}"*; do
        [ -e "$part" ] && wiped="$wiped /dev/${part##*/}"
    done
done
for other in $(blkid -c /dev/null -t TYPE=zfs_member -o device); do
    case " $wiped " in
    *" $(readlink -f "$other") "*) continue ;;
    esac
    pool=$(blkid -p -s LABEL -o value "$other")
    [ -n "$pool" ] || continue
    for device in $wiped; do
        sectors=$(blockdev --getsz "$device") || exit
        # The last two labels are aligned to their own size of 256 KiB.
        last=$((sectors / 512 * 512 - 1024))
        [ "$last" -gt 0 ] || last=0
        if {
            dd if="$device" bs=512 count=1024
            dd if="$device" bs=512 skip="$last"
        } 2>/dev/null | grep -qaF -e "$pool"; then
            echo "$other $device $pool"
            exit 10
        fi
    done
done
exit 0
