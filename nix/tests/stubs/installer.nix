# The installer that machines boot over the network.
{ lib }:
let
  inherit (lib) mkOption types;
in
{
  "services.getty.autologinUser" = mkOption {
    type = types.nullOr types.str;
    default = null;
  };
}
