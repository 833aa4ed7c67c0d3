# Packages without a free licence that a machine may have, by name.
#
# nixpkgs merges `allowUnfreePredicate` of two modules by taking one of them; so the modules here
# give names, and this one makes the predicate.
{ config, lib, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.undercroft.unfree;
in
{
  options.undercroft.unfree.packages = mkOption {
    type = types.listOf types.str;
    default = [ ];
    description = ''
      Names of packages without a free licence that are allowed, each without its version. A name
      stands for every package whose name begins with it. Without effect where
      `nixpkgs.config.allowUnfree` is true or where the package set is given ready-made.
    '';
    example = [ "nvidia" ];
  };

  config = mkIf (cfg.packages != [ ]) {
    nixpkgs.config.allowUnfreePredicate =
      package: lib.any (name: lib.hasPrefix name (lib.getName package)) cfg.packages;
  };
}
