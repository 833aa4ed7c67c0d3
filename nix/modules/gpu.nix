# NVIDIA's cards: the driver by the cards' generation, what containers need of the host, and the
# division of cards by MIG. What pods get of a card is the device plugin's, in the GitOps tree; here
# is what must be so before Kubernetes looks.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib)
    mkDefault
    mkIf
    mkMerge
    mkOption
    types
    ;
  cfg = config.undercroft.gpu;
  facts = (import ../lib).gpu.facts (if cfg.model == null then "" else cfg.model);
  toolkit = config.hardware.nvidia-container-toolkit;
  # NVIDIA's runtimes are in an output of their own since May 2025; before, k3s can't find them.
  toolkitTools = lib.getOutput "tools" (toolkit.package or pkgs.nvidia-container-toolkit);
  kubernetes = config.undercroft.kubernetes;
  datacenter = cfg.driver == "datacenter";
  mig = cfg.sharing == "mig";

  # nixpkgs' plain driver is the newest, which has left some cards behind: 26.05 has 595. An older
  # branch is taken for those as soon as it has to be. The tree may have none at all (old, or a
  # kernel of one's own).
  drivers = config.boot.kernelPackages.nvidiaPackages or { };
  plainDriver = if datacenter then drivers.dc or null else drivers.stable or null;
  olderBranch =
    let
      branch = if datacenter then "dc_580" else facts.lastBranch;
      last = lib.removePrefix "legacy_" facts.lastBranch;
    in
    if
      facts.lastBranch == null
      || plainDriver == null
      || lib.versionAtLeast last (lib.versions.major plainDriver.version)
    then
      null
    else
      branch;
  driver = config.hardware.nvidia.package;

  # The driver's programs, wherever the driver comes from.
  driverPath = [ "/run/current-system/sw" ];
  cdiGenerator = "nvidia-container-toolkit-cdi-generator.service";
in
{
  options.undercroft.gpu = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the machine has NVIDIA cards.";
    };
    model = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Model of the cards.";
      example = "a100-80gb";
    };
    count = mkOption {
      type = types.ints.positive;
      default = 1;
      description = "Cards in the machine. The machine isn't healthy with fewer or more.";
    };
    driver = mkOption {
      type = types.enum [
        "open"
        "proprietary"
        "datacenter"
      ];
      default = "open";
      description = ''
        Which kernel modules drive the cards: NVIDIA's open ones (Turing and later, the only ones
        for Blackwell), the proprietary ones (before Turing), or the data centre driver with the
        fabric manager, for machines with NVSwitch.
      '';
    };
    open = mkOption {
      type = types.bool;
      default = if datacenter then facts.openRequired else cfg.driver == "open";
      defaultText = lib.literalExpression "whether the driver is open, or nothing else drives the card";
      description = ''
        Value of `hardware.nvidia.open`. It follows from `driver`; with the data centre driver it is
        true only where nothing else drives the card.
      '';
    };
    sharing = mkOption {
      type = types.enum [
        "none"
        "time-slicing"
        "mps"
        "mig"
      ];
      default = "none";
      description = "How pods share a card.";
    };
    replicas = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      description = "Pods that share a card, where `sharing` is time-slicing or mps.";
    };
    migConfig = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Name of the MIG configuration, where `sharing` is mig.";
      example = "all-1g.10gb";
    };
    mig.package = mkOption {
      type = types.package;
      default = pkgs.nvidia-mig-parted or (pkgs.callPackage ../packages/mig-parted.nix { });
      defaultText = lib.literalExpression "pkgs.nvidia-mig-parted, where nixpkgs has it";
      description = ''
        nvidia-mig-parted. A nixpkgs before it had one gets it built from NVIDIA's sources.
      '';
    };
    mig.configFile = mkOption {
      type = types.either types.path types.str;
      # The program's own sources have the file, and its package doesn't.
      default =
        if cfg.mig.package ? src then
          "${pkgs.runCommand "mig-parted-config.yaml" { } ''
            cp ${cfg.mig.package.src}/deployments/systemd/config-default.yaml $out
          ''}"
        else
          "${cfg.mig.package}/share/mig-parted/config.yaml";
      defaultText = lib.literalExpression "the named configurations of the program's sources";
      description = ''
        File with named MIG configurations, in the format of nvidia-mig-parted. The default has
        those that come with the program; a file of one's own may have any.
      '';
    };
    mig.driverWaitSec = mkOption {
      type = types.ints.positive;
      default = 120;
      description = "Seconds that the division of the cards waits for the driver.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions =
        let
          name = if cfg.model == null then "of an unknown model" else cfg.model;
        in
        [
          {
            assertion =
              !(config.hardware.nvidia.datacenter.enable && lib.elem "nvidia" config.services.xserver.videoDrivers);
            message = ''
              The data centre driver and services.xserver.videoDrivers = [ "nvidia" ] exclude each
              other. undercroft.gpu.driver sets the right one; take the other out.
            '';
          }
          {
            assertion = !(mig && !facts.migCapable);
            message = "undercroft.gpu.sharing: a ${name} can't be divided by MIG.";
          }
          {
            assertion = mig -> cfg.migConfig != null;
            message = "undercroft.gpu.sharing is mig, but undercroft.gpu.migConfig names no configuration.";
          }
          {
            assertion = !mig -> cfg.migConfig == null;
            message = "undercroft.gpu.migConfig is set, but undercroft.gpu.sharing is ${cfg.sharing}: MIG excludes every other sharing.";
          }
          {
            assertion = lib.elem cfg.sharing [ "time-slicing" "mps" ] == (cfg.replicas != null);
            message = "undercroft.gpu.replicas is for time-slicing and mps, and these need it; undercroft.gpu.sharing is ${cfg.sharing}.";
          }
          {
            assertion = !(cfg.open && !facts.openPossible);
            message = "undercroft.gpu.driver: the open kernel modules don't drive a ${name}, which is older than Turing; set it to proprietary.";
          }
          {
            assertion = !(!cfg.open && facts.openRequired);
            message = "undercroft.gpu.driver: only the open kernel modules drive a ${name}; set it to open.";
          }
          {
            assertion =
              olderBranch == null
              || drivers ? ${olderBranch}
              || driver.version != plainDriver.version;
            message = ''
              NVIDIA's driver ${plainDriver.version} doesn't drive a ${name} any more, and this nixpkgs has
              no nvidiaPackages.${olderBranch}. Take another nixpkgs, or set hardware.nvidia.package.
            '';
          }
          {
            # Before 25.11, nixpkgs' data centre driver was 565, which is older than Blackwell.
            assertion =
              !(datacenter && cfg.open && plainDriver != null && (driver.open or null) == null);
            message = ''
              undercroft.gpu: a ${name} takes the open kernel modules, and nixpkgs' data centre driver
              ${driver.version} comes without. Set hardware.nvidia.package to a newer one.
            '';
          }
        ];

      undercroft.unfree.packages = [ "nvidia" ] ++ lib.optional datacenter "fabricmanager";

      # The one switch for drivers without a desktop too; no X server comes with it.
      services.xserver.videoDrivers = mkIf (!datacenter) [ "nvidia" ];
      hardware.nvidia = {
        datacenter.enable = mkIf datacenter true;
        open = cfg.open;
        nvidiaPersistenced = mkDefault true;
        nvidiaSettings = mkDefault false;
        modesetting.enable = mkDefault false;
      };
      # It makes /run/opengl-driver, where NVML is. nixpkgs' own module leaves it out with the data
      # centre driver.
      hardware.graphics.enable = mkDefault true;

      # A MIG instance has no index that holds over a reboot, and the device plugin's chart asks by
      # UUID too; NixOS' own default is the index.
      hardware.nvidia-container-toolkit = {
        enable = mkDefault true;
        device-name-strategy = mkDefault "uuid";
      };

      undercroft.health.checks = {
        gpu-count = {
          description = "${toString cfg.count} NVIDIA cards answer";
          # The first call after the start waits for the cards.
          timeoutSec = 60;
          script = ''
            export PATH=${lib.makeBinPath [ pkgs.gnugrep pkgs.coreutils ]}:/run/current-system/sw/bin
            export GPU_COUNT=${toString cfg.count}
            ${builtins.readFile ./scripts/gpu-count.sh}
          '';
        };
      }
      // lib.optionalAttrs toolkit.enable {
        gpu-cdi = {
          description = "Containers can be given the cards (CDI)";
          script = ''
            export PATH=${lib.makeBinPath [ pkgs.jq ]}
            export CDI_FILE=/run/cdi/nvidia-container-toolkit.json
            ${builtins.readFile ./scripts/gpu-cdi.sh}
          '';
        };
      };
    }

    (mkIf (olderBranch != null && drivers ? ${olderBranch}) (
      # 26.05 has an option for the branch, which a configuration of one's own may set, too.
      if options.hardware.nvidia ? branch then
        { hardware.nvidia.branch = mkDefault olderBranch; }
      else
        lib.optionalAttrs (options.hardware.nvidia ? package) {
          hardware.nvidia.package = mkDefault drivers.${olderBranch};
        }
    ))

    # The cards' own processor (GSP) loads its firmware from here, and the open modules don't do
    # without. nixpkgs' module adds it for the plain driver alone.
    (mkIf (datacenter && plainDriver != null) {
      hardware.firmware = lib.optional (driver ? firmware) driver.firmware;
    })

    # k3s looks for NVIDIA's runtimes in its PATH when it starts, and registers `nvidia` and
    # `nvidia-cdi` (nixpkgs, k3s/docs/examples/NVIDIA.md).
    (mkIf (kubernetes.enable && kubernetes.distribution == "k3s") {
      systemd.services.k3s = {
        path = [ toolkitTools ];
        wants = [ cdiGenerator ];
        after = [ cdiGenerator ];
      };
    })

    (mkIf (kubernetes.enable && kubernetes.distribution == "kubeadm") {
      virtualisation.containerd.settings.plugins."io.containerd.grpc.v1.cri" = {
        enable_cdi = true;
        cdi_spec_dirs = [
          "/var/run/cdi"
          "/etc/cdi"
        ];
        containerd.runtimes.nvidia-cdi = {
          runtime_type = "io.containerd.runc.v2";
          options = {
            BinaryName = "${toolkitTools}/bin/nvidia-container-runtime.cdi";
            SystemdCgroup = true;
          };
        };
      };
      systemd.services.containerd = {
        wants = [ cdiGenerator ];
        after = [ cdiGenerator ];
      };
    })

    (mkIf mig {
      environment.systemPackages = [ cfg.mig.package ];
      environment.etc."undercroft/mig-parted.yaml".source = cfg.mig.configFile;

      systemd.services.undercroft-mig = {
        description = "Divide NVIDIA cards as ${toString cfg.migConfig}";
        wantedBy = [ "multi-user.target" ];
        # CDI names the instances, and the kubelet counts them once: both come after.
        before = [
          cdiGenerator
          "k3s.service"
          "containerd.service"
          "kubelet.service"
        ];
        requiredBy = [ cdiGenerator ];
        # A switch in the middle of work would divide the idle cards and fail at the others.
        restartIfChanged = false;
        after = [
          "systemd-modules-load.service"
          "nvidia-persistenced.service"
          "nvidia-fabricmanager.service"
        ];
        path = [
          cfg.mig.package
          pkgs.coreutils
          config.systemd.package
        ]
        ++ driverPath;
        environment = {
          MIG_CONFIG_FILE = toString cfg.mig.configFile;
          MIG_CONFIG = cfg.migConfig;
          DRIVER_WAIT_S = toString cfg.mig.driverWaitSec;
          # nvidia-mig-parted loads NVML, which NixOS keeps outside the loader's own paths.
          LD_LIBRARY_PATH = "/run/opengl-driver/lib";
        };
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${pkgs.runtimeShell} ${./scripts/mig.sh}";
          TimeoutStartSec = cfg.mig.driverWaitSec + 300;
        };
      };

      undercroft.health.checks.gpu-mig = {
        description = "The cards are divided as ${toString cfg.migConfig}";
        timeoutSec = 60;
        script = ''
          export LD_LIBRARY_PATH=/run/opengl-driver/lib
          ${cfg.mig.package}/bin/nvidia-mig-parted assert \
            -f ${lib.escapeShellArg (toString cfg.mig.configFile)} -c ${lib.escapeShellArg cfg.migConfig} || {
            echo "the cards are divided otherwise: a change takes a reboot; see undercroft-mig.service"
            exit 1
          }
        '';
      };
    })
  ]);
}
