# shellcheck shell=bash
# Takes away what a power cut left empty of k3s' files, before k3s starts: it makes anew what is
# missing, and never what is there and empty.
#
# Only what k3s can make again goes. Authorities, the key of the service accounts, the configuration of
# the encryption and IPsec's key stay as they are, whatever they are: with another one the cluster's own
# data can't be read or believed.
set -u
root=${UNDERCROFT_ROOT:-}
data=$root/var/lib/rancher/k3s
password=$root/etc/rancher/node/password
passwords=$data/server/cred/node-passwd

gone() {
    echo "undercroft: $1 was empty, and k3s makes it anew" >&2
    shift
    rm -f "$@"
}

# A certificate and its key are made together.
while read -r each; do
    gone "$each" "${each%.*}.crt" "${each%.*}.key"
done < <(find "$data/agent" "$data/server/tls" -xdev -maxdepth 2 -type f -empty \
    \( -name '*.crt' -o -name '*.key' \) ! -name '*-ca.*' ! -name 'service*.key' 2>/dev/null)

while read -r each; do
    gone "$each" "$each"
done < <(find "$data/agent" "$data/server/cred" "$data/server/tls" "$root/etc/rancher/k3s" -xdev -maxdepth 1 -type f -empty \
    \( -name '*.kubeconfig' -o -name k3s.yaml -o -name dynamic-cert.json \) 2>/dev/null)

# A new password of this machine is refused by whoever has the old one.
if [ -e "$password" ] && [ ! -s "$password" ]; then
    gone "$password" "$password" "$passwords"
elif [ -e "$passwords" ] && [ ! -s "$passwords" ]; then
    gone "$passwords" "$passwords"
fi
exit 0
