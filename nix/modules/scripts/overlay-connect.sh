# Logs the machine in to the overlay, and announces its networks. Needs AUTH_KEY_FILE, HOST_NAME,
# LOGIN_SERVER (empty for Tailscale's service), ROUTES (comma-separated, may be empty), ATTEMPTS and
# PAUSE_S, and tailscale in PATH.
#
# The control server may be down while the machine boots, or be a machine that boots itself: so it is
# tried again, and afterwards the unit is. Nothing waits for it.
set -eu
: "${AUTH_KEY_FILE:?}" "${HOST_NAME:?}" "${ATTEMPTS:?}" "${PAUSE_S:?}"

# The key's path is an argument, the key isn't. Names and routes of the overlay stay away from the
# machine: its own network is the LAN.
set -- --reset \
  --auth-key="file:$AUTH_KEY_FILE" \
  --hostname="$HOST_NAME" \
  --advertise-routes="${ROUTES:-}" \
  --accept-dns=false \
  --accept-routes=false \
  --timeout=30s
if [ -n "${LOGIN_SERVER:-}" ]; then
  set -- "$@" --login-server="$LOGIN_SERVER"
fi

attempt=1
until tailscale up "$@"; do
  if [ "$attempt" -ge "$ATTEMPTS" ]; then
    echo "tailscale up failed $ATTEMPTS times; systemd tries again later. Is ${LOGIN_SERVER:-the control server} up, and the key neither used up nor expired?" >&2
    exit 1
  fi
  attempt=$((attempt + 1))
  sleep "$PAUSE_S"
done
echo "connected as $HOST_NAME"
