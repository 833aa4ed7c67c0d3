{
  description = "Undercroft: from powered off to a running NixOS fleet, from one file";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    disko.url = "github:nix-community/disko";
    disko.inputs.nixpkgs.follows = "nixpkgs";
    sops-nix.url = "github:Mic92/sops-nix";
    sops-nix.inputs.nixpkgs.follows = "nixpkgs";
    home-manager.url = "github:nix-community/home-manager/release-25.11";
    home-manager.inputs.nixpkgs.follows = "nixpkgs";
    nix-darwin.url = "github:nix-darwin/nix-darwin/nix-darwin-25.11";
    nix-darwin.inputs.nixpkgs.follows = "nixpkgs";
    nixos-wsl.url = "github:nix-community/NixOS-WSL/main";
    nixos-wsl.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { self, nixpkgs, ... }@inputs:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      modules = {
        # All concerns of a node; ./nix/modules has them one by one.
        default = ./nix/modules;
        # `undercroft serve` as a service; it needs none of the others.
        controller = ./nix/modules/controller.nix;
      };
    in
    {
      # mkFleet { src = ./.; }: the outputs of a folder with an undercroft.toml.
      lib.mkFleet = import ./nix/mk-fleet.nix (removeAttrs inputs [ "self" ]);

      # The pure half: addresses, layouts, flags, without nixpkgs.
      lib.pure = import ./nix/lib;

      nixosModules = modules;
      homeModules.default = ./nix/home;
      darwinModules.default = ./nix/darwin;

      packages = nixpkgs.lib.genAttrs systems (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
          undercroft = pkgs.callPackage ./nix/packages/undercroft.nix { };
        in
        {
          inherit undercroft;
          lending-server-image = pkgs.callPackage ./nix/packages/lending-server-image.nix {
            inherit undercroft;
          };
          undercroft-installer = import ./nix/installer-image.nix { inherit nixpkgs system; };
        }
      );

      devShells = nixpkgs.lib.genAttrs systems (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
        in
        {
          # Undercroft's own developers: the workspace, and the virtual rack.
          default = pkgs.mkShell {
            inputsFrom = [ (import ./nix/dev-shell.nix { inherit pkgs; }) ];
            packages = [
              pkgs.cargo
              pkgs.rustc
              pkgs.clippy
              pkgs.rustfmt
              pkgs.qemu
              pkgs.OVMF.fd
              pkgs.nix
              pkgs.dnsmasq
            ];
          };
        }
      );
    };
}
