# What Longhorn needs of a host. Longhorn itself is the cluster's (gitops/components/longhorn).
{
  config,
  lib,
  pkgs,
  ...
}:
let
  undercroftLib = import ../lib;
  cfg = config.undercroft.longhorn;
  kubernetes = config.undercroft.kubernetes;
  fleet = config.undercroft.fleet;
  node = config.undercroft.node;
  mounts = undercroftLib.disks.longhornMounts config.undercroft.disks;

  # An iSCSI name begins with a domain that its giver owned in that month (RFC 3720, 3.2.6.3.1);
  # home.arpa is everybody's for a network of their own (RFC 8375).
  domain = if fleet.domain != null then fleet.domain else "${fleet.name}.home.arpa";
  reversed = lib.concatStringsSep "." (lib.reverseList (lib.splitString "." domain));
in
{
  options.undercroft.longhorn = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether the machine carries Longhorn's volumes.";
    };
    reservedPercent = lib.mkOption {
      type = lib.types.ints.between 0 90;
      default = 10;
      description = "Share of each disk that Longhorn leaves free, in percent.";
    };
    diskTags = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Longhorn's tags of the disks.";
    };
    host = lib.mkOption {
      type = lib.types.bool;
      default = cfg.enable || (kubernetes.enable && kubernetes.role != "none");
      defaultText = lib.literalExpression "every node of the cluster";
      description = ''
        Whether pods with Longhorn's volumes may run here. A volume is attached on the machine where
        its pod runs, which needs no disk of Longhorn's.
      '';
    };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.host {
      services.openiscsi = {
        enable = true;
        # Two machines of one name take each other's volumes.
        name = lib.mkDefault "iqn.2026-01.${reversed}:${node.name}";
      };
      boot.kernelModules = [
        "iscsi_tcp"
        "dm_crypt"
      ];
      boot.supportedFilesystems = [ "nfs" ];
      environment.systemPackages = [
        pkgs.openiscsi
        pkgs.nfs-utils
        pkgs.cryptsetup
        pkgs.util-linux
        pkgs.e2fsprogs
        pkgs.xfsprogs
      ];
      # Longhorn enters the host by nsenter and looks for its programs where other distributions
      # have them (longhorn#2166). Without this everything is green and no volume is ever attached.
      systemd.tmpfiles.rules = [ "L+ /usr/local/bin - - - - /run/current-system/sw/bin" ];

      undercroft.health.checks.longhorn-host = {
        description = "Longhorn finds its programs on the host, and iSCSI runs.";
        script = ''
          # As Longhorn looks for them: by the path that its containers have.
          for program in iscsiadm mount.nfs cryptsetup blkid mkfs.ext4 mkfs.xfs; do
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin command -v $program >/dev/null || {
              echo "$program isn't found under /usr/local/bin (longhorn#2166)"
              exit 1
            }
          done
          systemctl is-active --quiet iscsid.service || systemctl is-active --quiet iscsid.socket || {
            echo "iscsid isn't running"
            exit 1
          }
        '';
      };
    })

    (lib.mkIf cfg.enable {
      assertions = [
        {
          assertion = mounts != [ ];
          message = ''
            undercroft.longhorn is enabled, but the machine has no place for its replicas: give the
            class longhorn.partition_gb, or the machine a disk whose role is "longhorn".
          '';
        }
      ];
      # For people and for comparison: the controller annotates the node with it.
      environment.etc."undercroft/longhorn-disks.json".text =
        undercroftLib.longhorn.annotation config.undercroft;

      undercroft.health.checks.longhorn-disks = {
        description = "Longhorn's file systems are mounted, each from its own disk.";
        script = ''
          for at in ${lib.escapeShellArgs (map (mount: mount.path) mounts)}; do
            mountpoint --quiet "$at" || { echo "$at isn't mounted"; exit 1; }
            [ "$(stat --format=%d "$at")" != "$(stat --format=%d /)" ] || {
              echo "$at is on the root file system"
              exit 1
            }
          done
        '';
      };
    })
  ];
}
