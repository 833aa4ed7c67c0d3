# The scripts that disko makes of a layout, as text, for the tests that run them.
#
# Packages are folders of their name in /tools: a script sees the programs of the packages that
# disko names, and no others of theirs. Nothing is built, and disko's lib needs nothing else of
# nixpkgs.
{
  disko,
  # nixpkgs' lib.
  nixpkgsLib,
  # JSON of undercroft.disks, by name of the layout.
  layouts,
}:
let
  lib = import nixpkgsLib;
  undercroftLib = import ../lib;
  diskoLib = import (disko + "/lib") {
    inherit lib;
    makeTest = null;
    eval-config = null;
    qemu-common = null;
  };

  package = name: {
    type = "derivation";
    inherit name;
    outPath = "/tools/${name}";
  };
  pkgs =
    lib.genAttrs [
      "bash"
      "coreutils-full"
      "dosfstools"
      "e2fsprogs"
      "gawk"
      "gnugrep"
      "gnused"
      "gptfdisk"
      "jq"
      "lvm2"
      "mdadm"
      "parted"
      "systemdMinimal"
      "util-linux"
      "xfsprogs"
      "zfs"
    ] package
    // {
      writers.makeScriptWriter =
        { interpreter, ... }:
        _: text:
        "#!${interpreter}\n${text}";
    };

  scripts =
    disks:
    let
      inherit
        (lib.evalModules {
          modules = [
            { options.devices = lib.mkOption { type = diskoLib.toplevel; }; }
            { devices = undercroftLib.disks.devices disks; }
          ];
        })
        config
        ;
      all = config.devices._scripts { inherit pkgs; };
    in
    {
      # Wipes, makes and mounts: what an installation runs.
      inherit (all) diskoScript destroyScript formatScript mountScript;
      # What the installed system mounts.
      fileSystems = lib.mapAttrs (_: file: { inherit (file) device fsType options; }) (
        lib.foldl' lib.recursiveUpdate { } config.devices._config.fileSystems.contents
      );
      longhornMounts = undercroftLib.disks.longhornMounts disks;
    };
in
{
  layouts = lib.mapAttrs (_: scripts) (builtins.fromJSON layouts);
  # The folder that the scripts run a program of.
  deactivate = "${disko + "/disk-deactivate"}";
}
