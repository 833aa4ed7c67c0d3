# What differs between the releases from 24.11 to 26.05, in one place.
#
# A module says here what it wants; which option carries it is found by looking at the options that
# the release has, never at its number, so that a release between two others needs no edit.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.undercroft.compat;

  # Values as systemd's configuration files write them.
  text = value: if lib.isBool value then (if value then "yes" else "no") else toString value;
  lines =
    values: lib.concatStrings (lib.mapAttrsToList (key: value: "${key}=${text value}\n") values);

  section =
    description:
    lib.mkOption {
      type = lib.types.attrsOf (
        lib.types.oneOf [
          lib.types.bool
          lib.types.int
          lib.types.str
        ]
      );
      default = { };
      internal = true;
      inherit description;
    };
in
{
  options.undercroft.compat = {
    manager = section "Keys of `[Manager]` in systemd's system.conf.";
    logind = section "Keys of `[Login]` in logind.conf.";
    resolved = section "Keys of `[Resolve]` in resolved.conf.";
    networkd = section "Keys of `[Network]` in networkd.conf.";
    zfsKeys = lib.mkOption {
      type = lib.types.nullOr (lib.types.listOf lib.types.str);
      default = null;
      internal = true;
      description = "ZFS pools and datasets whose keys are asked for at the boot.";
    };
  };

  config = lib.mkMerge [
    # 25.11 turned systemd.extraConfig and systemd.watchdog.* into systemd.settings.Manager.
    (lib.mkIf (cfg.manager != { }) (
      if options.systemd ? settings then
        { systemd.settings.Manager = cfg.manager; }
      else
        { systemd.extraConfig = lines cfg.manager; }
    ))

    # 25.11 turned services.logind.extraConfig into services.logind.settings.Login; the old name is
    # an error afterwards.
    (lib.mkIf (cfg.logind != { }) (
      if options.services.logind ? settings then
        { services.logind.settings.Login = cfg.logind; }
      else
        { services.logind.extraConfig = lines cfg.logind; }
    ))

    # 26.05 turned services.resolved.extraConfig into services.resolved.settings.
    (lib.mkIf (cfg.resolved != { }) (
      if options.services.resolved ? settings then
        { services.resolved.settings.Resolve = cfg.resolved; }
      else
        { services.resolved.extraConfig = lines cfg.resolved; }
    ))

    # Where the option takes no list, the keys of every pool are asked for, or of none.
    (lib.mkIf (cfg.zfsKeys != null) {
      boot.zfs.requestEncryptionCredentials =
        if options.boot.zfs.requestEncryptionCredentials.type.check cfg.zfsKeys then
          cfg.zfsKeys
        else
          cfg.zfsKeys != [ ];
    })

    (lib.mkIf (cfg.networkd != { }) (
      if options.systemd.network ? config then
        { systemd.network.config.networkConfig = cfg.networkd; }
      else
        { environment.etc."systemd/networkd.conf".text = "[Network]\n" + lines cfg.networkd; }
    ))
  ];
}
