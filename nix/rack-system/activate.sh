#!@busybox@/bin/sh
# Makes the running file system show this system. Run at every boot and switch, and once in the
# new root while it is installed; it starts nothing and can be run again at any time.
PATH=@out@/sw/bin
export PATH
umask 022
mkdir -p /bin /etc/ssh /proc /root/.ssh /run/undercroft /sys /tmp /usr /var/empty
chmod 700 /root /root/.ssh
chmod 1777 /tmp

ln -sfn @out@ /run/current-system
ln -sfn @busybox@/bin/sh /bin/sh
for program in reboot poweroff umount sync; do ln -sfn @busybox@/bin/$program /bin/$program; done
# An SSH server that isn't NixOS' own looks for programs here.
[ -h /usr/bin ] || rmdir /usr/bin 2>/dev/null
ln -sfn /run/current-system/sw/bin /usr/bin

ln -sfn @etc@/etc /etc/static
(cd @etc@/etc && find . -type f) | while read -r file; do
    file=${file#./}
    case $file in */*) mkdir -p "/etc/${file%/*}" ;; esac
    ln -sfn "/etc/static/$file" "/etc/$file"
done
# What an earlier system linked and this one doesn't have.
find /etc -type l | while read -r link; do
    case $(readlink "$link") in
    /etc/static/*) [ -e "$link" ] || rm -f "$link" ;;
    esac
done
cp @etc@/etc/ssh/authorized_keys.d/root /root/.ssh/authorized_keys.new
chmod 600 /root/.ssh/authorized_keys.new
mv /root/.ssh/authorized_keys.new /root/.ssh/authorized_keys
hostname "$(cat @etc@/etc/hostname)"

# dropbear has a file format of its own for host keys. The converted key lives in memory only.
if [ -s /etc/ssh/ssh_host_ed25519_key ]; then
    umask 077
    dropbearconvert openssh dropbear /etc/ssh/ssh_host_ed25519_key /run/undercroft/host_key.new 2>/dev/null &&
        mv /run/undercroft/host_key.new /run/undercroft/host_key || {
        echo "activate: /etc/ssh/ssh_host_ed25519_key isn't a host key that dropbear can read" >&2
        exit 1
    }
fi
