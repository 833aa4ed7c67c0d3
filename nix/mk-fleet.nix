# mkFleet { src = ./.; } reads undercroft.toml and facts/ beside a flake and gives its outputs: a
# NixOS configuration for each node, one of nix-darwin, NixOS under WSL2 or Home Manager for each
# PC, and one of Home Manager for each person on a PC. Nothing is generated.
#
# The values of the inventory become the options `undercroft.*` with the priority of a default, so
# that a module of one's own overrides any of them by the module system's usual means. Such modules
# are named in the inventory, for a class, a node, a PC or a user, or given here.
{
  nixpkgs,
  disko,
  sops-nix,
  # Only looked at where the inventory has PCs that need them: a fleet without Macs can do without
  # nix-darwin by following an empty flake.
  home-manager,
  nix-darwin,
  nixos-wsl,
}:
{
  # The folder of the inventory. It must be a path, so that all of it is copied to the store once.
  src,
  # More NixOS modules for every node.
  modules ? [ ],
  # More Home Manager modules for every person on every PC.
  homeModules ? [ ],
  # More nix-darwin modules for every Mac.
  darwinModules ? [ ],
  # More NixOS modules for every PC under WSL2.
  wslModules ? [ ],
}:
let
  inherit (nixpkgs) lib;
  undercroft = import ./lib;

  inventoryAndFacts = undercroft.fleet.read src;
  common = undercroft.fleet.shared {
    inherit (inventoryAndFacts) inventory operatorKeys;
  };
  settings = undercroft.fleet.nodes inventoryAndFacts;
  pcs = undercroft.pcs.pcs common;

  fromSrc = map (path: src + "/${path}");

  # Settings as a module. Lists are whole values; in sets each value can be overridden by itself.
  settingsModule = values: {
    _file = "${toString src}/undercroft.toml";
    undercroft = lib.mapAttrsRecursive (_: lib.mkDefault) values;
  };

  # Where the nodes are, and the keys that they must show to somebody who logs in.
  nodesModule = settingsModule {
    nodes = lib.mapAttrs (name: node: {
      inherit (node) address;
      hostKey = inventoryAndFacts.hostKeys.${name};
    }) common.nodes;
  };

  secretsDirectory = src + "/${common.inventory.secrets.path or "secrets"}";
  secretsModule = lib.optionalAttrs (builtins.pathExists secretsDirectory) {
    undercroft.secrets.directory = lib.mkDefault secretsDirectory;
  };

  nodeConfiguration =
    name: values:
    let
      node = common.nodes.${name};
    in
    nixpkgs.lib.nixosSystem {
      inherit (node) system;
      modules = [
        disko.nixosModules.disko
        sops-nix.nixosModules.sops
        ./modules
        secretsModule
        (settingsModule values)
      ]
      ++ modules
      ++ fromSrc node.modules;
    };

  homeModule = home: {
    imports = [
      ./home
      nodesModule
      (settingsModule home.settings)
    ]
    ++ homeModules
    ++ fromSrc home.modules;
  };

  # The people's homes inside of a PC's own configuration.
  homesModule = pc: {
    home-manager.useGlobalPkgs = lib.mkDefault true;
    home-manager.useUserPackages = lib.mkDefault true;
    home-manager.users = lib.mapAttrs (_: homeModule) pc.homes;
  };

  wslConfiguration =
    _: pc:
    nixpkgs.lib.nixosSystem {
      inherit (pc) system;
      modules = [
        nixos-wsl.nixosModules.default
        home-manager.nixosModules.home-manager
        ./wsl
        (settingsModule pc.settings)
        (homesModule pc)
      ]
      ++ wslModules
      ++ fromSrc pc.modules;
    };

  darwinConfiguration =
    _: pc:
    nix-darwin.lib.darwinSystem {
      inherit (pc) system;
      modules = [
        home-manager.darwinModules.home-manager
        ./darwin
        (settingsModule pc.settings)
        (homesModule pc)
      ]
      ++ darwinModules
      ++ fromSrc pc.modules;
    };

  # A Linux PC has no configuration but its people's: the modules that the inventory names for it
  # are Home Manager's.
  homeConfiguration =
    pc: home:
    home-manager.lib.homeManagerConfiguration {
      pkgs = nixpkgs.legacyPackages.${pc.system};
      modules = [ (homeModule home) ] ++ lib.optionals (pc.os == "linux") (fromSrc pc.modules);
    };

  pcsWith = os: lib.filterAttrs (_: pc: pc.os == os) pcs;

  nixosConfigurations =
    lib.mapAttrs nodeConfiguration settings // lib.mapAttrs wslConfiguration (pcsWith "windows-wsl2");

  # Of those, the ones that this nixpkgs has: 26.05 is the last with Macs of Intel's.
  systems = lib.filter (system: nixpkgs.legacyPackages ? ${system}) [
    "x86_64-linux"
    "aarch64-linux"
    "x86_64-darwin"
    "aarch64-darwin"
  ];
in
{
  inherit nixosConfigurations;

  darwinConfigurations = lib.mapAttrs darwinConfiguration (pcsWith "macos");

  # "ada@ada-workstation" and its like, for every PC: on a Mac and under WSL2 a person can bring a
  # home up to date without touching the system.
  homeConfigurations = lib.listToAttrs (
    lib.concatLists (
      lib.mapAttrsToList (
        name: pc:
        lib.mapAttrsToList (user: home: {
          name = "${user}@${name}";
          value = homeConfiguration pc home;
        }) pc.homes
      ) pcs
    )
  );

  packages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
    system:
    let
      pkgs = nixpkgs.legacyPackages.${system};
      undercroft = pkgs.callPackage ./packages/undercroft.nix { };
    in
    {
      inherit undercroft;
      # The server of lending, for the cluster.
      lending-server-image = pkgs.callPackage ./packages/lending-server-image.nix {
        inherit undercroft;
      };
      # The installer that the machines boot over the network.
      undercroft-installer = import ./installer-image.nix { inherit nixpkgs system; };
    }
  );

  devShells = lib.genAttrs systems (system: {
    default = import ./dev-shell.nix { pkgs = nixpkgs.legacyPackages.${system}; };
  });

  # That every machine of a system evaluates, without building any. What is left of each is the
  # name of its derivation.
  checks = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
    system:
    let
      mine = lib.filterAttrs (
        name: _: (common.nodes.${name} or pcs.${name}).system == system
      ) nixosConfigurations;
      line =
        name: configuration:
        "${name} ${builtins.unsafeDiscardStringContext configuration.config.system.build.toplevel.drvPath}";
    in
    {
      configurations = nixpkgs.legacyPackages.${system}.writeText "undercroft-configurations" (
        lib.concatStringsSep "\n" (lib.mapAttrsToList line mine) + "\n"
      );
    }
  );
}
