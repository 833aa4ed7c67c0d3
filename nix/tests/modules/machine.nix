# modules/boot.nix, compat.nix, disks.nix, health.nix, ssh.nix and users.nix.
{
  lib,
  node,
  machine,
  refused,
  ...
}:
let
  disk = serial: {
    device = "/dev/disk/by-serial/${serial}";
    inherit serial;
  };
  laid =
    disks: modules: node ([ { undercroft.disks = { root = [ (disk "A") ]; } // disks; } ] ++ modules);
  plain = laid { } [ ];
  mirror = laid {
    layout = "zfs-mirror";
    root = [
      (disk "A")
      (disk "B")
    ];
  } [ ];
  encrypted = laid { layout = "zfs-encrypted"; } [ ];
  data = laid { data = [ (disk "S6S2 0001") ]; } [ ];
  mentions = part: messages: lib.any (lib.hasInfix part) messages;
  has = part: whole: lib.hasInfix part whole;

  # compat.nix by itself, with the options of one release or another.
  compat =
    options:
    (lib.evalModules {
      modules = [
        ../../modules/compat.nix
        {
          options = lib.recursiveUpdate {
            boot.zfs.requestEncryptionCredentials = lib.mkOption { type = lib.types.bool; };
            systemd.network = { };
            # Every release declares it, under this name or the next one.
            services = {
              logind = { };
              resolved.extraConfig = lines;
            };
          } options;
          config.undercroft.compat = {
            manager.RuntimeWatchdogSec = "30s";
            logind.InhibitDelayMaxSec = 65;
            networkd.ManageForeignRoutes = false;
          };
        }
      ];
    }).config;
  lines = lib.mkOption { type = lib.types.lines; };
  attrs = lib.mkOption { type = lib.types.attrs; };
  old = compat {
    systemd.extraConfig = lines;
    services.logind.extraConfig = lines;
    environment.etc = attrs;
  };
  new = compat {
    systemd.settings.Manager = attrs;
    services.logind.settings.Login = attrs;
    systemd.network.config.networkConfig = attrs;
  };
in
[
  {
    name = "settings of systemd before 25.11 are lines";
    expected = [
      "RuntimeWatchdogSec=30s\n"
      "InhibitDelayMaxSec=65\n"
      "[Network]\nManageForeignRoutes=no\n"
    ];
    actual = [
      old.systemd.extraConfig
      old.services.logind.extraConfig
      old.environment.etc."systemd/networkd.conf".text
    ];
  }
  {
    name = "settings of systemd from 25.11 on are values";
    expected = [
      { RuntimeWatchdogSec = "30s"; }
      { InhibitDelayMaxSec = 65; }
      { ManageForeignRoutes = false; }
    ];
    actual = [
      new.systemd.settings.Manager
      new.services.logind.settings.Login
      new.systemd.network.config.networkConfig
    ];
  }
  {
    name = "old generations are cleared away";
    expected = [
      true
      "--delete-older-than 30d"
    ];
    actual = [
      plain.nix.gc.automatic
      plain.nix.gc.options
    ];
  }
  {
    name = "a machine with ZFS has nixpkgs' plain kernel, and a module may force an import";
    expected = [
      true
      true
    ];
    actual = [
      (mirror.boot.kernelPackages.kernel.version == plain.boot.kernelPackages.kernel.version)
      (laid { layout = "zfs"; } [ { boot.zfs.forceImportRoot = true; } ]).boot.zfs.forceImportRoot
    ];
  }
  {
    name = "a plain machine is not refused";
    expected = [ ];
    actual = lib.concatMap refused [
      plain
      mirror
      encrypted
      data
    ];
  }
  {
    name = "SSH takes keys alone, and shows the delivered host key alone";
    expected = [
      false
      false
      [ "/etc/ssh/ssh_host_ed25519_key" ]
    ];
    actual = [
      plain.services.openssh.settings.PasswordAuthentication
      plain.services.openssh.settings.KbdInteractiveAuthentication
      (map (key: key.path) plain.services.openssh.hostKeys)
    ];
  }
  {
    name = "a machine that nobody could log in to is refused";
    expected = true;
    actual = mentions "nobody could log in" (
      refused (laid { } [ { undercroft.ssh.rootKeys = lib.mkForce [ ]; } ])
    );
  }
  {
    name = "admins have an account, others none";
    expected = [
      true
      false
      [ "wheel" ]
    ];
    actual =
      let
        config = laid { } [
          {
            undercroft.users = {
              ada.role = "admin";
              lin.role = "developer";
            };
          }
        ];
      in
      [
        (config.users.users ? ada)
        (config.users.users ? lin)
        config.users.users.ada.extraGroups
      ];
  }
  {
    name = "disko's layout mounts the pool's datasets and the boot partitions";
    expected = [
      "/"
      "/boot"
      "/boot-2"
      "/home"
      "/nix"
      "/var"
    ];
    actual = lib.sort lib.lessThan (
      lib.filter (at: !lib.hasPrefix "/run" at) (lib.attrNames mirror.fileSystems)
    );
  }
  {
    name = "ZFS imports nothing by force, and asks for keys only where there are any";
    expected = [
      false
      [ ]
      [ "zroot" ]
      "1c9f4e02"
    ];
    actual = [
      mirror.boot.zfs.forceImportRoot
      mirror.undercroft.compat.zfsKeys
      encrypted.undercroft.compat.zfsKeys
      mirror.networking.hostId
    ];
  }
  {
    name = "pools are scrubbed, trimmed and snapshot";
    expected = [
      true
      true
      true
      24
    ];
    actual = [
      mirror.services.zfs.autoScrub.enable
      mirror.services.zfs.trim.enable
      mirror.services.zfs.autoSnapshot.enable
      mirror.services.zfs.autoSnapshot.hourly
    ];
  }
  {
    name = "a layout with too few or too many disks is refused";
    expected = [
      true
      true
    ];
    actual = [
      (mentions "two root disks" (refused (laid { layout = "zfs-mirror"; } [ ])))
      (mentions "one root disk" (
        refused (laid {
          layout = "zfs";
          root = [
            (disk "A")
            (disk "B")
          ];
        } [ ])
      ))
    ];
  }
  {
    name = "a data disk is mounted after it was looked at, and holds nothing up";
    expected = [
      true
      true
      true
      [ "dev-disk-by\\x2dserial-S6S2\\x200001.device" ]
    ];
    actual =
      let
        at = lib.head (lib.filter (lib.hasPrefix "/data/") (lib.attrNames data.fileSystems));
        options = data.fileSystems.${at}.options;
        unit = lib.removeSuffix ".service" (
          lib.removePrefix "x-systemd.requires=" (
            lib.findFirst (lib.hasPrefix "x-systemd.requires=") "" options
          )
        );
      in
      [
        (lib.elem "nofail" options)
        (data.systemd.services ? ${unit})
        (lib.hasPrefix "/data/S6S2" at)
        data.systemd.services.${unit}.bindsTo
      ];
  }
  {
    name = "disko never has a data disk";
    expected = [ "root0" ];
    actual = lib.attrNames data.disko.devices.disk;
  }
  {
    name = "a kernel that panics, and one that hangs, are left";
    expected = [
      true
      true
      "30s"
    ];
    actual = [
      (lib.elem "panic=10" plain.boot.kernelParams)
      (lib.elem "boot.panic_on_fail" plain.boot.kernelParams)
      plain.undercroft.compat.manager.RuntimeWatchdogSec
    ];
  }
  {
    name = "a generation becomes the default only by way of boot-complete.target";
    expected = [
      [ "boot-complete.target" ]
      true
      true
      "undercroft-boot-fallback.service"
    ];
    actual = [
      plain.systemd.services.undercroft-boot-commit.requires
      (lib.elem "boot-complete.target" plain.systemd.services.undercroft-health.requiredBy)
      (has "undercroft-boot-trial" plain.boot.loader.systemd-boot.extraInstallCommands)
      plain.systemd.services.undercroft-health.unitConfig.OnFailure
    ];
  }
  {
    name = "a mirror's second boot partition is kept alike";
    expected = [
      true
      false
    ];
    actual = [
      (has "/boot-2" mirror.boot.loader.systemd-boot.extraInstallCommands)
      (has "rsync" plain.boot.loader.systemd-boot.extraInstallCommands)
    ];
  }
  {
    name = "a mirror's lost boot partition has another in its place, and sends no generation back";
    expected = [
      true
      "/boot"
      "/boot-2"
      false
      [
        "/boot"
        "/boot-2"
      ]
      false
    ];
    actual =
      let
        unit = mirror.systemd.services.undercroft-boot-mirror;
      in
      [
        (lib.elem "nofail" mirror.fileSystems."/boot".options)
        unit.environment.ESP
        unit.environment.MIRRORS
        mirror.undercroft.health.checks.mirror.gates
        mirror.undercroft.health.spareMounts
        (plain.systemd.services ? undercroft-boot-mirror)
      ];
  }
  {
    name = "counting attempts is refused where nixpkgs can't";
    expected = true;
    actual = mentions "no\nboot.loader.systemd-boot.bootCounting" (
      refused (laid { } [ { undercroft.boot.healthGate.method = "counting"; } ])
    );
  }
  {
    name = "a Raspberry Pi's firmware isn't systemd-boot's";
    expected = false;
    actual =
      (machine "aarch64-linux" [
        {
          undercroft.node.firmware = "rpi";
          undercroft.disks.root = [ (disk "A") ];
        }
      ]).boot.loader.systemd-boot.enable;
  }
  {
    name = "the checks are a list with limits";
    expected = [
      "mirror"
      "mounts"
      "network"
      "space"
      "zfs"
    ];
    actual =
      let
        list = builtins.unsafeDiscardStringContext mirror.undercroft.health.list.text;
      in
      map (check: check.name) (builtins.fromJSON list).checks;
  }
]
