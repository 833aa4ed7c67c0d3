# containerd as kubeadm's nodes need it. k3s brings its own.
{ config, lib, pkgs, ... }:
let
  undercroftLib = import ../../lib;
  cfg = config.undercroft.kubernetes;
  hosts = undercroftLib.kubernetes.containerdHosts config.undercroft;
in
{
  config = lib.mkIf (cfg.enable && cfg.distribution == "kubeadm") {
    virtualisation.containerd = {
      enable = true;
      # Version 2 of the file is read by containerd 1.7 and 2.x alike; 2.x turns the names of the
      # plugins into its own.
      settings.plugins."io.containerd.grpc.v1.cri" = {
        # nixpkgs' default is in the store, where Cilium can't install its plugin.
        cni.bin_dir = lib.mkDefault "/opt/cni/bin";
        cni.conf_dir = "/etc/cni/net.d";
        # On a machine with ZFS nixpkgs' default is the ZFS snapshotter, which wants a dataset of
        # its own; overlayfs works on ZFS from 2.2 on.
        containerd.snapshotter = lib.mkDefault "overlayfs";
        # The kubelet counts by systemd's cgroups; two managers of one tree end in evictions.
        containerd.runtimes.runc = {
          runtime_type = "io.containerd.runc.v2";
          options.SystemdCgroup = true;
        };
        registry.config_path = "/etc/containerd/certs.d";
      };
    };

    environment.etc = lib.mapAttrs' (
      host: text: lib.nameValuePair "containerd/certs.d/${host}/hosts.toml" { inherit text; }
    ) hosts;

    systemd.tmpfiles.rules = [
      "d /opt/cni/bin 0755 root root -"
      "d /etc/cni/net.d 0755 root root -"
      # Cilium brings its own plugin; this one gives each pod its own loopback.
      "L+ /opt/cni/bin/loopback - - - - ${pkgs.cni-plugins}/bin/loopback"
    ];
  };
}
