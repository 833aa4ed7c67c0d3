# Snapshots of etcd that may leave the server: encrypted with age, to an identity that the operators
# alone have. The same for k3s and kubeadm.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.undercroft.kubernetes;
  isServer = cfg.enable && cfg.role == "server" && cfg.distribution != "none";
  recipient = cfg.snapshot.recipientFile;
  inherit ((import ../../lib).onMachine) k3sEtcd kubeadmEtcd;

  # Where etcd has its own data, and what it lets a client in with.
  etcd =
    {
      k3s = {
        # k3s makes it where its datastore is etcd.
        proof = "${k3sEtcd}/client.key";
        datastore = "/var/lib/rancher/k3s/server/db";
        authority = "${k3sEtcd}/server-ca.crt";
        certificate = "${k3sEtcd}/client.crt";
        key = "${k3sEtcd}/client.key";
      };
      kubeadm = {
        proof = "/etc/kubernetes/manifests/etcd.yaml";
        datastore = "/var/lib/etcd";
        authority = "${kubeadmEtcd}/ca.crt";
        certificate = "${kubeadmEtcd}/server.crt";
        key = "${kubeadmEtcd}/server.key";
      };
    }
    .${cfg.distribution};
in
{
  config = lib.mkIf isServer {
    warnings = lib.optional (recipient == null) ''
      ${config.networking.hostName} takes no snapshots of etcd that could leave it: there is nobody
      to encrypt them to. Run `undercroft secrets init`, or set
      undercroft.kubernetes.snapshot.recipientFile.
    '';

    systemd.services.undercroft-etcd-snapshot = lib.mkIf (recipient != null) {
      description = "Encrypted snapshot of etcd";
      path = [
        pkgs.age
        pkgs.coreutils
        pkgs.etcd
        pkgs.findutils
      ];
      unitConfig.ConditionPathExists = etcd.proof;
      serviceConfig = {
        Type = "oneshot";
        UMask = "0077";
        TimeoutStartSec = 600;
      };
      environment = {
        ETCDCTL_API = "3";
        ETCDCTL_ENDPOINTS = "https://127.0.0.1:2379";
        ETCDCTL_CACERT = etcd.authority;
        ETCDCTL_CERT = etcd.certificate;
        ETCDCTL_KEY = etcd.key;
        UNDERCROFT_NODE = config.undercroft.node.name;
        UNDERCROFT_DATASTORE = etcd.datastore;
        UNDERCROFT_RECIPIENT = recipient;
        UNDERCROFT_KEEP = toString cfg.snapshot.keep;
      };
      script = builtins.readFile ../scripts/etcd-snapshot.sh;
    };
    systemd.timers.undercroft-etcd-snapshot = lib.mkIf (recipient != null) {
      description = "Encrypted snapshots of etcd";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnBootSec = "15min";
        OnUnitActiveSec = "${toString cfg.snapshot.intervalH}h";
        # Servers take theirs at different times.
        RandomizedDelaySec = "10min";
      };
    };
  };
}
