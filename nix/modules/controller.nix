# The controller of a fleet as a service: `undercroft serve`, on a machine of the fleet or on any
# other. It uses nothing of the other modules, so that a machine outside of the fleet may import it
# alone.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.undercroft.controller;
  home = "/var/lib/undercroft";

  text = default: description: mkOption {
    type = types.nullOr types.str;
    inherit default description;
  };
  within = folder: cfg.directory == folder || lib.hasPrefix "${folder}/" cfg.directory;
  # DHCP, TFTP, and the port that boot servers are asked at.
  udpPorts = [
    67
    69
    4011
  ];
  tcpPorts = [ cfg.httpPort ] ++ lib.optional (cfg.metricsPort != null) cfg.metricsPort;
  credential = "/run/credentials/undercroft-controller.service/webhook";
in
{
  options.undercroft.controller = {
    enable = lib.mkEnableOption ''
      the controller of a fleet on this machine. Machines of the inventory that were never installed are then wiped
      and installed without a question; one that runs is never wiped
    '';
    package = mkOption {
      type = types.package;
      description = "The command `undercroft`.";
    };
    directory = mkOption {
      type = types.str;
      default = "${home}/fleet";
      description = ''
        Folder with `undercroft.toml`, a working tree of git's that belongs to the service's user. The journal and
        the operator's keys lie in it, in `.undercroft`.
      '';
    };
    user = mkOption {
      type = types.str;
      default = "undercroft";
      description = "User that the controller runs as. The one of this name is made here.";
    };
    only = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Machines that it keeps, as names, classes or patterns; none: all.";
    };
    intervalS = mkOption {
      type = types.ints.between 1 86400;
      default = 60;
      description = "Seconds from the end of one look to the next.";
    };
    httpPort = mkOption {
      type = types.port;
      default = 8080;
      description = "The inventory's `network.http_port`, for the firewall.";
    };
    metricsPort = mkOption {
      type = types.nullOr types.port;
      default = null;
      description = "The inventory's `network.metrics_port`, for the firewall.";
    };
    webhook = {
      url = text null ''
        URL to which a notice is posted when what the controller waits for changes, on a failure, and when all goes
        on again. `{secret}` in it stands for the secret.
      '';
      secretFile = text null ''
        Path on the machine of the file with the secret. systemd hands it over; without `{secret}` in the URL it is
        sent as a bearer's token.
      '';
    };
    interface = text null ''
      Network interface that machines boot from: the firewall is opened there alone. Without it, on all.
    '';
    openFirewall = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the firewall is opened for what machines boot from.";
    };
    watchdogS = mkOption {
      type = types.ints.between 10 86400;
      default = 120;
      description = ''
        Seconds without a sign of life of the controller's rounds after which systemd ends it and starts it anew.
      '';
    };
    extraPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      example = lib.literalExpression "[ pkgs.ipmitool ]";
      description = "What the inventory's commands under `power` need.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.webhook.secretFile == null || cfg.webhook.url != null;
        message = "undercroft.controller.webhook: there is a secret and no URL; set undercroft.controller.webhook.url.";
      }
      {
        assertion = !(lib.any within [
          "/home"
          "/root"
          "/run/user"
          "/tmp"
          "/var/tmp"
        ]);
        message = "undercroft.controller.directory: the service sees no homes and no common folder for temporary files; put ${cfg.directory} elsewhere, such as below ${home}.";
      }
    ];

    users = mkIf (cfg.user == "undercroft") {
      users.undercroft = {
        isSystemUser = true;
        group = "undercroft";
        inherit home;
        description = "Undercroft's controller";
      };
      groups.undercroft = { };
    };

    networking.firewall =
      let
        ports = {
          allowedUDPPorts = udpPorts;
          allowedTCPPorts = tcpPorts;
        };
      in
      mkIf cfg.openFirewall (
        if cfg.interface == null then ports else { interfaces.${cfg.interface} = ports; }
      );

    systemd.services.undercroft-controller = {
      description = "Keep the machines of a fleet as its inventory says";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "nix-daemon.socket"
      ];
      # What was begun stands in the journal: it may be started anew as often as it takes.
      unitConfig.StartLimitIntervalSec = 0;
      path = [
        config.nix.package
        pkgs.git
        pkgs.openssh
      ]
      ++ cfg.extraPackages;
      environment = {
        HOME = home;
        XDG_CACHE_HOME = "/var/cache/undercroft";
        UNDERCROFT_CACHE_DIR = "/var/cache/undercroft/images";
      };
      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = lib.escapeShellArgs (
          [
            "${cfg.package}/bin/undercroft"
            "serve"
            "--yes"
            "--interval"
            (toString cfg.intervalS)
          ]
          ++ lib.concatMap (machines: [
            "--only"
            machines
          ]) cfg.only
          ++ lib.optionals (cfg.webhook.url != null) [
            "--webhook"
            cfg.webhook.url
          ]
          ++ lib.optionals (cfg.webhook.secretFile != null) [
            "--webhook-secret"
            credential
          ]
        );
        LoadCredential = lib.optional (cfg.webhook.secretFile != null) "webhook:${cfg.webhook.secretFile}";
        WorkingDirectory = cfg.directory;
        Restart = "always";
        RestartSec = 10;
        WatchdogSec = cfg.watchdogS;
        # It ends at once; the limit is for a disk that hangs.
        TimeoutStopSec = 60;
        # The signal asks the controller alone: it ends in order what it has started.
        KillMode = "mixed";

        User = cfg.user;
        StateDirectory = "undercroft";
        StateDirectoryMode = "0700";
        CacheDirectory = "undercroft";
        CacheDirectoryMode = "0700";
        ReadWritePaths = [ cfg.directory ];
        UMask = "0077";

        # The ports of DHCP and TFTP, and packets to machines that have no address yet. No program
        # that it starts inherits them.
        AmbientCapabilities = [
          "CAP_NET_BIND_SERVICE"
          "CAP_NET_RAW"
        ];
        CapabilityBoundingSet = [
          "CAP_NET_BIND_SERVICE"
          "CAP_NET_RAW"
        ];
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateMounts = true;
        PrivateTmp = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        # Interfaces are looked up by netlink, and addresses in use by packets of ARP's.
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
          "AF_NETLINK"
          "AF_PACKET"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallErrorNumber = "EPERM";
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
          # It lets go of the capabilities that it doesn't need.
          "capset"
        ];
      };
    };
  };
}
