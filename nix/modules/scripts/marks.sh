# Cilium leads packets for its proxy to this machine itself, by a mark. Where the kernel heeds marks
# when it looks where a sender would be answered (src_valid_mark), it drops them, unless it accepts a
# sender that is this machine (accept_local). Of an interface's value and that of "all" either is enough.
conf=/proc/sys/net/ipv4/conf
[ "$(cat "$conf/all/accept_local")" = 0 ] || exit 0
for each in "$conf"/*; do
  name=${each##*/}
  case $name in
  default | lo) continue ;;
  esac
  if [ "$(cat "$each/src_valid_mark" 2>/dev/null)" = 1 ] && [ "$(cat "$each/accept_local" 2>/dev/null)" = 0 ]; then
    echo "net.ipv4.conf.$name.src_valid_mark is on and net.ipv4.conf.all.accept_local is off: no Ingress answers (tailscale#19796)"
    exit 1
  fi
done
