# Hailo's kernel driver for the Hailo-8 and 8L, which nixpkgs doesn't have. Its version has to be
# the firmware's and HailoRT's.
{
  lib,
  stdenv,
  fetchFromGitHub,
  kernel,
  version ? "4.23.0",
}:
let
  hashes = {
    "4.20.0" = "sha256-Chci8FqLbZgY0tsYBGkvJ1Mi+0DOjaHFb+zhKz8mk/E=";
    "4.21.0" = "sha256-cGLzUoF4J761OPL46Oo0ycYu2XLE4mbveUvYJY2xAd0=";
    "4.22.0" = "sha256-YhJBjH1fyXb75asGW0izKI6OjBRoMwvJHfD/5l1KpoM=";
    "4.23.0" = "sha256-HAZBUvOoqDsGe6RAuh34VUdETXOb5wt/fo3ISqF4Kkg=";
  };
in
stdenv.mkDerivation {
  pname = "hailo-pci";
  version = "${version}-${kernel.version}";

  src = fetchFromGitHub {
    owner = "hailo-ai";
    repo = "hailort-drivers";
    rev = "v${version}";
    sha256 =
      hashes.${version}
        or (throw "hailo-pci ${version}: known are ${lib.concatStringsSep ", " (builtins.attrNames hashes)}");
  };

  nativeBuildInputs = kernel.moduleBuildDependencies;
  hardeningDisable = [ "pic" ];

  # The sources' own target looks for the kernel of the machine that builds.
  buildPhase = ''
    runHook preBuild
    make -C ${kernel.dev}/lib/modules/${kernel.modDirVersion}/build M=$PWD/linux/pcie modules
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    install -D -m 0444 linux/pcie/hailo_pci.ko \
      $out/lib/modules/${kernel.modDirVersion}/extra/hailo_pci.ko
    runHook postInstall
  '';

  meta = {
    description = "Kernel driver for Hailo-8 and Hailo-8L";
    homepage = "https://github.com/hailo-ai/hailort-drivers";
    license = lib.licenses.gpl2Only;
    platforms = lib.platforms.linux;
  };
}
