# Is an AI board there, and is its driver at work? Needs BOARD; for a Hailo it takes HAILO_VERSION,
# and hailortcli where it is in PATH. DEV and SYS are /dev and /sys, other places in tests.
set -eu
: "${BOARD:?}"
dev=${DEV:-/dev}
sys=${SYS:-/sys}

no() {
  echo "$1"
  exit 1
}

pci() {
  for device in "$sys"/bus/pci/devices/*; do
    [ -r "$device/vendor" ] || continue
    if [ "$(cat "$device/vendor"):$(cat "$device/device")" = "$1" ]; then
      return 0
    fi
  done
  return 1
}

usb() {
  for device in "$sys"/bus/usb/devices/*; do
    [ -r "$device/idVendor" ] || continue
    if [ "$(cat "$device/idVendor"):$(cat "$device/idProduct")" = "$1" ]; then
      return 0
    fi
  done
  return 1
}

case $BOARD in
  hailo-8 | hailo-8l)
    # Both have the same PCI number; only the firmware tells them apart.
    pci 0x1e60:0x2864 || no "no Hailo on the PCI bus: look at the board's cable, and at dtparam=pciex1"
    [ -e "$dev/hailo0" ] || no "a Hailo is on the PCI bus, but $dev/hailo0 isn't there: the driver hailo_pci or its firmware is missing (dmesg)"
    if [ -r "$sys/module/hailo_pci/version" ] && [ -n "${HAILO_VERSION:-}" ]; then
      driver=$(cat "$sys/module/hailo_pci/version")
      [ "$driver" = "$HAILO_VERSION" ] || no "the driver hailo_pci is $driver, the firmware and the runtime are $HAILO_VERSION: they must be the same"
    fi
    if command -v hailortcli >/dev/null 2>&1; then
      identity=$(timeout 30 hailortcli fw-control identify 2>&1) || no "hailortcli fw-control identify failed: $identity"
      architecture=$(printf '%s\n' "$identity" | sed -n 's/^Device Architecture: *//p' | head -n 1)
      case $BOARD:$architecture in
        hailo-8:HAILO8 | hailo-8l:HAILO8L) ;;
        *) no "the board says that it is a $architecture, the inventory a $BOARD" ;;
      esac
    fi
    ;;
  coral-pcie)
    pci 0x1ac1:0x089a || no "no Coral on the PCI bus: look at the board's cable, and at dtparam=pciex1"
    page=$(getconf PAGESIZE)
    [ "$page" = 4096 ] || no "the kernel's pages have $page bytes; the Coral's driver needs 4096"
    [ -e "$dev/apex_0" ] || no "a Coral is on the PCI bus, but $dev/apex_0 isn't there: the drivers gasket and apex don't run (dmesg)"
    ;;
  coral-usb)
    # 1a6e:089a before a program has loaded the firmware, 18d1:9302 afterwards.
    usb 1a6e:089a || usb 18d1:9302 || no "no Coral on the USB bus"
    ;;
  *)
    no "unknown board $BOARD"
    ;;
esac
echo "$BOARD is there"
