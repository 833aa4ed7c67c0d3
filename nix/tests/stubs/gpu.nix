# modules/gpu.nix: the container toolkit's options came with 24.05 and 24.11, the driver's between
# 22.11 and 24.05, hardware.graphics with 24.11.
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
  "hardware.nvidia.open" = mkOption { type = types.bool; };
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
