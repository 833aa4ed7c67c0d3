# Makes the system $1 the next one to boot. What runs stays as it is, and so it does where this fails. One at a time: a
# connection that broke leaves its command running.
system=$1
profile=/nix/var/nix/profiles/system
now=/run/undercroft-stage
limit=90
while read -r pid <"$now" && [ -d "/proc/$pid" ]; do
    [ "$limit" -gt 0 ] || exit 75
    limit=$((limit - 1))
    sleep 1
done 2>/dev/null
echo $$ >"$now"
if [ "$(readlink -f "$profile")" != "$system" ]; then
    nix-env --profile "$profile" --set "$system" || exit 1
fi
"$system/bin/switch-to-configuration" boot || exit 1
sync
