# The machine as a client of the overlay: people reach it from anywhere, and a network behind it
# where it announces one.
#
# The cluster doesn't need the overlay, and must not come to need it: the machine's addresses and
# names are the LAN's, no route of the overlay is taken, and no unit waits for the login.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    mkDefault
    mkIf
    mkMerge
    mkOption
    types
    ;
  cfg = config.undercroft.overlay;
in
{
  imports = [ ./options.nix ];

  options.undercroft.overlay = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the machine is a client of the overlay.";
    };
    routes = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Networks that the overlay's other clients reach through this machine.";
      example = [ "10.20.0.0/22" ];
    };
    authKeyFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = ''
        Path on the machine of the key to log in with: a secret, and best one that may be used
        again and is tagged `tag:node`. Without it the daemon runs, and a person logs in.
      '';
    };
    attempts = mkOption {
      type = types.ints.positive;
      default = 10;
      description = "Tries of a login before systemd starts the unit anew.";
    };
    pauseSec = mkOption {
      type = types.ints.positive;
      default = 15;
      description = "Seconds between two tries.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = !cfg.server.enable;
          message = ''
            This machine runs the overlay's control server, so it can't be a client of it: after a
            reboot it would wait for itself. Set undercroft.overlay.enable to false.
          '';
        }
        {
          assertion = cfg.kind != "none";
          message = "undercroft.overlay.enable is set, but undercroft.overlay.kind is none.";
        }
        {
          assertion = cfg.kind == "headscale" -> cfg.serverUrl != null;
          message = "undercroft.overlay.kind is headscale, but undercroft.overlay.serverUrl names no server.";
        }
      ];

      services.tailscale = {
        enable = true;
        # "client" would loosen the reverse path filter, and take routes; this machine does neither.
        useRoutingFeatures = mkDefault (if cfg.routes != [ ] then "server" else "none");
      };
      networking.firewall.allowedUDPPorts = [ config.services.tailscale.port ];
    }

    # NixOS' own login unit tries once, and stays failed when the control server isn't up yet.
    (mkIf (cfg.authKeyFile != null) {
      systemd.services.undercroft-overlay-connect = {
        description = "Log in to the overlay";
        wantedBy = [ "multi-user.target" ];
        wants = [
          "tailscaled.service"
          "network-online.target"
        ];
        after = [
          "tailscaled.service"
          "network-online.target"
        ];
        startLimitIntervalSec = 0;
        path = [
          (config.services.tailscale.package or pkgs.tailscale)
          pkgs.coreutils
        ];
        environment = {
          AUTH_KEY_FILE = "%d/auth-key";
          HOST_NAME = config.networking.hostName;
          LOGIN_SERVER = lib.optionalString (cfg.serverUrl != null) cfg.serverUrl;
          ROUTES = lib.concatStringsSep "," cfg.routes;
          ATTEMPTS = toString cfg.attempts;
          PAUSE_S = toString cfg.pauseSec;
        };
        serviceConfig = {
          # Not oneshot: multi-user.target would wait for it, and the health gate for that.
          Type = "exec";
          RemainAfterExit = true;
          ExecStart = "${pkgs.runtimeShell} ${../scripts/overlay-connect.sh}";
          LoadCredential = "auth-key:${cfg.authKeyFile}";
          Restart = "on-failure";
          RestartSec = 60;
        };
      };
    })
  ]);
}
