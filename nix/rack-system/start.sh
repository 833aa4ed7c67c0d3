#!@busybox@/bin/sh
# Drivers, file systems and the network; then says on every console what is running.
PATH=@out@/sw/bin
export PATH

MODULES=/lib/modules/$(uname -r)
mkdir -p /lib/modules /boot
ln -sfn @modules@ "$MODULES"
modprobe -a $(cat @modules@/modules-always) 2>/dev/null
# Loading a bus's driver shows the devices behind it: look again until nothing new turns up.
asked=
round=0
while [ $round -lt 5 ]; do
    found=$(find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u)
    [ "$found" != "$asked" ] || break
    asked=$found
    modprobe -a -q $found 2>/dev/null
    round=$((round + 1))
done

[ ! -d /sys/firmware/efi ] || mount -t efivarfs efivarfs /sys/firmware/efi/efivars
esp=$(findfs LABEL=ESP) && mount -t vfat -o umask=0077 "$esp" /boot
# Everything but Nix sees the store read-only, as on NixOS; Nix remounts it for itself.
mount -o bind /nix/store /nix/store && mount -o remount,bind,ro /nix/store

ip link set lo up
for net in /sys/class/net/*; do
    [ -e "$net/device" ] || continue
    ip link set "${net##*/}" up
    udhcpc -b -i "${net##*/}" -s @out@/libexec/dhcp-event -t 10 -T 1 -A 3 >/dev/null 2>&1 &
done

# The line is printed once the SSH server answers, which is when the machine is of use.
(
    WAIT_TENTHS=600
    waited=0
    until nc -w 1 127.0.0.1 22 </dev/null 2>/dev/null | grep -q SSH; do
        [ $waited -lt $WAIT_TENTHS ] || break
        usleep 100000
        waited=$((waited + 1))
    done
    state=up
    if [ $waited -ge $WAIT_TENTHS ]; then state="without an SSH server"; else echo ok >/run/undercroft/health; fi
    for console in $(cat /sys/class/tty/console/active); do
        printf 'undercroft-system: @name@ %s boot-id %s closure %s\r\n' "$state" \
            "$(cat /proc/sys/kernel/random/boot_id)" "$(readlink /run/booted-system)" >"/dev/$console"
    done
) &
exit 0
