# The units of health.nix and boot.nix as NixOS writes them, for a test that runs them on another
# system: no hashes of store paths, and no settings that follow from nixpkgs alone. The arguments
# are those of ./eval.nix.
{ ... }@arguments:
let
  harness = import ./eval.nix ({ src = ../../examples/basement; } // arguments);
  inherit (harness) lib;
  inherit (harness.fleet.nixosConfigurations.control-01.config.systemd) units;

  withoutHashes =
    text:
    lib.concatMapStrings (part: if builtins.isString part then part else "/nix/store/") (
      builtins.split "/nix/store/[0-9a-z]{32}-" (builtins.unsafeDiscardStringContext text)
    );
  plain =
    text:
    lib.concatStringsSep "\n" (
      lib.filter (line: !(lib.hasPrefix "Environment=" line)) (lib.splitString "\n" (withoutHashes text))
    );
in
lib.genAttrs
  [
    "boot-complete.target"
    "undercroft-boot-commit.service"
    "undercroft-boot-deadline.timer"
    "undercroft-boot-fallback.service"
    "undercroft-health.service"
    "undercroft-health.timer"
  ]
  (name: {
    text = plain units.${name}.text;
    inherit (units.${name}) wantedBy requiredBy;
  })
