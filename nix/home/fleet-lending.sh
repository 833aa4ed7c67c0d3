# fleet-lending status|allow|pause|resume|revoke: the owner's word on this PC, which goes over the
# repository's. Needs STATE (a folder), START and STOP (commands, or empty without a service).
#
# Two files say it: `allowed`, without which nothing is ever lent, and `paused`. The service's
# manager looks at both, so that they hold over a reboot, and whoever deletes `allowed` by hand has
# revoked just as well.
set -eu
: "${STATE:?}"

allowed=$STATE/allowed
paused=$STATE/paused
mkdir -p "$STATE"

start() {
  if [ -n "${START:-}" ]; then
    $START
  else
    echo "no lending daemon is installed on this PC; the word is kept for when one is"
  fi
}
stop() {
  if [ -n "${STOP:-}" ]; then
    $STOP
  fi
}

case ${1:-status} in
  status)
    if [ ! -e "$allowed" ]; then
      echo "not allowed: nothing is lent"
    elif [ -e "$paused" ]; then
      echo "allowed since $(cat "$allowed"), paused since $(cat "$paused")"
    else
      echo "allowed since $(cat "$allowed")"
    fi
    ;;
  allow)
    # A word that was given once keeps its date.
    [ -e "$allowed" ] || date -u +%Y-%m-%dT%H:%M:%SZ > "$allowed"
    rm -f "$paused"
    start
    ;;
  pause)
    date -u +%Y-%m-%dT%H:%M:%SZ > "$paused"
    stop
    ;;
  resume)
    if [ ! -e "$allowed" ]; then
      echo "lending isn't allowed on this PC: fleet-lending allow" >&2
      exit 1
    fi
    rm -f "$paused"
    start
    ;;
  revoke)
    rm -f "$allowed" "$paused"
    stop
    ;;
  *)
    echo "usage: fleet-lending status|allow|pause|resume|revoke" >&2
    exit 64
    ;;
esac
