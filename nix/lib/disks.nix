# Disks: the names under which they are found, and the layouts as values of `disko.devices`.
#
# A partition has a GUID that follows from its disk's serial number, and is found by it. Its label
# isn't enough: a disk that carried another machine has partitions of the same labels.
let
  inherit (import ./util.nix)
    fileName
    filterAttrs
    hasPrefix
    indexed
    lower
    optional
    optionalAttrs
    ;

  gib = size: "${toString size}G";

  partitionUuid =
    disk: partition:
    let
      identity = if disk.serial != null then disk.serial else disk.wwn;
      hash = builtins.hashString "sha256" "undercroft partition ${partition} of ${identity}";
      part = from: length: builtins.substring from length hash;
    in
    # Version 8 of RFC 9562, whose other bits are everybody's own.
    "${part 0 8}-${part 8 4}-8${part 13 3}-a${part 17 3}-${part 20 12}";

  byUuid = disk: partition: "/dev/disk/by-partuuid/${partitionUuid disk partition}";

  # Run before a disk's partition table is made. disko makes no file system where blkid sees one;
  # under a new table that is what lay there before, and would be taken for a part of this layout.
  newTableHook = ''
    undercroft_new_table=
    if [ -z "$(blkid --probe --match-tag PTTYPE --output value "$device")" ]; then
      undercroft_new_table=1
    fi
  '';

  # Run before a partition's content is made. A copy of a disk has partitions of the same GUIDs.
  contentHook = disk: ''
    undercroft_disk=$(realpath "${disk.device}")
    if [ "/dev/$(lsblk --noheadings --output PKNAME "$device")" != "$undercroft_disk" ]; then
      echo "$device isn't on $undercroft_disk: another disk is a copy of it; unplug that" >&2
      exit 1
    fi
    if [ -n "''${undercroft_new_table:-}" ]; then
      wipefs --all --quiet "$device"
    fi
  '';

  # Run before the pool is made or imported, which goes by its name.
  poolHook = ''
    undercroft_own=" "
    while read -r undercroft_one; do
      undercroft_own="$undercroft_own$(realpath "$undercroft_one") "
    done <"$disko_devices_dir/zfs_zroot"
    for undercroft_one in $(blkid --cache-file /dev/null --match-token LABEL=zroot --output device || :); do
      if [ "$(blkid --probe --match-tag TYPE --output value "$undercroft_one")" != zfs_member ]; then
        continue
      fi
      case $undercroft_own in
      *" $(realpath "$undercroft_one") "*) ;;
      *)
        echo "$undercroft_one has a ZFS pool zroot already and isn't of this layout: unplug its disk, or wipe it with wipefs --all $undercroft_one if nobody needs what is on it" >&2
        exit 1
        ;;
      esac
    done
  '';

  # A partition with its GUID and content; `settings` is the rest of it.
  partition = disk: name: settings: {
    inherit name;
    value = settings // {
      uuid = partitionUuid disk name;
      content = settings.content // {
        preCreateHook = contentHook disk;
      };
    };
  };

  esp = index: disks: {
    priority = 100;
    type = "EF00";
    size = "${toString disks.espMb}M";
    content = {
      type = "filesystem";
      format = "vfat";
      # UEFI's specification knows nothing else on a fixed disk, and mkfs.vfat takes FAT16 for small
      # ones.
      extraArgs = [
        "-F"
        "32"
        "-n"
        "ESP"
      ];
      mountpoint = espMount index;
      # The boot loader's random seed is nobody's to read. Each of a mirror's partitions may be gone
      # with its disk, and the machine starts without it; modules/boot.nix puts another in the place
      # of the first.
      mountOptions = [ "umask=0077" ] ++ optional (builtins.length disks.root > 1) "nofail";
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
    preCreateHook = poolHook;
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
        device = byUuid (builtins.head disks.root) "longhorn";
        sizeGb = disks.longhornPartitionGb;
      };
      whole = map (disk: {
        device = byUuid disk "longhorn";
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
      preCreateHook = newTableHook;
      content = {
        type = "gpt";
        partitions = builtins.listToAttrs (
          [
            (partition disk "ESP" (esp index disks))
            (partition disk "root" (if isZfs disks then zfsMember else ext4Root))
          ]
          ++ optional (index == 0 && disks.longhornPartitionGb != null) (
            partition disk "longhorn" {
              priority = 200;
              size = gib disks.longhornPartitionGb;
              content = longhornFileSystem disks (longhornPath 0);
            }
          )
        );
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
        preCreateHook = newTableHook;
        content = {
          type = "gpt";
          partitions = builtins.listToAttrs [
            (partition disk "longhorn" {
              size = "100%";
              content = longhornFileSystem disks (longhornPath place);
            })
          ];
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

  # Whether a disk that a machine reported is the one that the inventory means: what the inventory
  # gives must be reported and be the same. It is the rule of `DiskIdentity::matches` in the model.
  matches =
    disk: reported:
    let
      sameWwn = a: b: a != null && lower a == lower b;
    in
    (disk ? serial || disk ? wwn)
    && (disk ? serial -> (reported.serial or null) == disk.serial)
    && (disk ? wwn -> sameWwn (reported.wwn or null) disk.wwn);

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

  # The rules that make the links by serial number.
  udevRules = builtins.readFile ./disk-links.rules;
}
