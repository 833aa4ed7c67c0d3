# Mounts another disk's boot partition in the place of the first's, where that isn't mounted: its disk
# is gone. What was lost comes back by itself at the next boot, as the mount of its own.
#
# ESP: where the boot loader looks. MIRRORS: where the other disks' partitions are mounted.
set -eu

if mountpoint --quiet "$ESP"; then
  exit 0
fi
for mirror in $MIRRORS; do
  device=$(findmnt --noheadings --output SOURCE --mountpoint "$mirror" || :)
  if [ -z "$device" ]; then
    continue
  fi
  mkdir -p "$ESP"
  mount -t vfat -o umask=0077 "$device" "$ESP"
  echo "$ESP wasn't mounted: $device, which is $mirror, is in its place" >&2
  exit 0
done
echo "$ESP isn't mounted, and no other disk's boot partition is there: $MIRRORS" >&2
exit 1
