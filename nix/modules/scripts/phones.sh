# Does the adb server answer, and does it see phones? Needs adb_path and devices (serial numbers,
# separated by blanks), as the phones' scripts do, and timeout in PATH.
#
# A phone may hang, charge or be out for repair: those that are missing are named, and the host is
# healthy without them. Where it sees none at all nobody answered, which says nothing of the host: the
# check ends with 75 then (see health.sh).
set -eu
: "${adb_path:?}" "${devices:?}"

if ! list=$(timeout 20 "$adb_path" devices 2>&1); then
  echo "adb devices failed: $list"
  exit 1
fi
seen=0
all=0
for serial in $devices; do
  all=$((all + 1))
  state=$(printf '%s\n' "$list" | sed -n "s/^${serial}[[:space:]]\{1,\}\([a-z].*\)\$/\1/p")
  case $state in
    device) seen=$((seen + 1)) ;;
    "") echo "$serial is missing" ;;
    *) echo "$serial is $state" ;;
  esac
done
echo "$seen of $all phones"
[ "$seen" -gt 0 ] || exit 75
