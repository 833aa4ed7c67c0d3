# Tests of the modules, one file per concern: each a function that gives a list of
# { name; expected; actual; }. The result is the list of those that differ.
#
#   nix-instantiate --eval --strict --json nix/tests/modules --arg nixpkgs PATH …
#
# The arguments are those of ../eval.nix, which evaluates with trees that may be old.
{
  # More modules for every machine of the tests.
  extraModules ? [ ],
  ...
}@arguments:
let
  harness = import ../eval.nix (
    { src = ../../../examples/basement; } // removeAttrs arguments [ "extraModules" ]
  );
  inherit (harness) lib inputs;

  # The configuration of a machine with all modules and these.
  node = machine "x86_64-linux";
  machine =
    system: modules:
    (inputs.nixpkgs.lib.nixosSystem {
      inherit system;
      modules = [
        inputs.disko.nixosModules.disko
        inputs.sops-nix.nixosModules.sops
        ../../modules
        {
          undercroft = {
            fleet.name = "cellar";
            node = {
              name = "box-01";
              address = "10.0.0.11";
              prefixLength = 24;
              hostId = "1c9f4e02";
              inherit system;
            };
            disks = {
              layout = lib.mkDefault "ext4";
              root = lib.mkDefault [
                {
                  device = "/dev/disk/by-serial/S6S2NS0T834821";
                  serial = "S6S2NS0T834821";
                }
              ];
            };
            ssh.rootKeys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ada" ];
          };
        }
      ]
      ++ extraModules
      ++ modules;
    }).config;

  # The messages of assertions that don't hold.
  refused =
    config: map (each: each.message) (builtins.filter (each: !each.assertion) config.assertions);

  concerns = lib.filter (name: name != "default.nix" && lib.hasSuffix ".nix" name) (
    builtins.attrNames (builtins.readDir ./.)
  );
  results = lib.concatMap (
    file:
    map (test: test // { name = "${lib.removeSuffix ".nix" file}: ${test.name}"; }) (
      import (./. + "/${file}") {
        inherit
          lib
          harness
          inputs
          node
          machine
          refused
          ;
      }
    )
  ) concerns;
in
{
  count = builtins.length results;
  failed = builtins.filter (test: test.expected != test.actual) results;
}
