# NVIDIA's cards.
{
  lib,
  node,
  refused,
  ...
}:
let
  gpu =
    settings:
    node [
      {
        undercroft.gpu = {
          enable = true;
        }
        // settings;
      }
    ];
  mig = gpu {
    model = "a100-80gb";
    count = 4;
    sharing = "mig";
    migConfig = "all-1g.10gb";
  };
  ada = gpu { model = "rtx-4090"; };
  pascal = gpu {
    model = "gtx-1080";
    driver = "proprietary";
  };
  hgx = gpu {
    model = "h100-80gb";
    count = 8;
    driver = "datacenter";
  };
  # The same with a kernel that has drivers, as a new nixpkgs' has.
  driver =
    version: extra:
    {
      type = "derivation";
      name = "nvidia-x11-${version}";
      outPath = "/nvidia-${version}";
      inherit version;
      open = null;
    }
    // extra;
  withDrivers =
    version: settings: extra:
    node [
      (
        { pkgs, ... }:
        {
          undercroft.gpu = {
            enable = true;
          }
          // settings;
          boot.kernelPackages = pkgs.linuxPackages.extend (
            _: _: {
              nvidiaPackages = {
                stable = driver version { };
                dc = driver "${version}.dc" extra;
                legacy_470 = driver "470.256.02" { };
                legacy_580 = driver "580.173.02" { };
              };
            }
          );
          hardware.nvidia = lib.mkIf (settings.driver or "" == "datacenter") {
            package = driver "${version}.dc" extra;
          };
        }
      )
    ];
  # The branch that is asked for, by whichever option the release has.
  branch =
    model: version:
    let
      inherit
        ((withDrivers version {
          inherit model;
          driver = if model == "rtx-4090" then "open" else "proprietary";
        } { }).hardware
        )
        nvidia
        ;
      package = builtins.tryEval nvidia.package.version;
    in
    if nvidia ? branch then
      nvidia.branch
    else if !package.success then
      # The stand-in has no default, as nixpkgs' own has: nothing was asked for.
      "stable"
    else
      {
        "470.256.02" = "legacy_470";
        "580.173.02" = "legacy_580";
      }
      .${package.value};
  inCluster =
    distribution:
    node [
      {
        undercroft.gpu = {
          enable = true;
          model = "rtx-4090";
        };
        undercroft.kubernetes = {
          enable = true;
          inherit distribution;
          role = "agent";
          serverUrl = "https://k8s.example:6443";
          apiEndpoint = "k8s.example";
          founderName = "box-02";
          founderAddress = "10.0.0.12";
          servers.box-02 = "10.0.0.12";
          tokenFile = "/run/secrets/k3s/agent_token";
        };
      }
    ];
  cdi = "nvidia-container-toolkit-cdi-generator.service";
  unit = config: config.systemd.services.undercroft-mig;
  mentions = part: messages: lib.any (lib.hasInfix part) messages;
in
[
  {
    name = "the open modules from Turing on, the proprietary ones before";
    expected = [
      true
      false
    ];
    actual = [
      ada.hardware.nvidia.open
      pascal.hardware.nvidia.open
    ];
  }
  {
    name = "cards that the newest driver has left behind get the last one that drives them";
    expected = [
      "stable"
      "stable"
      "legacy_580"
      "legacy_470"
      "legacy_580"
    ];
    actual = [
      (branch "rtx-4090" "595.71.05")
      (branch "gtx-1080" "580.95.05")
      (branch "gtx-1080" "595.71.05")
      (branch "gtx-780" "580.95.05")
      (branch "gtx-750-ti" "595.71.05")
    ];
  }
  {
    name = "the data centre driver brings the cards' own firmware";
    expected = [
      true
      false
    ];
    # What the firmware's folder is made of, as buildEnv has it.
    actual =
      map
        (
          extra:
          lib.hasInfix "/nvidia-gsp" (
            builtins.unsafeDiscardStringContext
              (withDrivers "580.95.05" {
                model = "b200";
                driver = "datacenter";
              } (extra // { open = "/open"; })).hardware.firmware.pkgs
          )
        )
        [
          { firmware = driver "gsp" { outPath = "/nvidia-gsp"; }; }
          { }
        ];
  }
  {
    name = "a data centre driver without open modules is refused where nothing else drives the card";
    expected = true;
    actual = mentions "comes without" (
      refused (
        withDrivers "565.57.01" {
          model = "b200";
          driver = "datacenter";
        } { }
      )
    );
  }
  {
    name = "the fabric manager may be had";
    expected = true;
    actual = lib.elem "fabricmanager" hgx.undercroft.unfree.packages;
  }
  {
    name = "one driver, never two";
    expected = {
      desktop = [ "nvidia" ];
      desktopDatacenter = false;
      datacenter = false;
      datacenterEnabled = true;
    };
    actual = {
      desktop = ada.services.xserver.videoDrivers;
      desktopDatacenter = ada.hardware.nvidia.datacenter.enable;
      datacenter = lib.elem "nvidia" hgx.services.xserver.videoDrivers;
      datacenterEnabled = hgx.hardware.nvidia.datacenter.enable;
    };
  }
  {
    name = "no X server comes with the driver, and the cards stay awake without one";
    expected = [
      false
      true
    ];
    actual = [
      ada.services.xserver.enable
      ada.hardware.nvidia.nvidiaPersistenced
    ];
  }
  {
    name = "devices are named by UUID";
    expected = "uuid";
    actual = mig.hardware.nvidia-container-toolkit.device-name-strategy;
  }
  {
    name = "the division of cards comes before CDI and before what counts cards";
    expected = [
      "containerd.service"
      "k3s.service"
      "kubelet.service"
      "nvidia-container-toolkit-cdi-generator.service"
    ];
    actual = lib.sort (a: b: a < b) (unit mig).before;
  }
  {
    name = "the division names its configuration";
    expected = "all-1g.10gb";
    actual = (unit mig).environment.MIG_CONFIG;
  }
  {
    name = "a switch leaves the cards alone: another division takes a reboot";
    expected = false;
    actual = (unit mig).restartIfChanged;
  }
  {
    name = "the named configurations are those of the program's sources";
    expected = [
      true
      "/nix/store/x/share/mig-parted/config.yaml"
    ];
    actual =
      let
        file =
          package:
          (node [
            {
              undercroft.gpu = {
                enable = true;
                mig.package = package;
              };
            }
          ]).undercroft.gpu.mig.configFile;
        package = driver "mig-parted" { outPath = "/nix/store/x"; };
      in
      [
        (lib.hasSuffix "-mig-parted-config.yaml" (file (package // { src = "/src"; })))
        (file package)
      ];
  }
  {
    name = "no division where cards aren't divided";
    expected = false;
    actual = ada.systemd.services ? undercroft-mig;
  }
  {
    name = "k3s finds NVIDIA's runtimes, and starts after CDI was made";
    expected = {
      path = true;
      after = true;
    };
    actual =
      let
        inherit ((inCluster "k3s").systemd.services) k3s;
      in
      {
        path = lib.hasInfix "nvidia-container-toolkit" (
          builtins.unsafeDiscardStringContext (toString k3s.path)
        );
        after = lib.elem cdi k3s.after && lib.elem cdi k3s.wants;
      };
  }
  {
    name = "kubeadm's containerd has CDI and the runtime, beside what it has otherwise";
    expected = {
      cdi = true;
      runtime = true;
      runc = "io.containerd.runc.v2";
      cni = "/opt/cni/bin";
    };
    actual =
      let
        cri =
          (inCluster "kubeadm").virtualisation.containerd.settings.plugins."io.containerd.grpc.v1.cri";
      in
      {
        cdi = cri.enable_cdi;
        runtime = lib.hasSuffix "/bin/nvidia-container-runtime.cdi" cri.containerd.runtimes.nvidia-cdi.options.BinaryName;
        runc = cri.containerd.runtimes.runc.runtime_type;
        cni = cri.cni.bin_dir;
      };
  }
  {
    name = "health counts the cards of the inventory";
    expected = true;
    actual = lib.hasInfix "export GPU_COUNT=4" mig.undercroft.health.checks.gpu-count.script;
  }
  {
    name = "health checks by sharing";
    expected = [
      "gpu-cdi"
      "gpu-count"
      "gpu-mig"
    ];
    actual = lib.filter (lib.hasPrefix "gpu") (lib.attrNames mig.undercroft.health.checks);
  }
  {
    name = "nothing is refused that can be";
    expected = [ ];
    actual = lib.concatMap refused [
      mig
      ada
      pascal
      hgx
    ];
  }
  {
    name = "MIG on a card that can't is refused";
    expected = true;
    actual = mentions "can't be divided by MIG" (
      refused (gpu {
        model = "rtx-4090";
        sharing = "mig";
        migConfig = "all-1g.10gb";
      })
    );
  }
  {
    name = "MIG and time slices exclude each other";
    expected = true;
    actual = mentions "MIG excludes" (
      refused (gpu {
        model = "a100-80gb";
        sharing = "time-slicing";
        replicas = 4;
        migConfig = "all-1g.10gb";
      })
    );
  }
  {
    name = "slices need a number, and whole cards have none";
    expected = [
      true
      true
    ];
    actual = [
      (mentions "undercroft.gpu.replicas" (
        refused (gpu {
          model = "rtx-4090";
          sharing = "mps";
        })
      ))
      (mentions "undercroft.gpu.replicas" (
        refused (gpu {
          model = "rtx-4090";
          replicas = 2;
        })
      ))
    ];
  }
  {
    name = "a driver that doesn't drive the card is refused";
    expected = [
      true
      true
    ];
    actual = [
      (mentions "only the open" (
        refused (gpu {
          model = "rtx-5090";
          driver = "proprietary";
        })
      ))
      (mentions "older than Turing" (refused (gpu { model = "v100"; })))
    ];
  }
  {
    name = "a module of one's own can't add the second driver unseen";
    expected = true;
    actual = mentions "exclude each" (
      refused (
        node [
          {
            undercroft.gpu = {
              enable = true;
              model = "rtx-4090";
            };
            hardware.nvidia.datacenter.enable = true;
          }
        ]
      )
    );
  }
]
