# What pods, Cilium and the kubelet need of any host, whichever distribution runs them.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.undercroft.kubernetes;
  inherit ((import ../../lib).onMachine) kubeconfig;
in
{
  config = lib.mkIf cfg.enable {
    boot.kernelModules = [
      "br_netfilter"
      "overlay"
      # Cilium loads modules from inside a container, where NixOS' modules aren't: what its datapath
      # and its iptables rules use is there before it (Cilium's system requirements).
      "cls_bpf"
      "sch_ingress"
      "vxlan"
      "ip_tables"
      "ip6_tables"
      "iptable_nat"
      "iptable_mangle"
      "iptable_raw"
      "iptable_filter"
      "xt_socket"
      "xt_TPROXY"
      "xt_CT"
      "xt_mark"
    ];

    boot.kernel.sysctl = {
      # Stronger than what the modules of nixpkgs that forward packets set by themselves.
      "net.ipv4.ip_forward" = lib.mkOverride 90 true;
      "net.ipv4.conf.all.forwarding" = lib.mkOverride 90 true;
      "net.bridge.bridge-nf-call-iptables" = lib.mkDefault true;
      "net.bridge.bridge-nf-call-ip6tables" = lib.mkDefault true;
      # systemd gives each new interface a reverse path filter, which drops what pods send
      # (cilium#10645). A pod's interface is lxc…; the higher of its value and that of "all" counts.
      "net.ipv4.conf.all.rp_filter" = lib.mkOverride 90 0;
      "net.ipv4.conf.default.rp_filter" = lib.mkOverride 90 0;
      "net.ipv4.conf.lxc*.rp_filter" = lib.mkOverride 90 0;
      # Tailscale from 1.98 on has the kernel heed packets' marks when it looks where a sender would
      # be answered (net.ipv4.conf.all.src_valid_mark = 1). What Cilium sends to its proxy carries a
      # mark that leads to this machine itself, so that its sender is taken for an impostor of the
      # machine's own, and every Ingress is silent (tailscale#19796, cilium#48706). With this the
      # kernel takes such packets. Of an interface's value and that of "all" either is enough.
      "net.ipv4.conf.all.accept_local" = lib.mkOverride 90 1;
      "net.ipv4.conf.default.accept_local" = lib.mkOverride 90 1;
      # Every container with a watcher uses up instances; the kernel's 128 are gone with a few pods.
      "fs.inotify.max_user_instances" = lib.mkOverride 90 8192;
      "fs.inotify.max_user_watches" = lib.mkOverride 90 1048576;
      # Databases that map files ask for at least this.
      "vm.max_map_count" = lib.mkOverride 90 1048576;
      # What the kubelet would set itself, or refuse to start without.
      "vm.overcommit_memory" = lib.mkDefault 1;
    };

    # The firewall's own reverse path filter drops pods' DNS in silence (cilium#31565). mkForce, as
    # the tailscale module sets "loose" where it routes.
    networking.firewall.checkReversePath = lib.mkForce false;

    # networkd takes away routes and rules that it didn't make, and Cilium's are such.
    undercroft.compat.networkd = {
      ManageForeignRoutes = false;
      ManageForeignRoutingPolicyRules = false;
    };
    systemd.network.wait-online = lib.optionalAttrs (options.systemd.network ? wait-online) {
      # A second card without a cable doesn't hold Kubernetes up.
      anyInterface = lib.mkDefault true;
    };

    # The kubelet holds a shutdown up while pods end, by an inhibitor that logind grants no longer
    # than this (nixpkgs#255783).
    undercroft.compat.logind.InhibitDelayMaxSec = cfg.shutdownGraceSec + 5;

    # The cluster is watched and mended from its servers.
    environment.etc.${lib.removePrefix "/etc/" kubeconfig} = lib.mkIf (cfg.role == "server") {
      source =
        if cfg.distribution == "k3s" then
          "/etc/rancher/k3s/k3s.yaml"
        else
          "/etc/kubernetes/admin.conf";
    };
    environment.variables = lib.mkIf (cfg.role == "server") {
      KUBECONFIG = kubeconfig;
    };
  };
}
