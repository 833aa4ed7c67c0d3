# mkFleet { src = ./.; } reads undercroft.toml beside a flake and gives one NixOS configuration for
# each of its nodes. Modules of one's own are named in the inventory, for a class or for a node, and
# override anything here by the module system's usual means.
#
# This is the part of a machine that Undercroft itself relies on: the disks as its own layout leaves
# them, the boot loader that it reads back, and SSH under the host key that it delivers.
{ nixpkgs }:
{
  src,
  # More modules for every machine.
  modules ? [ ],
}:
let
  inherit (nixpkgs) lib;
  inventory = builtins.fromTOML (builtins.readFile (src + "/undercroft.toml"));
  nodes = inventory.nodes or { };
  classes = inventory.classes or { };

  admins = lib.filterAttrs (_: user: (user.role or "developer") == "admin") (inventory.users or { });
  # What `undercroft` itself logs in with; it writes the file, and git must know of it.
  operators = src + "/facts/operators.pub";
  operatorKeys = lib.optionals (builtins.pathExists operators) (
    builtins.filter (line: builtins.isString line && line != "") (
      builtins.split "\n" (builtins.readFile operators)
    )
  );
  rootKeys =
    operatorKeys
    ++ (inventory.fleet.admin_keys or [ ])
    ++ lib.concatMap (user: user.ssh_keys or [ ]) (builtins.attrValues admins);

  # What a class's kind says where the class itself doesn't.
  defaultSystem = kind: if kind == "pi" then "aarch64-linux" else "x86_64-linux";

  machine =
    name: node:
    let
      class = classes.${node.class} or (throw "node ${name}: there is no class ${node.class}");
      system = class.system or (defaultSystem (class.kind or "plain"));
      own = map (path: src + "/${path}") ((class.modules or [ ]) ++ (node.modules or [ ]));
    in
    nixpkgs.lib.nixosSystem {
      inherit system;
      specialArgs.undercroft = { inherit inventory name node class; };
      modules = [ (import ./machine.nix { inherit name node rootKeys; fleet = inventory.fleet; }) ] ++ modules ++ own;
    };
in
{
  nixosConfigurations = builtins.mapAttrs machine nodes;
}
