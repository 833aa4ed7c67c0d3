{
  description = "Undercroft: from powered off to a running NixOS fleet, from one file";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      installer = system: {
        undercroft-installer = import ./nix/installer-image.nix { inherit nixpkgs system; };
      };
      packages = nixpkgs.lib.genAttrs systems installer;
      mkFleet = import ./nix/fleet.nix { inherit nixpkgs; };
    in
    {
      inherit packages;

      # mkFleet { src = ./.; }: the configurations of a folder with an undercroft.toml, and the
      # installer that its machines boot.
      lib.mkFleet = arguments: mkFleet arguments // { inherit packages; };

      devShells = nixpkgs.lib.genAttrs systems (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
        in
        {
          default = pkgs.mkShell {
            packages = [
              pkgs.cargo
              pkgs.rustc
              pkgs.clippy
              pkgs.rustfmt
              pkgs.qemu
              pkgs.OVMF.fd
              pkgs.nix
              pkgs.openssh
              pkgs.dnsmasq
            ];
          };
        }
      );
    };
}
