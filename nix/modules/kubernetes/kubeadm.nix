# A node of a kubeadm cluster. NixOS has no module for it: this is the kubelet as kubeadm's own
# package installs it, and the files that `kubeadm init` and `kubeadm join` are given.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  undercroftLib = import ../../lib;
  cfg = config.undercroft.kubernetes;
  isServer = cfg.role == "server";
  enabled = cfg.enable && cfg.distribution == "kubeadm";
  version = lib.getVersion cfg.package;
  # The version is the package's own. Where it isn't named, kubeadm asks the internet for the
  # newest one, and founds a cluster of that.
  values = undercroftLib.kubeadm (
    config.undercroft // { kubernetes = cfg // { inherit version; }; }
  );
  longhornPaths = map (mount: mount.path) (
    undercroftLib.disks.longhornMounts config.undercroft.disks
  );
in
{
  config = lib.mkIf enabled {
    assertions = [
      {
        # v1beta4 of kubeadm's files, and kubelets that shut down with their pods.
        assertion = lib.versionAtLeast version "1.31";
        message = "kubeadm's files here are those of Kubernetes 1.31 and later; this is ${version}.";
      }
      {
        assertion = config.swapDevices == [ ] && !config.zramSwap.enable;
        message = "kubeadm's kubelet doesn't start with swap: take swapDevices and zramSwap out.";
      }
    ];

    environment.etc."undercroft/kubeadm/init.yaml".source =
      pkgs.writeText "kubeadm-init.yaml" values.initFile;
    # The token and where to look for the cluster are added at the join, in memory.
    environment.etc."undercroft/kubeadm/join.json".source = pkgs.writeText "kubeadm-join.json" (
      builtins.toJSON values.joinConfiguration
    );

    systemd.services.kubelet = {
      description = "The Kubernetes node agent";
      documentation = [ "https://kubernetes.io/docs/" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      requires = [ "containerd.service" ];
      after = [
        "containerd.service"
        "network-online.target"
        "time-sync.target"
      ];
      path = cfg.nodePrograms ++ lib.optional (config.undercroft.disks.layout != "ext4") (
        config.boot.zfs.package or pkgs.zfs
      );
      # What kubeadm's 10-kubeadm.conf says.
      environment = {
        KUBELET_KUBECONFIG_ARGS = toString [
          "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf"
          "--kubeconfig=/etc/kubernetes/kubelet.conf"
        ];
        KUBELET_CONFIG_ARGS = "--config=/var/lib/kubelet/config.yaml";
      };
      unitConfig = {
        StartLimitIntervalSec = 0;
        # Either it has joined, or kubeadm is about to start it: see bootstrap.nix. A server that
        # was cut off in its join may be a member of etcd by then, and without it the others may
        # have no majority: it runs as one at the next boot, too.
        ConditionPathExists = [
          "|${undercroftLib.onMachine.joined}"
          "|${dirOf undercroftLib.onMachine.joinEnv}/starting"
          "|/etc/kubernetes/manifests/etcd.yaml"
        ];
        # See k3s.nix: without Longhorn's file systems no pod starts.
        RequiresMountsFor = longhornPaths ++ [
          "/var/lib/kubelet"
          "/var/lib/containerd"
        ];
      };
      stopIfChanged = false;
      serviceConfig = {
        EnvironmentFile = "-/var/lib/kubelet/kubeadm-flags.env";
        ExecStart = toString [
          "${cfg.package}/bin/kubelet"
          "$KUBELET_KUBECONFIG_ARGS"
          "$KUBELET_CONFIG_ARGS"
          "$KUBELET_KUBEADM_ARGS"
          "$KUBELET_EXTRA_ARGS"
        ];
        Restart = "always";
        RestartSec = 10;
      };
    };

    environment.etc."crictl.yaml".text = ''
      runtime-endpoint: unix:///run/containerd/containerd.sock
      image-endpoint: unix:///run/containerd/containerd.sock
    '';
    environment.systemPackages = [
      cfg.package
      pkgs.cri-tools
    ]
    ++ lib.optional isServer pkgs.etcd;
  };
}
