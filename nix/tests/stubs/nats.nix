# modules/nats.nix: services.nats, which nixpkgs has from 21.05 on.
{ lib }:
let
  inherit (lib) mkOption types;
  bool = mkOption {
    type = types.bool;
    default = false;
  };
in
{
  "services.nats.enable" = bool;
  "services.nats.jetstream" = bool;
  "services.nats.serverName" = mkOption {
    type = types.str;
    default = "nats";
  };
  "services.nats.port" = mkOption {
    type = types.port;
    default = 4222;
  };
  "services.nats.settings" = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };
}
