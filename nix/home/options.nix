# What a PC is, as its inventory entry says: read by the modules for Home Manager, for nix-darwin
# and for NixOS under WSL2 alike.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  text = default: description: mkOption {
    type = types.nullOr types.str;
    inherit default description;
  };
  flag = default: description: mkOption {
    type = types.bool;
    inherit default description;
  };
  number = default: description: mkOption {
    type = types.ints.unsigned;
    inherit default description;
  };
  words = description: mkOption {
    type = types.listOf types.str;
    default = [ ];
    inherit description;
  };
in
{
  options.undercroft = {
    fleet = {
      name = mkOption {
        type = types.str;
        description = "Name of the fleet.";
        example = "basement";
      };
      domain = text null "DNS domain under which the nodes' names stand.";
    };

    pc = {
      name = mkOption {
        type = types.str;
        description = "Name of the PC.";
        example = "ada-laptop";
      };
      os = mkOption {
        type = types.enum [
          "macos"
          "linux"
          "windows-wsl2"
        ];
        description = "Its operating system.";
      };
      system = mkOption {
        type = types.str;
        description = "Processor and operating system in Nix's words.";
        example = "aarch64-darwin";
      };
      owner = text null "The person whose PC it is. Only the owner lends.";
      users = words "People who work on it.";
      user = text null "Whose home this is. Only in Home Manager's configurations.";
      devCluster = flag true "Whether it gets a local cluster (k3d) with the fleet's manifests.";
      overlay = flag true "Whether it joins the overlay network.";
      package = mkOption {
        type = types.nullOr types.package;
        default = null;
        description = ''
          The command `undercroft`. Null while the flake doesn't build it: then it has to be in PATH
          by other means, and everything here that calls it says so.
        '';
      };
      stateVersion = mkOption {
        type = types.str;
        default = "25.11";
        description = "Release whose stateful defaults the PC was first set up with.";
      };
      repository = text null ''
        Path of the person's checkout of the fleet's repository, which `fleet-dev` reads when it isn't
        told another.
      '';
    };

    overlay = {
      enable = flag false "Whether the PC is a client of the overlay.";
      kind = mkOption {
        type = types.enum [
          "none"
          "headscale"
          "tailscale"
        ];
        default = "none";
        description = "Who controls the overlay.";
      };
      serverUrl = text null "URL of the Headscale server.";
      cidr = mkOption {
        type = types.str;
        default = "100.64.0.0/10";
        description = "IPv4 network of the overlay.";
      };
      baseDomain = text null "DNS domain of the overlay's names.";
    };

    nodes = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            address = mkOption {
              type = types.str;
              description = "IPv4 address.";
            };
            hostKey = text null ''
              The machine's SSH host key, as its `.pub` file in the secrets' folder has it. Null while
              it wasn't made yet; then nobody can log in by the configuration that is written here.
            '';
          };
        }
      );
      default = { };
      description = "Machines of the fleet, for SSH.";
    };

    lend = {
      enable = flag false ''
        Whether the owner lends, as the repository says. Nothing is lent before the owner allows it on
        the PC itself too.
      '';
      package = mkOption {
        type = types.nullOr types.package;
        default = null;
        description = ''
          The lending daemon: a package with `bin/undercroft` that knows `undercroft lend run`.
          Null, the default, means that there is no service; what is lent is written to its
          configuration file all the same, for a daemon that is started by other means.
        '';
      };
      slots = number 1 "Jobs at a time.";
      cpuPercent = number 50 "Share of the processors for all jobs together, in percent.";
      memoryMb = number 2048 "Memory for all jobs together, in MiB.";
      diskMb = number 4096 "Disk space for all jobs together, in MiB.";
      gpu = flag false "Whether jobs may use the GPU.";
      network = flag false "Whether jobs may reach the network that they declare.";
      idleAfterS = number 300 "Seconds without the owner's input before jobs start.";
      hours = text null "The part of the day in which jobs may run, such as 22:00-06:30.";
      hasSeat = flag true "Whether anybody ever sits at the PC. One without a seat counts as idle.";
      mainsOnly = flag true "Whether jobs run only on mains.";
      lidClosed = flag false "Whether jobs run with the lid closed.";
      maxTemperatureC = number 85 "The warmest that the PC may be, in degrees Celsius.";
      exclusivePrograms = words "Programs beside which nothing runs.";
      watts = mkOption {
        type = types.nullOr types.ints.unsigned;
        default = null;
        description = "What a lent hour takes, in watts, where nothing measures it.";
      };
      runtimes = words "What jobs may run in.";
      tenants = words "Who may submit jobs.";
      natsUrl = text null "URL of the NATS server.";
      caFile = text null "Path on the PC of whom to believe that the NATS server is who it says.";
      account = mkOption {
        type = types.str;
        default = "LEND";
        description = "NATS account that lent work is confined to.";
      };
      maxSensitivity = mkOption {
        type = types.enum [
          "public"
          "internal"
        ];
        default = "public";
        description = "The most sensitive data that is lent.";
      };
      leaseS = number 60 "Seconds for which a lease holds without renewal.";
      heartbeatS = number 10 "Seconds between two renewals of a lease.";
      attempts = number 5 "Times that a job may be started.";
      jobWallS = number 3600 "The longest that a job may run, in seconds.";
      pauseS = number 600 "The longest that a paused job is kept frozen, in seconds.";
    };
  };
}
