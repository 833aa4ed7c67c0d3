# A small system in the shape of NixOS, whose content comes from Debian's packages.
#
# It isn't NixOS, and its name says so. It has the same files in the same places as a NixOS
# toplevel, so that everything which installs, boots, updates and checks a NixOS system can be
# tried where nixpkgs isn't to be had. It uses nothing but Nix itself: no fetcher, no nixpkgs, no
# program of the machine that builds it.
{
  # A folder with what undercroft took from the packages: see crates/build/src/system/rack.rs.
  parts,
  # The machine's host name.
  name,
  # The architecture that the system is for, such as x86_64-linux.
  system,
  # The public keys that may log in as root, one a line.
  authorizedKeys ? "",
  # Makes another closure of the same machine, for trying updates.
  generation ? "1",
  # "true" makes a system whose init ends at once, for trying what happens then.
  broken ? "false",
  # A folder with encrypted files of secrets and the programs that open them, or "" for none.
  secrets ? "",
}:
let
  version = "0.1.0.debian-rack";

  # Content of the packages, named by its hash, as it is.
  source =
    folder: storeName:
    builtins.path {
      name = storeName;
      path = parts + "/${folder}";
    };
  facts = builtins.fromJSON (builtins.readFile (parts + "/parts.json"));

  busybox = source "busybox" "busybox-${facts.versions.busybox}";
  buildTools = source "build-tools" "build-tools";
  kernel = source "kernel" "linux-${facts.versions.kernel}";
  initrd = source "initrd" "initrd-linux-${facts.versions.kernel}";
  modules = source "modules" "linux-modules-${facts.versions.kernel}";
  loader = source "loader" "systemd-boot-${facts.versions.loader}";

  build =
    storeName: script: values:
    derivation (
      {
        name = storeName;
        # Where it is built; what is in it may be for another machine.
        system = builtins.currentSystem;
        builder = "${buildTools}/bin/busybox";
        args = [
          "sh"
          "-eu"
          script
        ];
        PATH = "${buildTools}/bin";
        tools = buildTools;
      }
      // values
    );

  libraries = build "debian-libraries" ./build-libraries.sh {
    content = source "libraries" "debian-libraries-content";
  };
  programs =
    folder:
    build "${folder}-${facts.versions.${folder}}" ./build-programs.sh {
      inherit libraries;
      content = source "programs/${folder}" "${folder}-content";
      loader = facts.loader;
    };
  dropbear = programs "dropbear";
  nix = programs "nix";

  secretPart =
    folder: storeName:
    if secrets == "" then
      ""
    else
      builtins.path {
        name = storeName;
        path = secrets + "/${folder}";
      };

  etc = build "etc" ./build-etc.sh {
    inherit version authorizedKeys generation;
    hostName = name;
    inittab = ./inittab;
  };
in
build "nixos-system-${name}-${version}" ./build-system.sh {
  inherit
    version
    broken
    busybox
    kernel
    initrd
    modules
    loader
    dropbear
    nix
    etc
    ;
  efi = facts.efi;
  console = facts.console;
  hostName = name;
  forSystem = system;
  release = facts.versions.kernel;
  init = ./init.sh;
  start = ./start.sh;
  sshd = ./sshd.sh;
  secretsPrograms = secretPart "programs" "secrets-programs";
  secretsFiles = secretPart "files" "secrets-files";
  openSecrets = ./secrets.sh;
  activate = ./activate.sh;
  switch = ./switch-to-configuration.sh;
  installBoot = ./install-boot.sh;
  dhcpEvent = ./dhcp-event.sh;
}
