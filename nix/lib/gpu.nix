# What is known of NVIDIA's cards by the name of their model.
#
# MIG: NVIDIA's MIG user guide, "Supported GPUs". Drivers: NVIDIA's driver README, "Open Linux
# Kernel Modules". The same lists stand in crates/model/src/inventory/check/gpu.rs, which refuses
# what a card can't do.
let
  inherit (import ./util.nix) hasPrefix;

  # A model with its memory or without: "a100" is "a100-80gb" too.
  among = models: model: builtins.any (name: name == model || hasPrefix "${name}-" model) models;
  # A series: "rtx-50" is "rtx-5090" and its like.
  series = prefixes: model: builtins.any (prefix: hasPrefix prefix model) prefixes;

  blackwell =
    model:
    series [ "rtx-50" ] model
    || among [
      "b200"
      "gb200"
      "b300"
      "gb300"
    ] model
    || builtins.match ".*-blackwell" model != null;

  beforeTuring =
    model:
    series [
      "gtx-10"
      "gtx-9"
      "gtx-7"
    ] model
    || among [
      "titan-x"
      "titan-xp"
      "titan-v"
      "v100"
      "p100"
      "p40"
      "p4"
      "k80"
      "m40"
      "m60"
    ] model;

  # Kepler, of which NVIDIA's driver 470 is the last. The 745 and 750 of that series are Maxwell.
  kepler =
    model:
    among [ "k80" ] model
    || series [ "gtx-7" ] model && !series [ "gtx-745" "gtx-750" ] model;
in
{
  facts = model: {
    # NVIDIA's name of the architecture, as far as it makes a difference for the driver.
    generation =
      if blackwell model then
        "blackwell"
      else if beforeTuring model then
        "before-turing"
      else
        "turing-or-later";
    # The open modules are the only ones for Blackwell, and drive nothing before Turing.
    openRequired = blackwell model;
    openPossible = !(beforeTuring model);
    # The last branch of the driver that drives the card, as nixpkgs names it: 580 is the last for
    # Maxwell, Pascal and Volta. Null where the newest driver does.
    lastBranch =
      if kepler model then
        "legacy_470"
      else if beforeTuring model then
        "legacy_580"
      else
        null;
    migCapable = among [
      "a30"
      "a100"
      "h100"
      "h200"
      "h20"
      "gh200"
      "b200"
      "gb200"
      "b300"
      "gb300"
      "rtx-pro-4500-blackwell"
      "rtx-pro-5000-blackwell"
      "rtx-pro-6000-blackwell"
    ] model;
  };

  # Name of the device plugin's configuration that a machine's cards need: cards that are shared
  # alike have the same one. It is the value of the label nvidia.com/device-plugin.config, and a key
  # of the plugin's rendered configuration (Gpu::profile in crates/model).
  profile =
    gpu:
    if gpu.sharing == "none" then
      "exclusive"
    else if gpu.sharing == "mig" then
      # Instances that are all the same can be asked for as plain nvidia.com/gpu.
      if builtins.match "all-[0-9].*" gpu.migConfig != null then "mig-single" else "mig-mixed"
    else
      "${gpu.sharing}-${toString gpu.replicas}";

  # The modules that a machine's cards are driven by: `hardware.nvidia.open`.
  open = gpu: gpu.driver != "proprietary";
}
