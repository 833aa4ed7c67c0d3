# shellcheck shell=bash
# Whether no certificate, key, kubeconfig or password of Kubernetes is an empty file. A power cut in the
# middle of a write leaves such, and what reads them says anything but that.
set -u
root=${UNDERCROFT_ROOT:-}
k3s=$root/var/lib/rancher/k3s
empty=$(find "$k3s/server/tls" "$k3s/server/cred" "$k3s/agent" "$root/etc/rancher/node" \
    "$root/var/lib/kubelet/pki" "$root/etc/kubernetes" \
    -xdev -maxdepth 3 -type f -empty \
    \( -name '*.crt' -o -name '*.key' -o -name '*.pem' -o -name '*.psk' -o -name '*config' -o -name '*.conf' \
    -o -name 'encryption-*' -o -name 'dynamic-cert.json' -o -name password -o -name '*passwd' \) 2>/dev/null)
[ -z "$empty" ] || {
    echo "empty after a power loss? $empty"
    exit 1
}
