# modules/kubernetes, longhorn.nix: services.k3s as of 24.11 (20.09's module is left out), and
# modules that came with 21.05 to 23.05.
{ lib }:
let
  inherit (lib) mkOption types;
  bool =
    default:
    mkOption {
      type = types.bool;
      inherit default;
    };
  str =
    default:
    mkOption {
      type = types.str;
      inherit default;
    };
  path = mkOption {
    type = types.nullOr types.path;
    default = null;
  };
  period =
    default:
    mkOption {
      type = types.nonEmptyStr;
      inherit default;
    };
in
{
  "services.k3s.enable" = bool false;
  "services.k3s.package" = mkOption { type = types.package; };
  "services.k3s.role" = mkOption {
    type = types.enum [
      "server"
      "agent"
    ];
    default = "server";
  };
  "services.k3s.serverAddr" = str "";
  "services.k3s.clusterInit" = bool false;
  "services.k3s.token" = str "";
  "services.k3s.tokenFile" = path;
  "services.k3s.environmentFile" = path;
  "services.k3s.configPath" = path;
  "services.k3s.extraFlags" = mkOption {
    type = types.either types.str (types.listOf types.str);
    default = [ ];
  };
  "services.k3s.images" = mkOption {
    type = types.listOf types.package;
    default = [ ];
  };
  "services.k3s.gracefulNodeShutdown.enable" = bool false;
  "services.k3s.gracefulNodeShutdown.shutdownGracePeriod" = period "30s";
  "services.k3s.gracefulNodeShutdown.shutdownGracePeriodCriticalPods" = period "10s";

  "services.openiscsi.enable" = bool false;
  "services.openiscsi.name" = mkOption { type = types.str; };

  "virtualisation.containerd.enable" = bool false;
  "virtualisation.containerd.settings" = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };

  "networking.firewall.extraInputRules" = mkOption {
    type = types.lines;
    default = "";
  };
}
