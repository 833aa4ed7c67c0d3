# People's homes, Macs and WSL2, as the basement's inventory has them.
{
  lib,
  inputs,
  harness,
  ...
}:
let
  inherit (harness) fleet;
  stub = inputs.nixpkgs.legacyPackages.x86_64-linux.hello;
  home = name: fleet.homeConfigurations.${name}.config;
  # A home of the example with more on top.
  homeWith =
    system: settings:
    (inputs.home-manager.lib.homeManagerConfiguration {
      pkgs = inputs.nixpkgs.legacyPackages.${system};
      modules = [
        ../../home
        {
          undercroft = lib.recursiveUpdate {
            fleet.name = "cellar";
            pc = {
              name = "ada-pc";
              os = "linux";
              inherit system;
              owner = "ada";
              users = [ "ada" ];
              user = "ada";
            };
            user = {
              name = "ada";
              fullName = "Ada Nkemelu";
              email = "ada@cellar.example";
              role = "admin";
            };
            nodes.box-01 = {
              address = "10.0.0.11";
              hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f box-01\n";
            };
            lend = {
              enable = true;
              runtimes = [ "wasm" ];
              natsUrl = "tls://nats.cellar.example:4222";
            };
          } settings;
        }
      ];
    }).config;
  plain = homeWith "x86_64-linux" { };
  lends = homeWith "x86_64-linux" { lend.package = stub; };
  mac = homeWith "x86_64-darwin" {
    pc.os = "macos";
    lend.package = stub;
  };
  service = lends.systemd.user.services.undercroft-lending;
  wsl = fleet.nixosConfigurations.lin-desktop.config;
  file = config: name: config.xdg.configFile."undercroft/${name}".text;
in
[
  {
    name = "without a daemon there is no service, and the offer is written";
    expected = {
      service = false;
      memory = 2048;
      device = "ada-pc";
    };
    actual = {
      service = plain.systemd.user.services ? undercroft-lending;
      memory = (builtins.fromJSON (file plain "lending.json")).memoryMb;
      inherit (builtins.fromJSON (file plain "lending.json")) device;
    };
  }
  {
    name = "the daemon runs once its owner has enrolled, and in a session that has a seat";
    expected = {
      file = "/home/ada/.local/state/undercroft/lending/device.nk";
      seat = [ "graphical-session.target" ];
      none = [ "default.target" ];
    };
    actual = {
      file = service.Unit.ConditionPathExists;
      seat = service.Install.WantedBy;
      none =
        (homeWith "x86_64-linux" {
          lend.package = stub;
          lend.hasSeat = false;
        }).systemd.user.services.undercroft-lending.Install.WantedBy;
    };
  }
  {
    name = "what an owner narrows of their own PC is in the policy";
    expected = {
      exclusivePrograms = [ "steam" ];
      caFile = "/etc/ssl/cellar.crt";
      mainsOnly = true;
    };
    actual =
      let
        policy = builtins.fromJSON (
          file (homeWith "x86_64-linux" {
            lend.exclusivePrograms = [ "steam" ];
            lend.caFile = "/etc/ssl/cellar.crt";
          }) "lending.json"
        );
      in
      {
        inherit (policy) caFile;
        inherit (policy.when) exclusivePrograms mainsOnly;
      };
  }
  {
    name = "what is lent is bounded by the kernel";
    expected = {
      MemoryMax = "2048M";
      MemorySwapMax = 0;
    };
    actual = {
      inherit (lends.systemd.user.slices.undercroft-lending.Slice) MemoryMax MemorySwapMax;
    };
  }
  {
    name = "launchd looks at the same file";
    expected = {
      "/Users/ada/.local/state/undercroft/lending/device.nk" = true;
    };
    actual = mac.launchd.agents.undercroft-lending.config.KeepAlive.PathState;
  }
  {
    name = "on a Mac nothing but wasm is lent";
    expected = [
      true
      false
    ];
    actual =
      map
        (
          runtimes:
          (builtins.tryEval (homeWith "x86_64-darwin" {
            pc.os = "macos";
            lend = {
              inherit runtimes;
            };
          }).home.username).success
        )
        [
          [ "wasm" ]
          [
            "wasm"
            "oci"
          ]
        ];
  }
  {
    name = "hosts are known by the repository's keys, and by no others";
    expected = {
      known = "box-01,10.0.0.11 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n";
      strict = true;
      alias = true;
    };
    actual = {
      known = file plain "known_hosts";
      strict = lib.hasInfix "StrictHostKeyChecking yes" (file plain "ssh_config");
      alias = lib.hasInfix "HostKeyAlias box-01" (file plain "ssh_config");
    };
  }
  {
    name = "git knows who one is";
    expected = {
      name = "Ada Nkemelu";
      email = "ada@cellar.example";
    };
    actual = { inherit (plain.programs.git.settings.user) name email; };
  }
  {
    name = "lending is the owner's: lin lends her desktop, ada as a guest on it doesn't";
    expected = [
      true
      false
    ];
    actual = map (name: (home name).undercroft.lend.enable) [
      "lin@lin-desktop"
      "ada@lin-desktop"
    ];
  }
  {
    name = "under WSL2 lent work sees nothing of Windows";
    expected = {
      automount = false;
      interop = false;
      user = "lin";
      people = true;
    };
    actual = {
      automount = wsl.wsl.wslConf.automount.enabled;
      interop = wsl.wsl.wslConf.interop.enabled;
      user = wsl.wsl.defaultUser;
      people = wsl.users.users.ada.isNormalUser;
    };
  }
  {
    name = "a Mac has its name, its owner and the overlay's client";
    expected = {
      name = "ada-laptop";
      owner = "ada";
      tailscale = true;
    };
    actual =
      let
        config = fleet.darwinConfigurations.ada-laptop.config;
      in
      {
        name = config.networking.hostName;
        owner = config.system.primaryUser;
        tailscale = config.services.tailscale.enable;
      };
  }
]
