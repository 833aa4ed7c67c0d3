# The controller's unit as NixOS writes it, for tests on another system: no hashes of store paths,
# and no settings that follow from nixpkgs alone. The arguments are those of ./eval.nix.
{ ... }@arguments:
let
  harness = import ./eval.nix ({ src = ../../examples/basement; } // arguments);
  inherit (harness) lib inputs;
  # A machine outside of the fleet: it has this module and no other of ours.
  alone = inputs.nixpkgs.lib.nixosSystem {
    system = "x86_64-linux";
    modules = [
      ../modules/controller.nix
      {
        undercroft.controller = {
          enable = true;
          package = {
            type = "derivation";
            outPath = "/nix/store/undercroft";
          };
        };
      }
    ];
  };
  inherit (alone.config.systemd.units."undercroft-controller.service") text;

  withoutHashes = lib.concatMapStrings (
    part: if builtins.isString part then part else "/nix/store/"
  ) (builtins.split "/nix/store/[0-9a-z]{32}-" (builtins.unsafeDiscardStringContext text));
  ofNixpkgs =
    line:
    lib.any (name: lib.hasPrefix "Environment=\"${name}=" line) [
      "LOCALE_ARCHIVE"
      "PATH"
      "TZDIR"
    ];
in
{
  text = lib.concatStringsSep "\n" (
    lib.filter (line: !(ofNixpkgs line)) (lib.splitString "\n" withoutHashes)
  );
}
