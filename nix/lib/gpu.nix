# What is known of NVIDIA's cards by the name of their model.
#
# MIG: NVIDIA's MIG user guide, "Supported GPUs". Drivers: NVIDIA's driver README, "Open Linux
# Kernel Modules". The lists stand in gpu-models.json, which crates/model reads too, to refuse what
# a card can't do; its `card` module reads names by the same two rules.
let
  inherit (import ./util.nix) hasPrefix;

  models = builtins.fromJSON (builtins.readFile ./gpu-models.json);

  # A model with its memory or without: "a100" is "a100-80gb" too.
  among = names: model: builtins.any (name: name == model || hasPrefix "${name}-" model) names;
  # A series: "rtx-509" is "rtx-5090" and its like.
  series = prefixes: model: builtins.any (prefix: hasPrefix prefix model) prefixes;
  either = lists: model: among lists.models model || series lists.series model;

  blackwell =
    model: either models.blackwell model || builtins.match ".*-blackwell" model != null;
  beforeTuring = either models.beforeTuring;
  # Kepler, of which NVIDIA's driver 470 is the last. The 745 and 750 of that series are Maxwell.
  kepler = either models.kepler;
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
    migCapable = among models.mig model;
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
