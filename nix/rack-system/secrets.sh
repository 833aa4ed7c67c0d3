#!@busybox@/bin/sh
# Opens the machine's files of secrets with its host key, as sops-nix does: into memory that is never
# swapped out, readable by root alone, before anything starts that needs them.
PATH=@out@/sw/bin
export PATH
PROGRAMS=@secretsPrograms@
FILES=@secretsFiles@
[ -n "$FILES" ] || exit 0
umask 077
mkdir -p /run/secrets
mount -t ramfs -o mode=0700 ramfs /run/secrets || exit 1
KEY=/run/secrets/.identity
"$PROGRAMS/bin/ssh-to-age" -private-key -i /etc/ssh/ssh_host_ed25519_key >$KEY 2>/dev/null
for file in "$FILES"/*; do
    name=${file##*/}
    name=${name%.sops.yaml}.yaml
    if SOPS_AGE_KEY_FILE=$KEY SOPS_DISABLE_VERSION_CHECK=1 "$PROGRAMS/bin/sops" decrypt --input-type yaml \
        --output-type yaml "$file" >"/run/secrets/.new" 2>/run/undercroft/secrets.log; then
        chmod 400 /run/secrets/.new
        mv /run/secrets/.new "/run/secrets/$name"
    else
        rm -f /run/secrets/.new
        echo "undercroft-system: @name@ can't open ${file##*/}" >/dev/console
    fi
done
rm -f $KEY
