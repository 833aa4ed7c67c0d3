# modules/gpu.nix: the container toolkit's options came with 24.05 and 24.11, the driver's between
# 22.11 and 26.05, hardware.graphics with 24.11.
{ lib }:
let
  inherit (lib) mkOption types;
  bool = default: mkOption {
    type = types.bool;
    inherit default;
  };
in
{
  "hardware.graphics.enable" = bool false;
  "hardware.nvidia.open" = mkOption { type = types.nullOr types.bool; };
  "hardware.nvidia.package" = mkOption { type = types.package; };
  "hardware.nvidia.branch" = {
    since = "26.05";
    option = mkOption {
      type = types.str;
      default = "stable";
    };
  };
  "hardware.nvidia.datacenter.enable" = bool false;
  "hardware.nvidia.nvidiaPersistenced" = bool false;
  "hardware.nvidia.nvidiaSettings" = bool true;
  "hardware.nvidia-container-toolkit.enable" = bool false;
  "hardware.nvidia-container-toolkit.device-name-strategy" = mkOption {
    type = types.enum [
      "index"
      "uuid"
      "type-index"
    ];
    default = "index";
  };
}
