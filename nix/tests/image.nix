# The packages of the flake, with stand-ins for what nixpkgs builds with: what a test compares with
# the rendered Deployment, and which files of the repository are compiled.
let
  packages = ../packages;
  undercroft = {
    version = "1.2.3";
    outPath = "/nix/store/undercroft";
  };
  fileset = {
    unions = files: map (file: baseNameOf (toString file)) files;
    toSource = source: source.fileset;
  };
in
{
  image = import (packages + "/lending-server-image.nix") {
    dockerTools.streamLayeredImage = arguments: arguments;
    inherit undercroft;
  };
  command = import (packages + "/undercroft.nix") {
    rustPlatform.buildRustPackage = arguments: removeAttrs arguments [ "cargoLock" ];
    lib = {
      inherit fileset;
      importTOML = file: builtins.fromTOML (builtins.readFile file);
      licenses.asl20 = "Apache-2.0";
      platforms.linux = "linux";
    };
  };
}
