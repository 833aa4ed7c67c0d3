# Puts what a Raspberry Pi's boot ROM reads on the boot partition: firmware, device trees, U-Boot and
# config.txt. Needs FIRMWARE (a folder), BOOT_FILES (a folder whose files are ours: config.txt,
# u-boot.bin), MODEL (4 or 5) and TARGET (where the boot partition is mounted), and cmp in PATH.
#
# A file is written beside the old one and then takes its place, so that a power failure leaves one
# or the other. Files that are the same are not written: the partition is an SD card's.
set -eu
: "${FIRMWARE:?}" "${BOOT_FILES:?}" "${MODEL:?}" "${TARGET:?}"

place() {
  if cmp -s "$1" "$2"; then
    return 0
  fi
  mkdir -p "${2%/*}"
  cp "$1" "$2.new"
  sync "$2.new"
  mv "$2.new" "$2"
  echo "wrote $2"
}

case $MODEL in
  4)
    # The Pi 4's second stage is in its EEPROM; start4 and fixup4 are the third.
    for file in start4.elf fixup4.dat; do
      place "$FIRMWARE/$file" "$TARGET/$file"
    done
    trees='bcm2711-*.dtb'
    ;;
  5)
    # The Pi 5 has all of its firmware in the EEPROM, and reads device trees and config.txt alone.
    trees='bcm2712*.dtb'
    ;;
  *)
    echo "pi-firmware: MODEL is 4 or 5, not $MODEL" >&2
    exit 1
    ;;
esac
for file in "$FIRMWARE"/$trees; do
  [ -e "$file" ] || continue
  place "$file" "$TARGET/${file##*/}"
done
for file in "$FIRMWARE"/overlays/*; do
  [ -f "$file" ] || continue
  place "$file" "$TARGET/overlays/${file##*/}"
done
# config.txt last: it names the others.
for file in "$BOOT_FILES"/*; do
  [ "${file##*/}" = config.txt ] || place "$file" "$TARGET/${file##*/}"
done
place "$BOOT_FILES/config.txt" "$TARGET/config.txt"
