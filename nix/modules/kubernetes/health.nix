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
    # Before the kubelet throws images away and pods out, which it does at 85 percent.
    undercroft.health.space = {
      "/var/lib/kubelet" = lib.mkDefault 80;
      "/var/lib/${if isK3s then "rancher" else "containerd"}" = lib.mkDefault 80;
    };
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
            VERSION_PROGRAM = "${cfg.versionProgram}";
            SERVERS = toString (map apiUrl (lib.attrValues cfg.servers));
            SOLE_SERVER = if cfg.role == "server" && lib.attrNames cfg.servers == [ node.name ] then "1" else "";
          }}
          ${builtins.readFile ../scripts/health-kubernetes.sh}
        '';
      };
      certificates = {
        description = "No certificate, key or password of Kubernetes is an empty file.";
        # The earlier generation would have the same files.
        gates = false;
        script = builtins.readFile ../scripts/health-certificates.sh;
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
