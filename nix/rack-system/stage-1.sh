#!/bin/sh
# The initramfs: finds the root file system by its label and hands over to the system on it.
PATH=/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
modprobe -a $(cat /etc/modules-always) 2>/dev/null

for word in $(cat /proc/cmdline); do
    case $word in
    init=*) init=${word#init=} ;;
    root=*) root=${word#root=} ;;
    esac
done

# Loading a bus's driver shows the devices behind it: look again until the disk is there.
WAIT_TENTHS=300
waited=0
asked=
until device=$(findfs "$root" 2>/dev/null); do
    if [ $waited -ge $WAIT_TENTHS ]; then
        echo "stage 1: no file system has $root; rebooting"
        sleep 1
        reboot -f
    fi
    found=$(find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u)
    if [ "$found" != "$asked" ]; then
        asked=$found
        modprobe -a -q $found 2>/dev/null
    else
        usleep 100000
        waited=$((waited + 1))
    fi
done
mount -t ext4 -o rw "$device" /mnt-root || {
    echo "stage 1: can't mount $device; rebooting"
    sleep 1
    reboot -f
}
mount --move /proc /mnt-root/proc
mount --move /sys /mnt-root/sys
mount --move /dev /mnt-root/dev
exec switch_root /mnt-root "$init"
