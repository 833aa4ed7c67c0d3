# NVIDIA's MIG partition editor, which nixpkgs doesn't have. The sources bring their dependencies
# along, so that there is one hash. 0.12.1 is the newest that the Go of NixOS 24.11 compiles.
{
  lib,
  buildGoModule,
  fetchFromGitHub,
}:
buildGoModule rec {
  pname = "mig-parted";
  version = "0.12.1";

  src = fetchFromGitHub {
    owner = "NVIDIA";
    repo = "mig-parted";
    rev = "v${version}";
    sha256 = "sha256-mNzwD8DaWJ0L1y2q/3UhKf0zjKRp3+XwhtFF+Stl/A0=";
  };
  vendorHash = null;

  subPackages = [ "cmd/nvidia-mig-parted" ];

  # The named configurations, such as all-1g.10gb, of the same version as the program.
  postInstall = ''
    install -D -m 0644 deployments/systemd/config-default.yaml \
      $out/share/mig-parted/config.yaml
  '';

  meta = {
    description = "Partition editor for NVIDIA's Multi-Instance GPU";
    homepage = "https://github.com/NVIDIA/mig-parted";
    license = lib.licenses.asl20;
    platforms = lib.platforms.linux;
  };
}
