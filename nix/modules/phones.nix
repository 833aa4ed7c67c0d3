# The host of a chassis of phones: the adb server, access to the phones' USB interfaces, and the
# orchestrator that gives them work. Such a machine is no Kubernetes worker; services of the cluster
# send it jobs.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    mkIf
    mkMerge
    mkOption
    types
    ;
  cfg = config.undercroft.phones;

  # By slot, so that what a person counts in the chassis is what programs count.
  phones = lib.sort (a: b: a.slot < b.slot) cfg.phones;
  serials = map (phone: phone.serial) phones;
  slots = map (phone: phone.slot) phones;

  # What scripts for Cellhasher's chassis read: the path of adb, and serial numbers separated by
  # blanks. No script has to be changed for this host. The server's address is given in figures,
  # because adb starts a server of its own where "localhost" doesn't answer, as whoever calls it and
  # with another key.
  environment = {
    adb_path = "${cfg.adbPackage}/bin/adb";
    devices = lib.concatStringsSep " " serials;
    ADB_SERVER_SOCKET = "tcp:127.0.0.1:${toString cfg.adbPort}";
  };
  exports = lib.concatStrings (
    lib.mapAttrsToList (name: value: "export ${name}=${lib.escapeShellArg value}\n") environment
  );

  # What neither adb nor an orchestrator needs. Devices stay as they are: phones come and go.
  hardening = {
    NoNewPrivileges = true;
    CapabilityBoundingSet = "";
    ProtectSystem = "strict";
    ProtectHome = true;
    PrivateTmp = true;
    ProtectKernelTunables = true;
    ProtectKernelModules = true;
    ProtectKernelLogs = true;
    ProtectControlGroups = true;
    ProtectHostname = true;
    LockPersonality = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    # Netlink tells of devices that come and go.
    RestrictAddressFamilies = [
      "AF_UNIX"
      "AF_INET"
      "AF_INET6"
      "AF_NETLINK"
    ];
    SystemCallArchitectures = "native";
    UMask = "0077";
  };

  stateDirectory = "/var/lib/undercroft-phones";
in
{
  options.undercroft.phones = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the machine is the host of phones.";
    };
    phones = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            slot = mkOption {
              type = types.ints.between 1 20;
              description = "Slot of the chassis.";
            };
            serial = mkOption {
              type = types.strMatching "[A-Za-z0-9._:-]+";
              description = "Serial number, as `adb devices` shows it.";
            };
            model = mkOption {
              type = types.nullOr types.str;
              default = null;
              description = "Model of the phone.";
            };
          };
        }
      );
      default = [ ];
      description = "The phones in the chassis.";
    };
    adbPackage = mkOption {
      type = types.package;
      default = pkgs.android-tools;
      defaultText = lib.literalExpression "pkgs.android-tools";
      description = "Package with `bin/adb`.";
    };
    adbPort = mkOption {
      type = types.port;
      default = 5037;
      description = "TCP port of the adb server, on the loopback interface alone.";
    };
    adbKeyFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = ''
        Path on the machine of the private key that the phones know the host by, such as a secret's.
        Without it adb makes one in ${stateDirectory} when it first runs, and each phone asks on its
        screen; after a reinstallation they would ask again.
      '';
    };
    package = mkOption {
      type = types.nullOr types.package;
      default = null;
      description = ''
        The orchestrator. While it is null, which is the default, there is no
        `undercroft-phones.service`: the machine has the adb server, the phones' access rules and
        `undercroft-phones-env`, and work is started by hand or by a unit of one's own.
      '';
    };
    program = mkOption {
      type = types.str;
      default = "undercroft-phones";
      description = "Program in `bin` of the orchestrator's package.";
    };
    arguments = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Arguments of the orchestrator.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = lib.length (lib.unique serials) == lib.length serials;
          message = "undercroft.phones.phones: a serial number is named twice.";
        }
        {
          assertion = lib.length (lib.unique slots) == lib.length slots;
          message = "undercroft.phones.phones: a slot is named twice.";
        }
      ];

      # programs.adb is gone from 26.05 on, and with it its group; this holds on every release.
      users.groups.adbusers = { };
      users.groups.undercroft-phones = { };
      users.users.undercroft-phones = {
        isSystemUser = true;
        group = "undercroft-phones";
        extraGroups = [ "adbusers" ];
        home = stateDirectory;
        description = "Owner of the adb server and the phones' orchestrator";
      };

      environment.systemPackages = [
        cfg.adbPackage
        # undercroft-phones-env COMMAND…: runs it as the orchestrator would.
        (pkgs.writeShellScriptBin "undercroft-phones-env" ''
          ${exports}
          exec "$@"
        '')
      ];
      environment.etc."undercroft/phones.json".text = builtins.toJSON phones;

      # adb's interface is of class ff, subclass 42, protocol 01, whoever made the phone.
      services.udev.extraRules = ''
        SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ENV{ID_USB_INTERFACES}=="*:ff4201:*", MODE="0660", GROUP="adbusers", TAG+="systemd"
      ''
      + lib.concatMapStrings (phone: ''
        SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{serial}=="${phone.serial}", MODE="0660", GROUP="adbusers", SYMLINK+="undercroft/phones/slot-${toString phone.slot}"
      '') phones;
      # A hub with twenty phones: a phone that is suspended for want of traffic drops off adb.
      boot.kernelParams = [ "usbcore.autosuspend=-1" ];

      systemd.services.undercroft-adb = {
        description = "adb server";
        wantedBy = [ "multi-user.target" ];
        environment = {
          HOME = stateDirectory;
        }
        // lib.optionalAttrs (cfg.adbKeyFile != null) {
          ADB_VENDOR_KEYS = "%d/adbkey";
        };
        serviceConfig = {
          Type = "exec";
          ExecStart = "${cfg.adbPackage}/bin/adb -L tcp:localhost:${toString cfg.adbPort} nodaemon server";
          Restart = "always";
          RestartSec = 2;
          User = "undercroft-phones";
          Group = "undercroft-phones";
          SupplementaryGroups = [ "adbusers" ];
          StateDirectory = "undercroft-phones";
          StateDirectoryMode = "0700";
        }
        // hardening
        // lib.optionalAttrs (cfg.adbKeyFile != null) {
          LoadCredential = "adbkey:${cfg.adbKeyFile}";
        };
      };

      undercroft.health.checks.phones = mkIf (phones != [ ]) {
        description = "The adb server answers and sees phones";
        timeoutSec = 30;
        script = ''
          export PATH=${lib.makeBinPath [ pkgs.coreutils pkgs.gnused ]}
          export HOME=/run/undercroft
          ${exports}${builtins.readFile ./scripts/phones.sh}
        '';
      };
    }

    (mkIf (cfg.package != null) {
      systemd.services.undercroft-phones = {
        description = "Orchestrator of the phones";
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        requires = [ "undercroft-adb.service" ];
        after = [
          "undercroft-adb.service"
          "network-online.target"
        ];
        inherit environment;
        serviceConfig = {
          Type = "exec";
          ExecStart = lib.escapeShellArgs ([ "${cfg.package}/bin/${cfg.program}" ] ++ cfg.arguments);
          Restart = "on-failure";
          RestartSec = 5;
          User = "undercroft-phones";
          Group = "undercroft-phones";
          StateDirectory = "undercroft-phones";
          StateDirectoryMode = "0700";
        }
        // hardening;
      };
    })
  ]);
}
