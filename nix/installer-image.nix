# What undercroft's nix builder asks a flake for, as packages.SYSTEM.undercroft-installer: a folder
# with the kernel, the initrd and the kernel's command line.
#
#   packages.x86_64-linux.undercroft-installer =
#     import ./nix/installer-image.nix { inherit nixpkgs; system = "x86_64-linux"; };
{
  nixpkgs,
  system,
  # More modules for the installer, such as one with a driver that a machine needs.
  modules ? [ ],
}:
let
  nixos = nixpkgs.lib.nixosSystem {
    inherit system;
    modules = [ ./installer.nix ] ++ modules;
  };
  inherit (nixos) config pkgs;
in
pkgs.runCommandLocal "undercroft-installer" { } ''
  mkdir -p $out
  ln -s ${config.system.build.kernel}/${config.system.boot.loader.kernelFile} $out/kernel
  ln -s ${config.system.build.netbootRamdisk}/initrd $out/initrd
  echo "init=${config.system.build.toplevel}/init ${toString config.boot.kernelParams}" >$out/kernel-params
''
