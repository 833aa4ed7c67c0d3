# Divides the cards into MIG instances, which are gone after each reboot. Needs MIG_CONFIG_FILE,
# MIG_CONFIG and DRIVER_WAIT_S, and nvidia-smi, nvidia-mig-parted and systemctl in PATH.
#
# It changes nothing where the instances are as they should be, so that a restart of the unit
# leaves running work alone.
set -eu
: "${MIG_CONFIG_FILE:?}" "${MIG_CONFIG:?}" "${DRIVER_WAIT_S:?}"

waited=0
until nvidia-smi -L >/dev/null 2>&1; do
  if [ "$waited" -ge "$DRIVER_WAIT_S" ]; then
    echo "The driver doesn't answer after ${DRIVER_WAIT_S} s: see nvidia-smi and dmesg." >&2
    exit 1
  fi
  sleep 1
  waited=$((waited + 1))
done

if nvidia-mig-parted assert -f "$MIG_CONFIG_FILE" -c "$MIG_CONFIG" >/dev/null 2>&1; then
  echo "The cards are divided as $MIG_CONFIG already."
  exit 0
fi

# A change of the mode may reset the card (Ampere), which fails while somebody has it open.
persistenced=nvidia-persistenced.service
if systemctl is-active --quiet "$persistenced"; then
  systemctl stop "$persistenced"
  trap 'systemctl start "$persistenced"' EXIT
fi

if ! nvidia-mig-parted apply -f "$MIG_CONFIG_FILE" -c "$MIG_CONFIG"; then
  echo "The cards can't be divided as $MIG_CONFIG. Where a card is in use, or its mode is pending," >&2
  echo "reboot the machine; where the card knows no such profile, nvidia-smi mig -lgip lists them." >&2
  exit 1
fi
nvidia-mig-parted assert -f "$MIG_CONFIG_FILE" -c "$MIG_CONFIG"
echo "The cards are divided as $MIG_CONFIG."
