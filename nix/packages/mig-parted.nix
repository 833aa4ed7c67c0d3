# NVIDIA's MIG partition editor, for a nixpkgs that doesn't have nvidia-mig-parted yet. The sources
# bring their dependencies along, so that there is one hash. The version is the newest that the
# nixpkgs' Go compiles: 24.11's is older, and its configurations know no card after the B200.
{
  lib,
  buildGoModule,
  fetchFromGitHub,
  go,
}:
buildGoModule rec {
  pname = "mig-parted";
  version = if lib.versionAtLeast go.version "1.24" then "0.13.1" else "0.12.1";

  src = fetchFromGitHub {
    owner = "NVIDIA";
    repo = "mig-parted";
    rev = "v${version}";
    sha256 =
      {
        "0.12.1" = "sha256-mNzwD8DaWJ0L1y2q/3UhKf0zjKRp3+XwhtFF+Stl/A0=";
        "0.13.1" = "sha256-No8NzmjDjri77r7YzuSYsGMvHHMxsvxJaddarKcDMr0=";
      }
      .${version};
  };
  vendorHash = null;

  subPackages = [ "cmd/nvidia-mig-parted" ];

  # NVML is loaded when it is used, and its functions aren't there before: nixpkgs' linker binds all
  # of them at once otherwise, and the program doesn't start ("undefined symbol: nvml…").
  ldflags = [ "-extldflags=-Wl,-z,lazy" ];

  meta = {
    description = "Partition editor for NVIDIA's Multi-Instance GPU";
    homepage = "https://github.com/NVIDIA/mig-parted";
    license = lib.licenses.asl20;
    platforms = lib.platforms.linux;
  };
}
