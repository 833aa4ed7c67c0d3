# Is there a CDI specification, and does it name the cards as the device plugin asks for them?
# Needs CDI_FILE, and jq in PATH.
set -eu
: "${CDI_FILE:?}"

if [ ! -s "$CDI_FILE" ]; then
  echo "$CDI_FILE isn't there: nvidia-container-toolkit-cdi-generator.service makes it"
  echo "after a change of the driver it can't until the machine was rebooted"
  exit 1
fi
named=$(jq -r '[.devices[].name | select(startswith("GPU-") or startswith("MIG-"))] | length' "$CDI_FILE")
if [ "$named" -eq 0 ]; then
  echo "$CDI_FILE names no device by its UUID, which is how the device plugin asks for them"
  exit 1
fi
echo "$named devices"
