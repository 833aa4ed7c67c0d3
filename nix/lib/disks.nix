# Disks: the names under which they are found, and the layouts as values of `disko.devices`.
let
  inherit (import ./util.nix)
    fileName
    filterAttrs
    hasPrefix
    indexed
    optional
    optionalAttrs
    ;

  gib = size: "${toString size}G";

  esp = index: espMb: {
    priority = 100;
    type = "EF00";
    size = "${toString espMb}M";
    content = {
      type = "filesystem";
      format = "vfat";
      mountpoint = espMount index;
      # The boot loader's random seed is nobody's to read. A mirror's second partition may be gone
      # with its disk, and the machine starts without it.
      mountOptions = [ "umask=0077" ] ++ optional (index > 0) "nofail";
    };
  };

  espMount = index: if index == 0 then "/boot" else "/boot-${toString (index + 1)}";

  # A disk of Longhorn's that is gone leaves its mount point empty, and the machine comes up: the
  # unit that runs pods requires the mounts, so that no replica lands on the root file system.
  longhornFileSystem = disks: path: {
    type = "filesystem";
    format = disks.longhornFsType;
    mountpoint = path;
    mountOptions = [
      "noatime"
      "nofail"
    ];
  };

  zfsMember = {
    priority = 9001;
    size = "100%";
    content = {
      type = "zfs";
      pool = "zroot";
    };
  };

  ext4Root = {
    priority = 9001;
    size = "100%";
    content = {
      type = "filesystem";
      format = "ext4";
      mountpoint = "/";
      mountOptions = [ "noatime" ];
    };
  };

  dataset = mountpoint: options: {
    type = "zfs_fs";
    inherit mountpoint;
    # NixOS mounts the datasets itself, in the order that its units need.
    options = {
      mountpoint = "legacy";
    } // options;
  };

  pool = disks: {
    type = "zpool";
    mode = if disks.layout == "zfs-mirror" then "mirror" else "";
    options = {
      ashift = "12";
      autotrim = "on";
    };
    rootFsOptions = {
      mountpoint = "none";
      canmount = "off";
      acltype = "posixacl";
      xattr = "sa";
      compression = "zstd";
      relatime = "on";
      "com.sun:auto-snapshot" = "false";
    }
    // optionalAttrs (disks.layout == "zfs-encrypted") {
      encryption = "aes-256-gcm";
      keyformat = "passphrase";
      keylocation = "file://${disks.encryptionKeyFile}";
    };
    datasets = {
      root = dataset "/" { };
      nix = dataset "/nix" { };
      var = dataset "/var" { "com.sun:auto-snapshot" = "true"; };
      home = dataset "/home" { "com.sun:auto-snapshot" = "true"; };
      # A full pool can't even delete; giving this space back is the way out.
      reserved = {
        type = "zfs_fs";
        options = {
          mountpoint = "none";
          canmount = "off";
          refreservation = "1G";
        };
      };
    };
  }
  // optionalAttrs (disks.layout == "zfs-encrypted") {
    # The file with the key is on the installer alone; from the first boot on the key is asked for.
    postCreateHook = "zfs set keylocation=prompt zroot";
  };

  isZfs = disks: disks.layout != "ext4";

  longhornPath = place: if place == 0 then "/var/lib/longhorn" else "/var/lib/longhorn-${toString (place + 1)}";

  # Longhorn's file systems: the partition of the first root disk, then whole disks in order.
  longhornMounts =
    disks:
    let
      partition = optional (disks.longhornPartitionGb != null) {
        device = "/dev/disk/by-partlabel/disk-root0-longhorn";
        sizeGb = disks.longhornPartitionGb;
      };
      whole = indexed (index: disk: {
        device = "/dev/disk/by-partlabel/disk-longhorn${toString index}-longhorn";
        sizeGb = disk.sizeGb;
      }) disks.longhorn;
    in
    indexed (
      place: file:
      file
      // {
        path = longhornPath place;
        fsType = disks.longhornFsType;
      }
    ) (partition ++ whole);

  rootDisk = disks: index: disk: {
    name = "root${toString index}";
    value = {
      type = "disk";
      inherit (disk) device;
      content = {
        type = "gpt";
        partitions = {
          ESP = esp index disks.espMb;
          root = if isZfs disks then zfsMember else ext4Root;
        }
        // optionalAttrs (index == 0 && disks.longhornPartitionGb != null) {
          longhorn = {
            priority = 200;
            size = gib disks.longhornPartitionGb;
            content = longhornFileSystem disks (longhornPath 0);
          };
        };
      };
    };
  };

  longhornDisk =
    disks: index: disk:
    let
      place = if disks.longhornPartitionGb != null then index + 1 else index;
    in
    {
      name = "longhorn${toString index}";
      value = {
        type = "disk";
        inherit (disk) device;
        content = {
          type = "gpt";
          partitions.longhorn = {
            size = "100%";
            content = longhornFileSystem disks (longhornPath place);
          };
        };
      };
    };
in
{
  inherit longhornMounts;

  # Where the EFI system partitions are mounted, the one that the machine starts from first.
  espMounts = disks: indexed (index: _: espMount index) disks.root;

  # The value of `disko.devices`. Data disks aren't in it: disko makes its disks anew, and those
  # may hold something.
  devices =
    disks:
    {
      disk = builtins.listToAttrs (
        indexed (rootDisk disks) disks.root ++ indexed (longhornDisk disks) disks.longhorn
      );
    }
    // optionalAttrs (isZfs disks) { zpool.zroot = pool disks; };

  # Where a data disk is mounted.
  dataMount = disk: "/data/${fileName (if disk.serial != null then disk.serial else disk.wwn)}";

  # A name under /dev for a disk of the inventory. `reported` is the same disk as the machine
  # itself reported it, or an empty set.
  #
  # The names with a model or a WWN are made by systemd's 60-persistent-storage.rules. Only NVMe
  # says its model there as it says it in a report; the last name is made by the rules below.
  device =
    disk: reported:
    let
      known = filterAttrs (_: value: value != null) reported // disk;
    in
    if known ? serial && known ? model && known.transport or "" == "nvme" then
      "/dev/disk/by-id/nvme-${fileName known.model}_${fileName known.serial}"
    else if known ? wwn then
      "/dev/disk/by-id/${if hasPrefix "0x" known.wwn then "wwn" else "nvme"}-${known.wwn}"
    else
      "/dev/disk/by-serial/${fileName known.serial}";

  # udev makes a link by serial number alone for every disk, in the installer as in the system.
  # Virtual disks and SD cards have only the long form of the property.
  udevRules = ''
    SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", ENV{ID_SERIAL_SHORT}=="?*", SYMLINK+="disk/by-serial/$env{ID_SERIAL_SHORT}"
    SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", ENV{ID_SERIAL_SHORT}=="", ENV{ID_SERIAL}=="?*", SYMLINK+="disk/by-serial/$env{ID_SERIAL}"
  '';
}
