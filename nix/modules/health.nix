# Whether the machine is what it should be: one unit that runs every check, and one file that says
# what they found. The boot gate (boot.nix) and the controller read it; other modules add checks.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.undercroft.health;

  check = lib.types.submodule {
    options = {
      description = lib.mkOption {
        type = lib.types.str;
        description = "What holds when the check passes, as a sentence.";
        example = "All cards of the inventory are there.";
      };
      script = lib.mkOption {
        type = lib.types.lines;
        description = ''
          Bash that exits 0 when it holds, and otherwise says on its output what doesn't. It runs as
          root, may be run at any time, and must change nothing. Programs are named by their store
          path, or come from `path`. It exits 75 where it asked another machine and nobody answered:
          that is reported, and no generation is left for it.
        '';
      };
      path = lib.mkOption {
        type = lib.types.listOf lib.types.package;
        default = [ ];
        description = "Packages whose programs the script calls by name, beside coreutils and the like.";
      };
      timeoutSec = lib.mkOption {
        type = lib.types.ints.between 1 300;
        default = 20;
        description = "Seconds after which the check is stopped and has failed.";
      };
      gates = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = ''
          Whether a new generation in which it fails is left for the earlier one. A fault that the
          earlier generation would have too, such as a broken disk of a mirror, is reported without
          gating.
        '';
      };
    };
  };

  programs = [
    pkgs.coreutils
    pkgs.findutils
    pkgs.gawk
    pkgs.gnugrep
    pkgs.gnused
    pkgs.jq
    pkgs.util-linux
    config.systemd.package
  ];

  list = pkgs.writeText "undercroft-health-checks.json" (
    builtins.toJSON {
      checks = lib.mapAttrsToList (name: one: {
        inherit name;
        inherit (one) description gates timeoutSec;
        script = "${pkgs.writeShellScript "undercroft-health-${name}" ''
          export PATH=${lib.makeBinPath (one.path ++ programs)}
          ${one.script}
        ''}";
      }) cfg.checks;
    }
  );

  command = pkgs.writeShellScriptBin "undercroft-health" ''
    export PATH=${lib.makeBinPath programs}
    export UNDERCROFT_HEALTH_CHECKS=''${UNDERCROFT_HEALTH_CHECKS:-${list}}
    export UNDERCROFT_NODE=''${UNDERCROFT_NODE:-${config.networking.hostName}}
    ${builtins.readFile ./scripts/health.sh}
  '';

  # Every file system that the machine can't do without, and those that it starts without but that
  # it is meant to have. What is mounted on demand is left out.
  mounts = lib.filter (
    fileSystem:
    !(lib.elem "noauto" fileSystem.options) && !(lib.elem fileSystem.mountPoint cfg.spareMounts)
  ) (
    lib.filter (fileSystem: fileSystem.fsType != "swap") (lib.attrValues config.fileSystems)
  );
in
{
  options.undercroft.health = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether the machine checks its own health.";
    };
    checks = lib.mkOption {
      type = lib.types.attrsOf check;
      default = { };
      description = "What is checked, by name.";
    };
    space = lib.mkOption {
      type = lib.types.attrsOf (lib.types.ints.between 1 100);
      description = "Percents of a file system at which it counts as full, by a folder on it.";
      example = {
        "/srv" = 90;
      };
    };
    spareMounts = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      internal = true;
      description = ''
        Mount points that the machine can do without, since another is in their place; a check of
        their own looks at them.
      '';
    };
    settleSec = lib.mkOption {
      type = lib.types.ints.between 1 7200;
      default = 600;
      description = ''
        Seconds that the machine has for becoming healthy after it was started, before it is taken
        for unhealthy. Images are pulled and volumes attached in that time.
      '';
    };
    intervalSec = lib.mkOption {
      type = lib.types.ints.between 10 86400;
      default = 60;
      description = "Seconds between the end of one look and the beginning of the next.";
    };
    report = lib.mkOption {
      type = lib.types.str;
      default = "/run/undercroft/health.json";
      readOnly = true;
      description = "Where the result is, as JSON; docs/health.md describes it.";
    };
    list = lib.mkOption {
      type = lib.types.package;
      readOnly = true;
      internal = true;
      description = "The checks as JSON, as the command reads them.";
    };
  };

  config = lib.mkIf cfg.enable {
    undercroft.health.list = list;

    undercroft.health.checks = {
      mounts = {
        description = "Every file system of the configuration is mounted.";
        script = ''
          missing=
          for at in ${lib.escapeShellArgs (map (fileSystem: fileSystem.mountPoint) mounts)}; do
            mountpoint --quiet "$at" || missing="$missing $at"
          done
          [ -z "$missing" ] || { echo "not mounted:$missing"; exit 1; }
        '';
      };
      # A disk without space fails in many ways, each of which looks like something else.
      space = {
        description = "No file system of the system's own is full.";
        gates = false;
        script = ''
          SPACE=${lib.escapeShellArg (toString (lib.mapAttrsToList (at: percent: "${at}=${toString percent}") cfg.space))}
          ${builtins.readFile ./scripts/health-space.sh}
        '';
      };
    };
    undercroft.health.space = lib.genAttrs [ "/" "/nix" "/boot" "/var" ] (_: lib.mkDefault 95);

    environment.systemPackages = [ command ];
    systemd.tmpfiles.rules = [ "d /run/undercroft 0755 root root -" ];

    systemd.services.undercroft-health = {
      description = "Whether this machine is what it should be";
      documentation = [ "man:systemd.special(7)" ];
      # boot-complete.target is systemd's own name for "this boot is good": it is reached only when
      # everything that is required by it succeeded.
      requiredBy = [ "boot-complete.target" ];
      before = [ "boot-complete.target" ];
      # After the boot's own work, without holding it up: an ordering that is written down keeps
      # the target from waiting for this unit (systemd.target(5)).
      after = [
        "multi-user.target"
        "network-online.target"
      ];
      wants = [ "network-online.target" ];
      # A switch that changes a check must not fail for it; the timer runs it soon after.
      restartIfChanged = false;
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${command}/bin/undercroft-health --wait ${toString cfg.settleSec}";
        # Beyond its own limit only for the last round's checks.
        TimeoutStartSec =
          let
            longest = lib.foldl' lib.max 0 (map (one: one.timeoutSec) (lib.attrValues cfg.checks));
          in
          cfg.settleSec + longest + 30;
      };
    };

    systemd.timers.undercroft-health = {
      description = "Look at this machine's health again";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnUnitInactiveSec = cfg.intervalSec;
        # The first look, where nothing else asked for one.
        OnBootSec = 30;
        AccuracySec = "5s";
      };
    };

    # Releases before 25.11 don't ship the target; where it is shipped, this adds to it.
    systemd.targets.boot-complete = {
      description = "Boot Completion Check";
      requires = [ "sysinit.target" ];
      after = [ "sysinit.target" ];
    };
  };
}
