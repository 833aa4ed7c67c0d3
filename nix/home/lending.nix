# Lending: the owner's PC takes work when the repository and the owner both say so.
#
# The daemon is a service of the person, not of the machine: under systemd on Linux and WSL2, under
# launchd on macOS. There is no service without `undercroft.lend.package`.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkIf mkMerge;
  cfg = config.undercroft.lend;
  inherit (config.undercroft) pc;
  darwin = pkgs.stdenv.hostPlatform.isDarwin;
  installed = cfg.package != null;

  state = "${config.xdg.stateHome}/undercroft/lending";
  configFile = "${config.xdg.configHome}/undercroft/lending.json";
  label = "org.nix-community.home.undercroft-lending";
  program = [
    "${cfg.package}/bin/undercroft"
    "lend"
    "run"
    "--config"
    configFile
  ];
  # `undercroft lend enrol` makes it. The owner's word is in the ledger, which the daemon reads.
  enrolled = "${state}/device.nk";
in
{
  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = cfg.natsUrl != null;
          message = "Lending needs lending.nats_url in the inventory: the daemon would have nobody to ask for work.";
        }
        {
          assertion = pc.os == "macos" -> lib.all (runtime: runtime == "wasm") cfg.runtimes;
          message = "${pc.name}: on macOS only wasm can be lent, as nothing else can be confined there.";
        }
      ];

      home.packages = lib.optional installed cfg.package;
      # What is offered. No secret is among it: the key that proves the PC is a file of its own.
      # `undercroft lend run` reads it: crates/lending, policy.rs, has the same names.
      xdg.configFile."undercroft/lending.json".text = builtins.toJSON {
        version = 1;
        fleet = config.undercroft.fleet.name;
        device = pc.name;
        class = "pc";
        stateDirectory = state;
        features = lib.optional cfg.gpu "gpu";
        when = {
          inherit (cfg)
            idleAfterS
            hours
            hasSeat
            mainsOnly
            lidClosed
            maxTemperatureC
            exclusivePrograms
            watts
            ;
        };
        inherit (pc) owner;
        inherit (cfg)
          natsUrl
          caFile
          runtimes
          tenants
          maxSensitivity
          slots
          cpuPercent
          memoryMb
          diskMb
          jobWallS
          heartbeatS
          pauseS
          ;
      };
      xdg.enable = lib.mkDefault true;
    }

    (mkIf (installed && !darwin) {
      # Jobs are below the daemon's own group, whose bounds hold whatever the daemon does. They come
      # last in groups that it raises as it ends them, which a slice that came last would hold back.
      systemd.user.slices.undercroft-lending = {
        Unit.Description = "Lent work";
        Slice = {
          MemoryMax = "${toString cfg.memoryMb}M";
          MemorySwapMax = 0;
          TasksMax = 4096;
          IOWeight = 1;
        };
      };
      systemd.user.services.undercroft-lending = {
        Unit = {
          Description = "Lend this PC to ${config.undercroft.fleet.name}";
          ConditionPathExists = enrolled;
          # The session says where its compositor is only when it is there.
          After = [ "network.target" ] ++ lib.optional cfg.hasSeat "graphical-session.target";
        };
        Service = {
          Type = "exec";
          ExecStart = lib.escapeShellArgs program;
          Slice = "undercroft-lending.slice";
          Delegate = true;
          Restart = "on-failure";
          RestartSec = 10;
          Nice = 19;
          IOSchedulingClass = "idle";
          OOMScoreAdjust = 1000;
          # The owner's stop is a stop: what doesn't end is ended. The daemon alone is told, and
          # ends its jobs: one that got that signal would be taken for one that has come to its end.
          KillMode = "mixed";
          TimeoutStopSec = 15;
          NoNewPrivileges = true;
          UMask = "0077";
        };
        Install.WantedBy = [
          (if cfg.hasSeat then "graphical-session.target" else "default.target")
        ];
      };
    })

    (mkIf (installed && darwin) {
      launchd.agents.undercroft-lending = {
        enable = true;
        config = {
          Label = label;
          ProgramArguments = program;
          # launchd runs the agent while the file is there.
          KeepAlive.PathState.${enrolled} = true;
          ProcessType = "Background";
          LowPriorityIO = true;
          Nice = 19;
          Umask = 63;
          ThrottleInterval = 10;
          StandardErrorPath = "${state}/daemon.log";
        };
      };
    })
  ]);
}
