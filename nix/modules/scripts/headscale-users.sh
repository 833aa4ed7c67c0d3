# Makes the inventory's people users of Headscale, as its policy names them. Needs USERS (names,
# separated by blanks), WAIT_S, and headscale and jq in PATH.
#
# Whoever left the inventory stays a user without a group, who reaches nothing of the fleet:
# deleting one would delete their devices, which is for a person to decide.
set -eu
: "${WAIT_S:?}"

waited=0
until known=$(headscale users list --output json 2>/dev/null); do
  if [ "$waited" -ge "$WAIT_S" ]; then
    echo "Headscale doesn't answer after $WAIT_S s." >&2
    headscale users list >&2 || true
    exit 1
  fi
  sleep 1
  waited=$((waited + 1))
done

for user in ${USERS:-}; do
  if printf '%s' "$known" | jq -e --arg name "$user" 'any(.[]?; .name == $name)' >/dev/null; then
    continue
  fi
  headscale users create "$user"
done
printf '%s' "$known" | jq -r '.[]?.name' | while read -r name; do
  case " ${USERS:-} " in
    *" $name "*) ;;
    *) echo "$name is a user of Headscale, and not in the inventory" ;;
  esac
done
