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
  # Came with 23.11: where it is true, nats-server reads the configuration while it is built.
  "services.nats.validateConfig" = mkOption {
    type = types.bool;
    default = true;
  };
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
