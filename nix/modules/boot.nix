# The boot loader, and a way back that needs no hand.
#
# A new generation is booted once. The one that last proved itself stays the default until the new
# one has come up healthy, so that a kernel that panics, a hang that the watchdog ends, a failed
# health check and a pulled plug all lead back to it.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  undercroftLib = import ../lib;
  cfg = config.undercroft.boot;
  gate = cfg.healthGate;
  health = config.undercroft.health;
  loader = config.boot.loader;

  esps = undercroftLib.disks.espMounts config.undercroft.disks;
  mirrors = lib.filter (at: at != loader.efi.efiSysMountPoint) esps;

  hasCounting = options.boot.loader.systemd-boot ? bootCounting;
  byOneshot = cfg.enable && gate.enable && gate.method == "oneshot" && loader.systemd-boot.enable;

  script =
    name:
    pkgs.writeShellScript "undercroft-${name}" ''
      export PATH=${
        lib.makeBinPath [
          pkgs.coreutils
          pkgs.gnused
          pkgs.jq
          config.systemd.package
        ]
      }
      export UNDERCROFT_ESP=''${UNDERCROFT_ESP:-${loader.efi.efiSysMountPoint}}
      ${builtins.readFile ./scripts/boot-lib.sh}
      ${builtins.readFile (./scripts + "/${name}.sh")}
    '';
in
{
  options.undercroft.boot = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = config.undercroft.node.firmware != "rpi";
      defaultText = lib.literalExpression ''config.undercroft.node.firmware != "rpi"'';
      description = ''
        Whether the machine starts by systemd-boot. A Raspberry Pi's firmware starts it otherwise.
      '';
    };
    generations = lib.mkOption {
      type = lib.types.ints.between 2 50;
      default = 8;
      description = ''
        Generations in the boot menu. Each kernel and initrd lies on the EFI system partition once;
        with a GPU's drivers the initrd is large.
      '';
    };
    panicSec = lib.mkOption {
      type = lib.types.ints.between 1 600;
      default = 10;
      description = "Seconds between a panic of the kernel and the reset.";
    };
    watchdogSec = lib.mkOption {
      type = lib.types.nullOr (lib.types.ints.between 5 600);
      default = 30;
      description = ''
        Seconds without a sign of life from systemd after which the hardware watchdog resets the
        machine. Null leaves the watchdog alone. Without such hardware it has no effect.
      '';
    };
    rebootWatchdogSec = lib.mkOption {
      type = lib.types.ints.between 60 3600;
      default = 600;
      description = "Seconds that a shutdown may take before the hardware watchdog ends it.";
    };
    healthGate = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether a generation becomes the default only after it came up healthy.";
      };
      method = lib.mkOption {
        type = lib.types.enum [
          "oneshot"
          "counting"
        ];
        default = "oneshot";
        description = ''
          How. "oneshot" tells systemd-boot to boot the new entry once and keeps the old one as the
          default, on every release. "counting" is systemd's own counting of attempts
          (`boot.loader.systemd-boot.bootCounting`), which nixpkgs has from 26.11 on and which
          systemd 258.3 broke on NixOS (systemd#40192).
        '';
      };
      graceSec = lib.mkOption {
        type = lib.types.ints.between 30 7200;
        default = 300;
        description = ''
          Seconds after `undercroft.health.settleSec` at which a generation on trial is left even if
          nothing ever said whether the machine is healthy.
        '';
      };
    };
  };

  config = lib.mkMerge [
    {
      # A machine without a hand near it starts again rather than waiting in a shell: the first is
      # for the kernel, the second for NixOS' first stage. Without emergency mode a file system that
      # doesn't mount leaves SSH up; what needs it requires it, and the health check reports it.
      boot.kernelParams = [
        "panic=${toString cfg.panicSec}"
        "boot.panic_on_fail"
      ];
      systemd.enableEmergencyMode = lib.mkDefault false;
      boot.kernel.sysctl."kernel.panic_on_oops" = lib.mkDefault 1;

      undercroft.compat.manager = lib.mkIf (cfg.watchdogSec != null) {
        RuntimeWatchdogSec = "${toString cfg.watchdogSec}s";
        RebootWatchdogSec = "${toString cfg.rebootWatchdogSec}s";
      };
    }

    (lib.mkIf cfg.enable {
      boot.loader.systemd-boot.enable = lib.mkDefault true;
      boot.loader.grub.enable = lib.mkDefault false;
      boot.loader.efi.canTouchEfiVariables = lib.mkDefault true;
      boot.loader.systemd-boot.configurationLimit = lib.mkDefault cfg.generations;
      # The editor lets whoever sits at the console start a shell as root.
      boot.loader.systemd-boot.editor = lib.mkDefault false;
      boot.loader.timeout = lib.mkDefault 3;
    })

    (lib.mkIf (cfg.enable && gate.enable) {
      assertions = [
        {
          assertion = health.enable;
          message = ''
            undercroft.boot.healthGate needs undercroft.health: without checks nothing could prove a
            generation.
          '';
        }
        {
          assertion = gate.method != "counting" || hasCounting;
          message = ''
            undercroft.boot.healthGate.method is "counting", but this nixpkgs has no
            boot.loader.systemd-boot.bootCounting (it came with 26.11). Use "oneshot".
          '';
        }
      ];
    })

    (lib.mkIf (cfg.enable && gate.enable && gate.method == "counting") (
      lib.optionalAttrs hasCounting { boot.loader.systemd-boot.bootCounting.enable = true; }
    ))

    # A mirror's further disks start the machine too: firmware that finds nothing on the first disk
    # takes the fallback loader of the next.
    (lib.mkIf (cfg.enable && mirrors != [ ]) {
      boot.loader.systemd-boot.extraInstallCommands = lib.mkAfter ''
        for mirror in ${lib.escapeShellArgs mirrors}; do
          if [ "$(${pkgs.util-linux}/bin/findmnt --noheadings --output MAJ:MIN --mountpoint "$mirror")" = \
            "$(${pkgs.util-linux}/bin/findmnt --noheadings --output MAJ:MIN --mountpoint ${lib.escapeShellArg loader.efi.efiSysMountPoint})" ]; then
            echo "undercroft: $mirror stands in for the first disk's boot partition" >&2
          elif ${pkgs.util-linux}/bin/mountpoint --quiet "$mirror"; then
            # FAT keeps times to two seconds; the random seed is each partition's own.
            ${pkgs.rsync}/bin/rsync --recursive --times --modify-window=2 --delete --exclude=/loader/random-seed \
              ${lib.escapeShellArg "${loader.efi.efiSysMountPoint}/"} "$mirror/"
          else
            echo "undercroft: $mirror isn't mounted and keeps what it had" >&2
          fi
        done
      '';

      # With the first disk the boot loader's own place goes, and every later rebuild would stop at
      # it.
      systemd.services.undercroft-boot-mirror = {
        description = "Put another disk's boot partition in the place of a lost one";
        wantedBy = [ "multi-user.target" ];
        after = [ "local-fs.target" ];
        path = [
          pkgs.coreutils
          pkgs.util-linux
        ];
        environment = {
          ESP = loader.efi.efiSysMountPoint;
          MIRRORS = lib.concatStringsSep " " mirrors;
        };
        serviceConfig = {
          Type = "oneshot";
          ExecStart = "${pkgs.runtimeShell} ${./scripts/boot-mirror.sh}";
          TimeoutStartSec = 60;
        };
      };
      # A disk may die at any time: systemd takes its mount away then.
      systemd.timers.undercroft-boot-mirror = {
        description = "Look whether the boot partition is there";
        wantedBy = [ "timers.target" ];
        timerConfig = {
          OnBootSec = 60;
          OnUnitInactiveSec = 60;
          AccuracySec = "10s";
        };
      };

      # The earlier generation would have the same disks, so that nothing is gained by going back.
      undercroft.health.spareMounts = esps;
      undercroft.health.checks.mirror = {
        description = "Every disk of the mirror has its boot partition.";
        gates = false;
        script = ''
          missing=
          seen=
          for at in ${lib.escapeShellArgs esps}; do
            device=$(findmnt --noheadings --output MAJ:MIN --mountpoint "$at" || :)
            case " $seen " in
            *" ''${device:-none} "*) missing="$missing $at" ;;
            *) [ -n "$device" ] || missing="$missing $at" ;;
            esac
            seen="$seen $device"
          done
          [ -z "$missing" ] || { echo "a disk's boot partition isn't there:$missing (docs/mirror.md)"; exit 1; }
        '';
      };
    })

    (lib.mkIf byOneshot {
      boot.loader.systemd-boot.extraInstallCommands = "${script "boot-trial"}";

      systemd.services.undercroft-boot-commit = {
        description = "Make the generation that came up healthy the default";
        wantedBy = [ "multi-user.target" ];
        requires = [ "boot-complete.target" ];
        # After multi-user.target so that it doesn't hold the boot up.
        after = [
          "boot-complete.target"
          "multi-user.target"
        ];
        # What proved itself is what was booted, not what a live switch has made of it since.
        restartIfChanged = false;
        unitConfig.RequiresMountsFor = loader.efi.efiSysMountPoint;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = script "boot-commit";
          TimeoutStartSec = 60;
        };
      };

      # The script goes back only from a generation on trial: a machine that runs its default stays
      # up however unhealthy it is, and two bad generations never take turns.
      systemd.services.undercroft-boot-fallback = {
        description = "Go back to the generation that proved itself";
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          ExecStart = script "boot-fallback";
          TimeoutStartSec = 60;
        };
      };
      systemd.services.undercroft-health.unitConfig.OnFailure = "undercroft-boot-fallback.service";
      # For a boot that got stuck before anything was checked.
      systemd.timers.undercroft-boot-deadline = {
        description = "Time limit of a generation on trial";
        wantedBy = [ "timers.target" ];
        timerConfig = {
          OnBootSec = health.settleSec + gate.graceSec;
          Unit = "undercroft-boot-fallback.service";
          AccuracySec = "10s";
        };
      };
      systemd.tmpfiles.rules = [ "d /var/lib/undercroft/boot 0755 root root -" ];
    })
  ];
}
