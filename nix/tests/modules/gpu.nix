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
    name = "no X server comes with the driver";
    expected = false;
    actual = ada.services.xserver.enable;
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
    name = "no division where cards aren't divided";
    expected = false;
    actual = ada.systemd.services ? undercroft-mig;
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
