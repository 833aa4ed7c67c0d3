{
  description = "The machines of @FLEET@, as undercroft.toml names them";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    undercroft.url = "github:undercroft/undercroft";
    undercroft.inputs.nixpkgs.follows = "nixpkgs";
  };

  # One NixOS configuration a machine, read from undercroft.toml. Modules of your own are named
  # there, under `modules` of a class or of a node.
  outputs = { undercroft, ... }: undercroft.lib.mkFleet { src = ./.; };
}
