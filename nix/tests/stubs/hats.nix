# modules/hats.nix and modules/pi.nix: hardware.coral came with 24.05.
{ lib }:
let
  inherit (lib) mkEnableOption mkOption types;
in
{
  "hardware.coral.usb.enable" = mkEnableOption "Coral USB support";
  "hardware.coral.pcie.enable" = mkEnableOption "Coral PCIe support";
  "boot.initrd.includeDefaultModules" = mkOption {
    type = types.bool;
    default = true;
  };
}
