#!@busybox@/bin/sh
# Called by udhcpc with what a DHCP server gave.
PATH=@out@/sw/bin
export PATH
case $1 in
bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/${mask:-24}" dev "$interface"
    for gateway in $router; do
        ip route replace default via "$gateway" dev "$interface" && break
    done
    : >/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
    ;;
deconfig) ip addr flush dev "$interface" ;;
esac
exit 0
