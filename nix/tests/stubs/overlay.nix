# modules/overlay: all of services.headscale, and what services.tailscale has had since 23.05.
{ lib }:
let
  inherit (lib) mkOption types;
  string = default: mkOption {
    type = types.str;
    inherit default;
  };
in
{
  "services.tailscale.useRoutingFeatures" = mkOption {
    type = types.enum [
      "none"
      "client"
      "server"
      "both"
    ];
    default = "none";
  };
  "services.headscale.enable" = mkOption {
    type = types.bool;
    default = false;
  };
  "services.headscale.address" = string "127.0.0.1";
  "services.headscale.port" = mkOption {
    type = types.port;
    default = 8080;
  };
  "services.headscale.user" = string "headscale";
  "services.headscale.group" = string "headscale";
  "services.headscale.settings" = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };
}
