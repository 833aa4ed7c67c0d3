# Lending: what the inventory says of it, and the server that hands work out, beside NATS.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.undercroft.lending;
  inherit (cfg) server;
  functions = import ../lib/lending.nix;
  credential = name: "/run/credentials/undercroft-lend-server.service/${name}";

  text = default: description: mkOption {
    type = types.nullOr types.str;
    inherit default description;
  };
  plain = type: default: description: mkOption { inherit type default description; };
  nkey = description: mkOption {
    type = types.strMatching "U[A-Z2-7]{55}";
    inherit description;
  };

  fleetFile = pkgs.writeText "undercroft-lending.json" (
    builtins.toJSON (functions.serverFile config.undercroft.fleet.name cfg)
  );
in
{
  options.undercroft.lending = {
    enable = lib.mkEnableOption "lending in this fleet";
    account = plain types.str "LEND" "NATS account that lent work is confined to.";
    natsUrl = text null "URL of the NATS server.";
    serverKey = text null "Public nkey of the server of lending.";
    devices = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            nkey = nkey "The PC's public nkey.";
            ownerKey = nkey "Its owner's public nkey.";
          };
        }
      );
      default = { };
      description = "PCs that lend, with the keys that their ledgers are signed with.";
    };
    submitters = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            nkey = nkey "Their public nkey.";
            tenant = mkOption {
              type = types.str;
              description = "For whom they bring work.";
            };
            brings = plain (types.enum [
              "public"
              "internal"
            ]) "internal" "How sensitive what they bring is at least.";
          };
        }
      );
      default = { };
      description = "Those who bring work.";
    };
    tenants = plain (types.listOf types.str) [ ] "For whom work may be brought.";
    runtimes = plain (types.listOf types.str) [ "wasm" ] "What jobs may run in.";
    maxSensitivity = plain types.str "public" "The most sensitive work that is lent.";
    leaseS = plain types.ints.positive 60 "Seconds for which a lease holds without renewal.";
    attempts = plain types.ints.positive 5 "Times that a job may be started.";
    jobWallS = plain types.ints.positive 3600 "The longest that a job may run, in seconds.";

    server = {
      enable = lib.mkEnableOption "the server of lending on this machine";
      package = mkOption {
        type = types.package;
        description = "The command `undercroft`.";
      };
      url = mkOption {
        type = types.str;
        default =
          if config.undercroft.nats.enable && config.undercroft.nats.tls.certFile == null then
            "nats://127.0.0.1:${toString config.undercroft.nats.port}"
          else if cfg.natsUrl == null then
            ""
          else
            cfg.natsUrl;
        defaultText = "the NATS server of this machine if it has no TLS, else lending.nats_url";
        description = "URL of the NATS server.";
      };
      keyFile = mkOption {
        type = types.str;
        description = "Path on the machine of the server's key (`undercroft lend key`).";
      };
      caFile = text null ''
        Path on the machine of the certificate of the authority that signed NATS'. Without it, those of the system
        are believed.
      '';
      metrics = text "127.0.0.1:9109" "Address of the loopback interface at which numbers are given.";
      contentGib = plain types.ints.positive 8 ''
        The most that content may take in JetStream, in GiB; only where it isn't there yet. It has to be below
        `undercroft.nats.maxStore`.
      '';
      keepS = plain types.ints.positive 604800 ''
        Seconds for which content is kept after the last job that reads it or made it has ended. Results are gone after
        that.
      '';
    };
  };

  config = mkIf server.enable {
    assertions = [
      {
        assertion = cfg.enable;
        message = "undercroft.lending.server: this fleet doesn't lend; set lending.enabled in the inventory.";
      }
      {
        assertion = server.url != "";
        message = "undercroft.lending.server: there is no NATS server; set lending.nats_url in the inventory.";
      }
    ];
    systemd.services.undercroft-lend-server = {
      description = "Hand work out to lent PCs of ${config.undercroft.fleet.name}";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "nats.service"
      ];
      # Its state is JetStream's: it may be begun anew as often as it takes.
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig = {
        Type = "exec";
        ExecStart = lib.escapeShellArgs (
          [
            "${server.package}/bin/undercroft"
            "lend"
            "server"
            "--config"
            fleetFile
            "--nats"
            server.url
            "--key"
            (credential "key")
            "--content-gib"
            (toString server.contentGib)
            "--keep-s"
            (toString server.keepS)
          ]
          ++ lib.optionals (server.caFile != null) [
            "--ca"
            (credential "ca")
          ]
          ++ lib.optionals (server.metrics != null) [
            "--metrics"
            server.metrics
          ]
        );
        LoadCredential = [ "key:${server.keyFile}" ] ++ lib.optional (server.caFile != null) "ca:${server.caFile}";
        Restart = "always";
        RestartSec = 2;
        DynamicUser = true;
        CapabilityBoundingSet = "";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        MemoryMax = "512M";
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
        ];
        UMask = "0077";
      };
    };
  };
}
