# NixOS-WSL's own modules, at the version of the tree at hand, and ../../wsl: options that are newer
# than 20.09.
{ lib }:
let
  inherit (lib) mkOption types;
  on = mkOption {
    type = types.bool;
    default = true;
  };
in
{
  "boot.kernel.enable" = on;
  "boot.modprobeConfig.enable" = on;
  "console.enable" = on;
  "nix.enable" = on;
  "services.udev.enable" = on;
  "systemd.oomd.enable" = on;
  "hardware.graphics.extraPackages" = mkOption {
    type = types.listOf types.package;
    default = [ ];
  };
  "services.envfs.enable" = mkOption {
    type = types.bool;
    default = false;
  };
  "services.envfs.extraFallbackPathCommands" = mkOption {
    type = types.lines;
    default = "";
  };
  "nix.settings" = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };
}
