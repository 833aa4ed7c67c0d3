{
  description = "Machines with a class of their own, as undercroft.toml names them";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    undercroft.url = "github:undercroft/undercroft";
    undercroft.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { undercroft, ... }: undercroft.lib.mkFleet { src = ./.; };
}
