#!@busybox@/bin/sh
# The SSH server: keys only, with the host key that was delivered before the first boot.
PATH=@out@/sw/bin
export PATH
KEY=/run/undercroft/host_key
if [ ! -s $KEY ]; then
    echo "undercroft-system: @name@ has no /etc/ssh/ssh_host_ed25519_key; the SSH server waits for it"
    until [ -s $KEY ]; do
        sleep 5
        @out@/activate
    done
fi
exec dropbear -F -E -s -j -k -m -r $KEY -p 22 2>>/run/undercroft/sshd.log
