# What the overlay's client and its control server both read.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.undercroft.overlay = {
    kind = mkOption {
      type = types.enum [
        "none"
        "headscale"
        "tailscale"
      ];
      default = "none";
      description = "Who controls the overlay.";
    };
    serverUrl = mkOption {
      type = types.nullOr (types.strMatching "https?://.+");
      default = null;
      description = "URL of the Headscale server. Null with Tailscale's service.";
      example = "https://headscale.basement.example";
    };
    cidr = mkOption {
      type = types.str;
      default = "100.64.0.0/10";
      description = "IPv4 network of the overlay.";
    };
    baseDomain = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "DNS domain of the overlay's names (MagicDNS).";
      example = "net.basement.example";
    };
  };
}
