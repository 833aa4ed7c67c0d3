# Evaluates the configurations of one inventory with real trees: NixOS' own modules, Home
# Manager's, nix-darwin's, NixOS-WSL's, disko's and sops-nix'. `cargo xtask nix-eval` calls it.
#
# The trees need not be of the same age. Where nixpkgs is older than the modules ask for, a newer
# lib takes its lib's place, options that it lacks are declared by ./stubs, and packages that it
# lacks are empty derivations. What was put in place of something real is listed in the result.
{
  # The folder of the inventory.
  src,
  nixpkgs,
  # nixpkgs' lib of another version.
  nixpkgsLib ? nixpkgs + "/lib",
  disko,
  sopsNix,
  homeManager ? null,
  nixDarwin ? null,
  nixosWsl ? null,
  # The release of NixOS that modules are told they are evaluated by.
  release ? "25.11",
}:
let
  oldLib = import (nixpkgs + "/lib");
  # Older NixOS modules use functions that lib has lost since.
  lib = (import nixpkgsLib).extend (
    _: new:
    removeAttrs oldLib (builtins.attrNames new)
    // {
      types = oldLib.types // new.types;
      trivial = new.trivial // {
        inherit release;
      };
    }
  );

  stubs = import ./stubs { inherit lib release; };

  pkgsFor =
    system:
    let
      # The tree at hand may be older than Macs with Apple's processors.
      known =
        if lib.versionOlder (lib.fileContents (nixpkgs + "/.version")) "21.05" && system == "aarch64-darwin" then
          "x86_64-darwin"
        else
          system;
    in
    import nixpkgs {
      system = known;
      config.allowUnfree = true;
      # What an old tree knows for Linux alone may be there for Macs since.
      config.allowUnsupportedSystem = true;
      overlays = [ stubs.overlay ];
    };
  systems = lib.genAttrs [
    "x86_64-linux"
    "aarch64-linux"
    "x86_64-darwin"
    "aarch64-darwin"
  ] pkgsFor;

  evalNixos =
    pkgs: modules:
    lib.evalModules {
      class = "nixos";
      specialArgs.modulesPath = toString (nixpkgs + "/nixos/modules");
      modules =
        import (nixpkgs + "/nixos/modules/module-list.nix")
        ++ [
          {
            _module.args = {
              pkgs = lib.mkForce pkgs;
              baseModules = [ ];
              extraModules = [ ];
              modules = [ ];
            };
            nixpkgs.system = pkgs.system;
            # The manual evaluates all modules once more; the installer's profile insists on it.
            documentation.enable = lib.mkOverride 40 false;
            documentation.nixos.enable = lib.mkOverride 40 false;
          }
        ]
        ++ modules;
    };
  nixosStubs = stubs.missing (evalNixos systems.x86_64-linux [ ]).options stubs.nixos;

  # Home Manager makes its own packages of nixpkgs. Its services in parts take a file of nixpkgs'
  # that is newer than the oldest tree; they are left out.
  homeModule = {
    disabledModules = [ (homeManager + "/modules/services-modular") ];
    home.enableNixpkgsReleaseCheck = false;
    manual.manpages.enable = false;
    nixpkgs.overlays = [ stubs.overlay ];
    nixpkgs.config.allowUnfree = true;
    nixpkgs.config.allowUnsupportedSystem = true;
  };
  sharedHomeModule = {
    home-manager.sharedModules = [ (removeAttrs homeModule [ "nixpkgs" ]) ];
  };

  inputs = {
    nixpkgs = {
      lib = lib // {
        nixosSystem =
          { system, modules }:
          evalNixos systems.${system} ([ (stubs.module nixosStubs) ] ++ modules)
          // {
            pkgs = systems.${system};
          };
      };
      legacyPackages = systems;
    };
    disko.nixosModules.disko = disko + "/module.nix";
    sops-nix.nixosModules.sops = sopsNix + "/modules/sops";
    nixos-wsl.nixosModules.default.imports = [
      (nixosWsl + "/modules")
      # Before systems without a kernel of their own were thought of, containers were the only ones.
      { boot.isContainer = lib.mkIf (nixosStubs ? "boot.kernel.enable") true; }
    ];
    home-manager = {
      nixosModules.home-manager.imports = [
        (homeManager + "/nixos")
        sharedHomeModule
      ];
      darwinModules.home-manager.imports = [
        (homeManager + "/nix-darwin")
        sharedHomeModule
      ];
      lib.homeManagerConfiguration =
        { pkgs, modules }:
        import (homeManager + "/modules") {
          inherit pkgs lib;
          configuration.imports = [ homeModule ] ++ modules;
        };
    };
    nix-darwin.lib.darwinSystem =
      { system, modules }:
      import (nixDarwin + "/eval-config.nix") {
        inherit lib;
        enableNixpkgsReleaseCheck = false;
        modules = [
          {
            _module.args.pkgs = lib.mkForce systems.${system};
            nixpkgs.hostPlatform = system;
            nixpkgs.source = nixpkgs;
            documentation.enable = false;
            # It is a configuration of its own, which wants a nixpkgs of nix-darwin's age.
            system.tools.darwin-uninstaller.enable = false;
          }
        ]
        ++ modules;
      };
  };

  read = (import ../lib).fleet.read src;
  inherit (read) inventory;
  # A key as the first `undercroft plan` writes it to facts/operators.pub, for an inventory that
  # names none: nobody could log in otherwise, which the modules refuse.
  operator = {
    undercroft.ssh.rootKeys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMade0Up0For0Evaluation0And0Nothing0Else0xx operator" ];
  };
  keyless =
    (inventory.fleet.admin_keys or [ ]) == [ ] && !(inventory ? users) && read.operatorKeys == [ ];
  # The flake itself, and the example's own.
  undercroft = (import ../../flake.nix).outputs (inputs // { self = undercroft; });
  fleet =
    if keyless || !(builtins.pathExists (src + "/flake.nix")) then
      undercroft.lib.mkFleet {
        inherit src;
        modules = lib.optional keyless operator;
      }
    else
      (import (src + "/flake.nix")).outputs { inherit undercroft; };
  needs = trees: lib.mapAttrs (_: _: trees);
in
{
  # By name of the flake's output, the trees that evaluating it takes.
  names =
    let
      named = prefix: lib.mapAttrs' (name: lib.nameValuePair "${prefix}.${name}");
      wslNames = lib.attrNames (lib.filterAttrs (_: pc: pc.os == "windows-wsl2") (inventory.pcs or { }));
      nodes = removeAttrs fleet.nixosConfigurations wslNames;
    in
    named "nixosConfigurations" (needs [ ] nodes)
    // named "nixosConfigurations" (
      needs [ "nixosWsl" "homeManager" ] (lib.getAttrs wslNames fleet.nixosConfigurations)
    )
    // named "homeConfigurations" (needs [ "homeManager" ] fleet.homeConfigurations)
    // named "darwinConfigurations" (needs [ "nixDarwin" "homeManager" ] fleet.darwinConfigurations)
    // named "packages.x86_64-linux" (needs [ ] fleet.packages.x86_64-linux)
    // named "devShells.x86_64-linux" (needs [ ] fleet.devShells.x86_64-linux);

  # By name of the flake's output, the derivation of each.
  targets =
    lib.mapAttrs' (
      name: nixos:
      let
        inherit (nixos.config.system) build;
        # The script that lays the disks out is built beside the system.
        disks = lib.optionalString (build ? diskoScript) build.diskoScript.drvPath;
      in
      lib.nameValuePair "nixosConfigurations.${name}" (
        builtins.seq disks build.toplevel.drvPath
      )
    ) fleet.nixosConfigurations
    // lib.mapAttrs' (
      name: home: lib.nameValuePair "homeConfigurations.${name}" home.activationPackage.drvPath
    ) fleet.homeConfigurations
    // lib.mapAttrs' (
      name: darwin: lib.nameValuePair "darwinConfigurations.${name}" darwin.system.drvPath
    ) fleet.darwinConfigurations
    // lib.mapAttrs' (
      name: package: lib.nameValuePair "packages.x86_64-linux.${name}" package.drvPath
    ) fleet.packages.x86_64-linux
    // lib.mapAttrs' (
      name: shell: lib.nameValuePair "devShells.x86_64-linux.${name}" shell.drvPath
    ) fleet.devShells.x86_64-linux;

  # By machine, its units as systemd reads them.
  units = lib.mapAttrs (
    _: nixos:
    lib.mapAttrs
      (_: unit: {
        text = builtins.unsafeDiscardStringContext unit.text;
        inherit (unit) wantedBy requiredBy;
      })
      (
        lib.filterAttrs (
          _: unit: unit.enable && (unit.text or null) != null
        ) nixos.config.systemd.units
      )
  ) fleet.nixosConfigurations;

  stubs = {
    options = lib.attrNames nixosStubs;
    packages = stubs.missingPackages (import nixpkgs {
      system = "x86_64-linux";
      overlays = [ ];
    });
  };

  inherit fleet;

  # What ./modules evaluates single modules with.
  inherit inputs lib;
}
