# What tells a machine apart: its name, its address, its role.
#
# mkFleet sets these options from undercroft.toml; a configuration without it sets them by hand.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault mkIf mkOption types;
  cfg = config.undercroft.node;
  fleet = config.undercroft.fleet;

  # One card has the machine's address: the one that is named, or the one with the first MAC.
  # Without either, every wired card would be given it; a machine with several needs one of them.
  match =
    if cfg.interface != null then
      { Name = cfg.interface; }
    else if cfg.macs != [ ] then
      { MACAddress = lib.head cfg.macs; }
    else
      { Name = "en* eth*"; };
in
{
  options.undercroft.fleet = {
    name = mkOption {
      type = types.str;
      description = "Name of the fleet.";
      example = "basement";
    };
    domain = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "DNS domain under which the nodes' names stand.";
      example = "basement.example";
    };
  };

  options.undercroft.node = {
    name = mkOption {
      type = types.str;
      description = "Name of the machine, which becomes its host name and its Kubernetes node's.";
      example = "gpu-01";
    };
    class = mkOption {
      type = types.str;
      default = "";
      description = "Class of the inventory that the machine belongs to.";
      example = "gpu-4090";
    };
    kind = mkOption {
      type = types.enum [
        "control"
        "gpu"
        "phone-host"
        "pi"
        "plain"
      ];
      default = "plain";
      description = "What the class is for.";
    };
    firmware = mkOption {
      type = types.enum [
        "uefi"
        "uefi-http"
        "bios"
        "rpi"
      ];
      default = "uefi";
      description = "How the firmware starts the machine.";
    };
    system = mkOption {
      type = types.str;
      default = "x86_64-linux";
      description = "Processor and operating system in Nix's words.";
    };
    address = mkOption {
      type = types.str;
      description = "IPv4 address of the machine on the nodes' network, its own for good.";
      example = "10.20.1.1";
    };
    prefixLength = mkOption {
      type = types.ints.between 0 32;
      description = "Length of the nodes' network's prefix, in bits.";
      example = 22;
    };
    gateway = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Default gateway. Without it the machine has none.";
      example = "10.20.0.1";
    };
    nameservers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "DNS servers.";
    };
    ntp = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "NTP servers, by name or address. Without any, NixOS' own.";
    };
    macs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = ''
        Ethernet addresses of the machine. The card with the first one gets the machine's address,
        unless `interface` names another.
      '';
    };
    interface = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Name of the network interface that gets the machine's address.";
      example = "bond0";
    };
    hostId = mkOption {
      type = types.strMatching "[0-9a-f]{8}";
      description = ''
        The machine's `networking.hostId`. ZFS writes it into a pool and refuses to import one that
        another host used last, so it must never change by itself.
      '';
      example = "1c9f4e02";
    };
    role = mkOption {
      type = types.enum [
        "server"
        "agent"
        "none"
      ];
      default = "none";
      description = "What the machine is in the Kubernetes cluster.";
    };
    stateVersion = mkOption {
      type = types.str;
      default = "25.11";
      description = "NixOS release that the machine was first installed with.";
    };
    kernelParams = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Further parameters of the kernel.";
    };
  };

  config = {
    networking.hostName = mkDefault cfg.name;
    networking.domain = mkIf (fleet.domain != null) (mkDefault fleet.domain);
    networking.hostId = mkDefault cfg.hostId;
    system.stateVersion = mkDefault cfg.stateVersion;
    boot.kernelParams = cfg.kernelParams;
    # What network and storage cards load at their start; without it some aren't there at all.
    hardware.enableRedistributableFirmware = mkDefault true;

    networking.useDHCP = mkDefault false;
    networking.useNetworkd = mkDefault true;
    networking.nameservers = mkDefault cfg.nameservers;
    systemd.network.networks."10-undercroft" = {
      matchConfig = match;
      address = [ "${cfg.address}/${toString cfg.prefixLength}" ];
      gateway = lib.optional (cfg.gateway != null) cfg.gateway;
      dns = cfg.nameservers;
      # A router's announcements would add addresses and routes that no inventory knows.
      networkConfig.IPv6AcceptRA = mkDefault "no";
      linkConfig.RequiredForOnline = mkDefault "routable";
    };

    services.timesyncd.enable = mkDefault true;
    networking.timeServers = mkIf (cfg.ntp != [ ]) (mkDefault cfg.ntp);

    # Nobody logs in to clear away old generations. One that was the current one 30 days ago stays,
    # and the running one, the booted one and the one that last proved itself (boot.nix) do in any
    # case.
    nix.gc = {
      automatic = mkDefault true;
      dates = mkDefault "weekly";
      options = mkDefault "--delete-older-than 30d";
    }
    // lib.optionalAttrs (options.nix.gc ? randomizedDelaySec) {
      randomizedDelaySec = mkDefault "6h";
    };

    undercroft.health.checks.network = {
      description = "The machine has its address.";
      path = [ pkgs.iproute2 ];
      script = ''
        ${lib.toShellVars {
          ADDRESS = cfg.address;
          INTERFACE = if cfg.interface != null then cfg.interface else "";
          MAC = if cfg.macs != [ ] then lib.toLower (lib.head cfg.macs) else "";
        }}
        ${builtins.readFile ./scripts/health-network.sh}
      '';
    };

    # NixOS has time-sync.target and nothing that waits before it: a unit that comes after it comes
    # at once. This one waits, for what can't do with a wrong clock (certificates of the next year,
    # on a machine without a battery) and asks for it; without an answer that goes on all the same.
    systemd.services.undercroft-clock = {
      description = "The clock is set";
      wants = [ "time-sync.target" ];
      before = [ "time-sync.target" ];
      after = [ "network-online.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "-${pkgs.coreutils}/bin/timeout 60 ${config.systemd.package}/lib/systemd/systemd-time-wait-sync";
        TimeoutStartSec = 90;
      };
    };
  };
}
