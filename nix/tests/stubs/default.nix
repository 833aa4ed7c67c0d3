# Stand-ins for what the tree of nixpkgs at hand lacks: options and packages that are newer. Each
# file here is of one concern and gives options by their path, but for packages.nix, a list of
# names, functions.nix, and replaced.nix, the modules of an older tree that stubs stand in for as a
# whole:
#
#   { lib }: { "services.k3s.tokenFile" = lib.mkOption { … }; }
#
# An option that came or went with a release is { since; before; option; }.
{ lib, release }:
let
  inherit (lib) filter filterAttrs;

  files = filter (
    name:
    !(lib.elem name [
      "default.nix"
      "functions.nix"
      "packages.nix"
      "replaced.nix"
    ])
  ) (
    lib.attrNames (builtins.readDir ./.)
  );
  declared = lib.foldl' (all: file: all // import (./. + "/${file}") { inherit lib; }) { } files;

  isThere =
    stub:
    lib.isOption stub
    || lib.versionAtLeast release (stub.since or "0") && lib.versionOlder release (stub.before or "9999");
  optionOf = stub: if lib.isOption stub then stub else stub.option;

  path = lib.splitString ".";

  # Whether there is an option of that path, or one of a prefix of it. `*` stands for the names of a
  # set of submodules: "users.users.*.linger".
  has =
    options: parts:
    if lib.isOption options then
      parts == [ ] || lib.head parts != "*" || has (options.type.getSubOptions [ ]) (lib.tail parts)
    else
      parts == [ ] || options ? ${lib.head parts} && has options.${lib.head parts} (lib.tail parts);

  # What declares an option of that path.
  declaration =
    parts: option:
    if parts == [ ] then
      option
    else if lib.head (lib.tail parts ++ [ "" ]) == "*" then
      {
        ${lib.head parts} = lib.mkOption {
          type = lib.types.attrsOf (
            lib.types.submodule { options = declaration (lib.drop 2 parts) option; }
          );
        };
      }
    else
      {
        ${lib.head parts} = declaration (lib.tail parts) option;
      };

  packages = import ./packages.nix;
  functions = pkgs: import ./functions.nix { inherit lib pkgs; };
  # A copy of nixpkgs may lack the large file of Haskell's packages, and shellcheck is one of them.
  haskell = pkgs: builtins.pathExists (pkgs.path + "/pkgs/development/haskell-modules/hackage-packages.nix");
  hasPackage =
    pkgs: name: lib.hasAttrByPath (path name) pkgs && (name != "shellcheck" || haskell pkgs);
  # A module of nixpkgs whose options have other types in the oldest tree is left out of it, and
  # all of its options are stubs. `unless` is an option that tells a newer tree by.
  replaced = import ./replaced.nix;
  isReplaced =
    options: name:
    lib.any (each: lib.hasPrefix "${each}." name && !(has options (path replaced.${each}.unless))) (
      lib.attrNames replaced
    );
in
{
  nixos = lib.mapAttrs (_: optionOf) (filterAttrs (_: isThere) declared);

  missing = options: filterAttrs (name: _: isReplaced options name || !(has options (path name)));

  # A module that declares these options.
  module = stubs: {
    _file = "nix/tests/stubs";
    disabledModules = map (each: each.module) (
      filter (each: stubs ? ${each.unless}) (lib.attrValues replaced)
    );
    options = lib.foldl' lib.recursiveUpdate { } (
      lib.mapAttrsToList (name: option: declaration (path name) option) stubs
    );
  };

  missingPackages =
    pkgs:
    filter (name: !(hasPackage pkgs name)) (packages ++ lib.attrNames (functions pkgs));

  # Empty derivations for the packages that are missing. One that is inside of another set, such
  # as kernelPackages.x, is added to that set.
  overlay =
    _: pkgs:
    let
      stub =
        name:
        pkgs.runCommand "${lib.last (path name)}-stub" {
          version = "0-stub";
          passthru.meta.mainProgram = lib.last (path name);
        } "mkdir $out";
      added = lib.foldl' (
        sets: name:
        if hasPackage pkgs name then
          sets
        else
          lib.recursiveUpdate sets (lib.setAttrByPath (path name) (stub name))
      ) { } packages;
    in
    {
      # Rust programs that name their dependencies by a lock file, as nixpkgs of 2021 and later can.
      rustPlatform = pkgs.rustPlatform // {
        buildRustPackage =
          arguments:
          if arguments ? cargoLock && !(pkgs.rustPlatform ? importCargoLock) then
            stub (arguments.pname or arguments.name)
          else
            pkgs.rustPlatform.buildRustPackage arguments;
      };
      # How a shell checks a script's syntax: came as an attribute of stdenv.
      stdenv = {
        shellDryRun = "${pkgs.runtimeShell} -n";
      }
      // pkgs.stdenv;
      # A derivation's name loses what it was taken from, since 21.05.
      stdenvNoCC = pkgs.stdenvNoCC // {
        mkDerivation =
          attributes:
          pkgs.stdenvNoCC.mkDerivation (
            attributes
            // lib.optionalAttrs (attributes ? name) {
              name = builtins.unsafeDiscardStringContext attributes.name;
            }
          );
      };
    }
    // filterAttrs (name: _: !(pkgs ? ${name})) (functions pkgs)
    // {
      kubernetes =
        if lib.versionOlder pkgs.kubernetes.version "1.31" then
          (functions pkgs).kubernetesStub
        else
          pkgs.kubernetes;
    }
    // lib.mapAttrs (
      name: value: if lib.isDerivation value then value else (pkgs.${name} or { }) // value
    ) added;
}
