# Disks: the layout as disko makes it, and what a file system needs of the running system.
{
  config,
  lib,
  options,
  pkgs,
  utils,
  ...
}:
let
  undercroftLib = import ../lib;
  cfg = config.undercroft.disks;
  isZfs = cfg.layout != "ext4";

  disk = lib.types.submodule {
    options = {
      device = lib.mkOption {
        type = lib.types.str;
        description = "A name of the disk under /dev that follows from the disk, not from its place.";
        example = "/dev/disk/by-id/nvme-eui.002538b911b2c3d4";
      };
      serial = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        description = "Serial number.";
      };
      wwn = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        description = "World Wide Name or NVMe EUI.";
      };
      sizeGb = lib.mkOption {
        type = lib.types.nullOr lib.types.ints.positive;
        default = null;
        description = "Size in GiB, where the inventory says it.";
      };
    };
  };

  makeFileSystem = pkgs.writeShellScript "undercroft-data-disk" ''
    export PATH=${
      lib.makeBinPath [
        pkgs.coreutils
        pkgs.diffutils
        pkgs.e2fsprogs
        pkgs.util-linux
      ]
    }
    ${builtins.readFile ./scripts/data-disk.sh}
  '';

  # A data disk's mount point and units.
  data = map (
    one:
    let
      at = undercroftLib.disks.dataMount one;
    in
    {
      inherit at;
      inherit (one) device;
      unit = "undercroft-data-disk-${utils.escapeSystemdPath at}";
      deviceUnit = "${utils.escapeSystemdPath one.device}.device";
      fsck = "systemd-fsck@${utils.escapeSystemdPath one.device}.service";
    }
  ) cfg.data;
in
{
  options.undercroft.disks = {
    layout = lib.mkOption {
      type = lib.types.enum [
        "ext4"
        "zfs"
        "zfs-mirror"
        "zfs-encrypted"
      ];
      default = "ext4";
      description = ''
        How the root disks are laid out: an ext4 root; a ZFS pool on one disk; one that is mirrored
        over several; or one that is encrypted (aes-256-gcm), whose key is asked for at each boot.
      '';
    };
    espMb = lib.mkOption {
      type = lib.types.ints.between 64 65536;
      default = 1024;
      description = ''
        Size of each EFI system partition, in MiB. A kernel with its initrd lies there for every
        generation.
      '';
    };
    root = lib.mkOption {
      type = lib.types.listOf disk;
      default = [ ];
      description = "Disks that carry the system.";
    };
    longhorn = lib.mkOption {
      type = lib.types.listOf disk;
      default = [ ];
      description = "Disks that carry Longhorn's replicas, whole.";
    };
    data = lib.mkOption {
      type = lib.types.listOf disk;
      default = [ ];
      description = ''
        Disks with data of one's own, mounted at /data/SERIAL. One with nothing on it gets an ext4
        file system; any other is mounted if it has one, and is never written to otherwise.
      '';
    };
    longhornPartitionGb = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      description = "Size of a partition for Longhorn on the first root disk, in GiB.";
    };
    longhornFsType = lib.mkOption {
      type = lib.types.enum [
        "xfs"
        "ext4"
      ];
      default = "xfs";
      description = ''
        File system under Longhorn's replicas. Longhorn asks it where a file's blocks lie, which ZFS
        can't say: its replicas never stand on a dataset.
      '';
    };
    encryptionKeyFile = lib.mkOption {
      type = lib.types.str;
      default = undercroftLib.onMachine.diskKey;
      description = ''
        Where the installer has the key of an encrypted pool while the disks are laid out, without a
        newline at its end.
      '';
    };
    arcMaxMb = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      example = 8192;
      description = "Most memory that ZFS caches in, in MiB. Null leaves ZFS' own share.";
    };
    snapshots = {
      frequent = lib.mkOption {
        type = lib.types.ints.unsigned;
        default = 0;
        description = "Snapshots that are kept of those every 15 minutes.";
      };
      hourly = lib.mkOption {
        type = lib.types.ints.unsigned;
        default = 24;
        description = "Hourly snapshots that are kept.";
      };
      daily = lib.mkOption {
        type = lib.types.ints.unsigned;
        default = 7;
        description = "Daily snapshots that are kept.";
      };
      weekly = lib.mkOption {
        type = lib.types.ints.unsigned;
        default = 4;
        description = "Weekly snapshots that are kept.";
      };
      monthly = lib.mkOption {
        type = lib.types.ints.unsigned;
        default = 0;
        description = "Monthly snapshots that are kept.";
      };
    };
  };

  config = lib.mkMerge [
    {
      assertions = [
        {
          assertion = cfg.root != [ ];
          message = "undercroft.disks.root is empty: the machine has no disk to start from.";
        }
        {
          assertion = cfg.layout == "zfs-mirror" -> lib.length cfg.root >= 2;
          message = "undercroft.disks.layout is zfs-mirror, which wants two root disks or more.";
        }
        {
          assertion = cfg.layout != "zfs-mirror" -> lib.length cfg.root <= 1;
          message = ''
            undercroft.disks.layout is ${cfg.layout}, which is for one root disk;
            ${toString (lib.length cfg.root)} are named.
          '';
        }
        {
          assertion = lib.all (one: one.serial != null || one.wwn != null) (
            cfg.root ++ cfg.longhorn ++ cfg.data
          );
          message = "undercroft.disks: every disk is known by its serial number or WWN.";
        }
      ];

      # Names by serial number alone, for disks of which nothing else is known. The first stage does
      # without: file systems are mounted by the labels that disko gives their partitions.
      services.udev.extraRules = undercroftLib.disks.udevRules;

      # What flash forgets is told to it once a week, not at every deletion.
      services.fstrim.enable = lib.mkDefault true;
    }

    (lib.optionalAttrs (options ? disko) {
      disko.devices = lib.mkIf (cfg.root != [ ]) (undercroftLib.disks.devices cfg);
    })

    (lib.mkIf isZfs {
      boot.supportedFilesystems = [ "zfs" ];
      # nixpkgs' plain choice of kernel is a long-term one, which its ZFS builds for; the latest
      # kernel often has none for weeks.
      boot.kernelPackages = lib.mkDefault pkgs.linuxPackages;
      boot.zfs = {
        # The installer exports the pool. A pool that another host used last is a wrong hostId or a
        # disk from elsewhere, and importing it by force would hide that.
        forceImportRoot = lib.mkDefault false;
        forceImportAll = lib.mkDefault false;
        # Virtual disks without a serial number have no name by id.
        devNodes = lib.mkDefault "/dev/disk/by-partuuid";
      };
      # Only this pool: an encrypted one on some further disk doesn't hold the boot up.
      undercroft.compat.zfsKeys = lib.optional (cfg.layout == "zfs-encrypted") "zroot";
      boot.extraModprobeConfig = lib.mkIf (cfg.arcMaxMb != null) ''
        options zfs zfs_arc_max=${toString (cfg.arcMaxMb * 1048576)}
      '';
      # Nothing here ever runs `zpool upgrade`: a pool with newer features isn't imported by the ZFS
      # of an earlier generation, and the way back would be gone.
      services.zfs = {
        autoScrub.enable = lib.mkDefault true;
        trim.enable = lib.mkDefault true;
        # Of those datasets that are marked for it: /var and /home, but not the Nix store.
        autoSnapshot = {
          enable = lib.mkDefault true;
          flags = lib.mkDefault "-k -p --utc";
          inherit (cfg.snapshots)
            frequent
            hourly
            daily
            weekly
            monthly
            ;
        };
      };
      undercroft.health.checks.zfs = {
        description = "Every ZFS pool is healthy.";
        # The earlier generation would have the same disks.
        gates = false;
        path = [ (config.boot.zfs.package or pkgs.zfs) ];
        script = ''
          state=$(zpool status -x)
          [ "$state" = "all pools are healthy" ] || { echo "$state"; exit 1; }
        '';
      };
    })

    (lib.mkIf (cfg.data != [ ]) {
      fileSystems = lib.listToAttrs (
        map (
          one:
          lib.nameValuePair one.at {
            inherit (one) device;
            fsType = "ext4";
            # The machine starts without it, and says in its health that it is missing.
            options = [
              "noatime"
              "nofail"
              "x-systemd.device-timeout=30s"
              "x-systemd.requires=${one.unit}.service"
            ];
          }
        ) data
      );
      systemd.services = lib.listToAttrs (
        map (
          one:
          lib.nameValuePair one.unit {
            description = "File system of the data disk at ${one.at}";
            bindsTo = [ one.deviceUnit ];
            after = [ one.deviceUnit ];
            before = [
              one.fsck
              "shutdown.target"
            ];
            conflicts = [ "shutdown.target" ];
            # It belongs to the mounts, which come before what units wait for by default.
            unitConfig.DefaultDependencies = false;
            serviceConfig = {
              Type = "oneshot";
              RemainAfterExit = true;
              ExecStart = "${makeFileSystem} ${lib.escapeShellArg one.device} undercroft-data";
              TimeoutStartSec = 600;
            };
          }
        ) data
      );
    })
  ];
}
