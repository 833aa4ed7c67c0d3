# Are as many cards there as the inventory says? Needs GPU_COUNT, and nvidia-smi in PATH.
set -eu
: "${GPU_COUNT:?}"

if ! list=$(nvidia-smi -L 2>&1); then
  echo "nvidia-smi -L failed: $list"
  exit 1
fi
# A card is a line "GPU 0: NAME (UUID: …)"; its MIG instances are indented below it.
found=$(printf '%s\n' "$list" | grep -c '^GPU [0-9]' || true)
if [ "$found" -ne "$GPU_COUNT" ]; then
  echo "$found of $GPU_COUNT cards answer:"
  printf '%s\n' "$list"
  exit 1
fi
echo "$found cards"
