# shellcheck shell=bash
# Whether Kubernetes may start on this machine's data: in the minor that ran on them last, or a newer
# one. What a newer one has written an older one may misread or refuse, and nothing takes it back but a
# snapshot from before. An earlier generation may have an older minor: it leaves Kubernetes stopped.
#
#     kubernetes-version look     say so; exit 1 where it may not
#     kubernetes-version start    the same on the console too; where it may, write the version down
set -u
root=${UNDERCROFT_ROOT:-}
data=$root${KUBERNETES_DATA:?the folder of what Kubernetes keeps}
# This system's own.
own=${KUBERNETES_VERSION:-}
unit=${KUBERNETES_UNIT:?the unit that runs it}
# Beside the data, so that it goes where they go.
file=$data/undercroft-kubernetes-version

# The minor as a number, or nothing of what is no version.
minor() {
    [[ $1 =~ ^v?([0-9]{1,3})\.([0-9]{1,3}) ]] && echo "$((10#${BASH_REMATCH[1]} * 1000 + 10#${BASH_REMATCH[2]}))"
}

ran=$(cat "$file" 2>/dev/null)
ran_minor=$(minor "$ran")
own_minor=$(minor "$own")
if [ -n "$ran_minor" ] && [ "${own_minor:-0}" -lt "$ran_minor" ]; then
    why="Kubernetes is left stopped: this system has ${own:-no version of it that it could tell}, and $ran ran on the data in ${data#"$root"}; boot a system with that minor or a newer one, or restore a snapshot from before, then delete $file and start $unit"
    echo "$why"
    [ "$1" != start ] || { echo "undercroft: $why" >"$root/dev/console"; } 2>/dev/null
    exit 1
fi
[ "$1" = start ] && [ -n "$own_minor" ] && [ "$own" != "$ran" ] || exit 0
mkdir -p "$data"
# From now on, as it may write at once. Whole or not at all.
if echo "$own" >"$file.new" && sync "$file.new" && mv -f "$file.new" "$file" && sync "$data"; then
    exit 0
fi
echo "can't write $file, by which a later start knows what ran on these data"
exit 1
