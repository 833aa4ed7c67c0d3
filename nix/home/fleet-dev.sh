# fleet-dev up|down|config [REPOSITORY]: the fleet's manifests in a cluster on this PC.
# Needs PC_NAME and DEFAULT_REPOSITORY (may be empty), and k3d and undercroft in PATH.
set -eu
: "${PC_NAME:?}"
usage="usage: fleet-dev up|down|config [REPOSITORY]"

action=${1:?$usage}
repository=${2:-${DEFAULT_REPOSITORY:-.}}
state=${XDG_STATE_HOME:-$HOME/.local/state}/undercroft/dev

if ! command -v undercroft >/dev/null; then
  echo "undercroft isn't in PATH: set undercroft.pc.package, or install it otherwise" >&2
  exit 1
fi
if [ ! -f "$repository/undercroft.toml" ]; then
  echo "$repository has no undercroft.toml: name the fleet's repository" >&2
  echo "$usage" >&2
  exit 64
fi

config() {
  mkdir -p "$state"
  (cd "$repository" && undercroft dev config --pc "$PC_NAME" --out "$state" >&2)
  for file in "$state"/k3d*.yaml; do
    [ -f "$file" ] || break
    echo "$file"
    return 0
  done
  echo "undercroft dev config wrote no k3d*.yaml to $state" >&2
  return 1
}

case $action in
  config) config ;;
  up)
    file=$(config)
    k3d cluster create --config "$file"
    ;;
  down)
    file=$(config)
    k3d cluster delete --config "$file"
    ;;
  *)
    echo "$usage" >&2
    exit 64
    ;;
esac
