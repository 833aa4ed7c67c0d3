# k3s, as a server that founds, a server that joins, or an agent.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  undercroftLib = import ../../lib;
  cfg = config.undercroft.kubernetes;
  inherit (undercroftLib) onMachine;
  isServer = cfg.role == "server";
  enabled = cfg.enable && cfg.distribution == "k3s";
  ownFile = config.services.k3s.environmentFile;
  mirrors = undercroftLib.kubernetes.registriesYaml config.undercroft;
  longhornPaths = map (mount: mount.path) (
    undercroftLib.disks.longhornMounts config.undercroft.disks
  );

  # The module of nixpkgs puts flags into the unit's command as they are, and systemd splits that at
  # spaces, which the snapshots' cron expression has. k3s would take the second word for the end of
  # its flags.
  oneWord =
    flag:
    if builtins.match ".*[[:space:]].*" flag == null then
      flag
    else
      builtins.toJSON (builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] flag);
in
{
  config = lib.mkIf enabled {
    services.k3s = {
      enable = true;
      inherit (cfg) package role;
      # Without effect where a datastore exists: k3s ignores how it began from then on.
      clusterInit = cfg.founder;
      # The server to join is a variable, as the controller may name another than the founder; the
      # unit's environment has the default.
      serverAddr = lib.mkIf (!cfg.founder) "\${UNDERCROFT_SERVER}";
      tokenFile = cfg.tokenFile;
      extraFlags = map oneWord (
        undercroftLib.kubernetes.k3sFlags config.undercroft
        ++ lib.optional (
          isServer && cfg.agentTokenFile != null
        ) "--agent-token-file=${cfg.agentTokenFile}"
        ++ cfg.extraFlags
      );
    }
    // lib.optionalAttrs (options.services.k3s ? gracefulNodeShutdown) {
      # k3s leaves containers running when it stops (KillMode=process), and a shutdown then tears
      # their storage from under them (nixpkgs#255783): the kubelet ends them before.
      gracefulNodeShutdown = {
        enable = true;
        shutdownGracePeriod = "${toString cfg.shutdownGraceSec}s";
        shutdownGracePeriodCriticalPods = "${toString cfg.shutdownGraceCriticalSec}s";
      };
    };

    warnings = lib.optional (!(options.services.k3s ? gracefulNodeShutdown)) ''
      This nixpkgs has no services.k3s.gracefulNodeShutdown: pods are killed when the machine goes
      down, which may cost data (nixpkgs#255783).
    '';

    systemd.services.k3s = {
      environment = lib.mkIf (!cfg.founder) { UNDERCROFT_SERVER = cfg.joinServer; };
      serviceConfig = {
        # mkForce, as the module of nixpkgs sets one file or none.
        EnvironmentFile = lib.mkForce (
          [ "-${onMachine.joinEnv}" ] ++ lib.optional (ownFile != null) ownFile
        );
        # A server says that it is up when its API is, for which etcd needs a majority. The
        # machine's own start would wait for that with it, its health would never be looked at, and
        # the limit of a trial would take the other servers' silence for this machine's fault.
        Type = lib.mkForce "exec";
        ExecStartPre = [
          (pkgs.writeShellScript "undercroft-k3s-heal" ''
            export PATH=${
              lib.makeBinPath [
                pkgs.coreutils
                pkgs.findutils
              ]
            }
            ${builtins.readFile ../scripts/k3s-heal.sh}
          '')
        ];
      };
      after = [
        "sops-install-secrets.service"
        "time-sync.target"
      ];
      unitConfig = {
        # Either it has joined, or it is about to: see bootstrap.nix.
        ConditionPathExists = [
          "|${onMachine.joined}"
          "|${dirOf onMachine.joinEnv}/starting"
        ];
        # Longhorn's file systems may be missing when the machine starts, but then no pod does: a
        # replica would be written to the root file system and fill it.
        RequiresMountsFor = longhornPaths ++ [ "/var/lib/rancher" ];
      };
      # SSH over the overlay, or a pod's volume, would be cut if k3s were stopped early in a switch.
      stopIfChanged = false;
      path = cfg.nodePrograms;
    };

    environment.etc."rancher/k3s/registries.yaml" = lib.mkIf (mirrors != { }) {
      # JSON is YAML, and needs no quoting of its own.
      text = builtins.toJSON mirrors;
      mode = "0600";
    };

    environment.systemPackages = lib.optional isServer pkgs.etcd;

    # containerd's snapshotter is overlayfs on ext4 as on ZFS, from 2.2 on: k3s chooses it by
    # itself, and the one for ZFS wants a dataset of its own and is slower.
    assertions = [
      {
        assertion = !(lib.any (lib.hasPrefix "--snapshotter=zfs") config.services.k3s.extraFlags);
        message = "k3s' --snapshotter=zfs: leave it out; overlayfs works on ZFS from 2.2 on.";
      }
    ];
  };
}
