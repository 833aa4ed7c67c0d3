# What a node of the cluster adds to the machine's health.
{ config, lib, ... }:
let
  cfg = config.undercroft.kubernetes;
  node = config.undercroft.node;
  isK3s = cfg.distribution == "k3s";
  inherit ((import ../../lib).onMachine) joined;
  inherit ((import ../../lib).kubernetes) apiUrl;
  kubectl = if isK3s then "${cfg.package}/bin/k3s kubectl" else "${cfg.package}/bin/kubectl";
  kubeconfig =
    if isK3s then
      "/var/lib/rancher/k3s/agent/kubelet.kubeconfig"
    else
      "/etc/kubernetes/kubelet.conf";
in
{
  config = lib.mkIf cfg.enable {
    undercroft.health.checks = {
      kubernetes = {
        description = "The node is Ready in the cluster.";
        timeoutSec = 40;
        script = ''
          ${lib.toShellVars {
            UNIT = if isK3s then "k3s.service" else "kubelet.service";
            KUBECTL = kubectl;
            KUBELET_CONFIG = kubeconfig;
            UNDERCROFT_NODE = node.name;
            JOINED = joined;
            SERVERS = toString (map apiUrl (lib.attrValues cfg.servers));
            SOLE_SERVER = if cfg.role == "server" && lib.attrNames cfg.servers == [ node.name ] then "1" else "";
          }}
          ${builtins.readFile ../scripts/health-kubernetes.sh}
        '';
      };
      certificates = {
        description = "No certificate or key of Kubernetes is an empty file.";
        script = ''
          empty=$(find /var/lib/rancher/k3s/server/tls /var/lib/rancher/k3s/agent /var/lib/kubelet/pki /etc/kubernetes \
            -xdev -maxdepth 3 -type f \( -name '*.crt' -o -name '*.key' -o -name '*.pem' -o -name '*config' -o -name '*.conf' \) \
            -empty 2>/dev/null)
          [ -z "$empty" ] || { echo "empty after a power loss? $empty"; exit 1; }
        '';
      };
      # Pods' DNS dies in silence of these two.
      packets = {
        description = "The kernel forwards packets and doesn't filter their way back.";
        script = ''
          [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 1 ] || { echo "net.ipv4.ip_forward is off"; exit 1; }
          [ "$(cat /proc/sys/net/ipv4/conf/all/rp_filter)" = 0 ] || { echo "net.ipv4.conf.all.rp_filter is on"; exit 1; }
          for each in /proc/sys/net/ipv4/conf/lxc*/rp_filter; do
            [ ! -e "$each" ] || [ "$(cat "$each")" = 0 ] || { echo "$each is on"; exit 1; }
          done
        '';
      };
      # Whoever sets the one without the other silences every Ingress, and tailscaled sets it at
      # each start.
      marks = {
        description = "Packets for Cilium's proxy aren't taken for an impostor's.";
        script = builtins.readFile ../scripts/marks.sh;
      };
    };
  };
}
