# AI boards: Hailo-8 and 8L, and Google's Coral by PCIe or USB. The drivers, who may open the
# devices, and whether they are there.
#
# nixpkgs has Coral's driver (gasket) and library (libedgetpu), and nothing of Hailo's. Hailo's
# kernel driver is built here from Hailo's sources; its firmware may not be handed on, and is an
# option.
{
  config,
  lib,
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
  cfg = config.undercroft.hats;
  has = board: lib.elem board cfg.boards;
  hailo = has "hailo-8" || has "hailo-8l";
  coral = has "coral-pcie" || has "coral-usb";

  firmware = pkgs.runCommand "hailo8-firmware-${cfg.hailo.version}" { } ''
    install -D -m 0444 ${cfg.hailo.firmwareFile} $out/lib/firmware/hailo/hailo8_fw.bin
  '';

  check = board: {
    name = "hat-${board}";
    value = {
      description = "The board ${board} is there and its driver runs";
      timeoutSec = 40;
      script = ''
        export PATH=${
          lib.makeBinPath (
            [
              pkgs.coreutils
              pkgs.gnused
              (lib.getBin pkgs.glibc)
            ]
            ++ lib.optional (cfg.hailo.runtime != null) cfg.hailo.runtime
          )
        }
        export BOARD=${board}
        ${lib.optionalString (lib.hasPrefix "hailo" board) "export HAILO_VERSION=${cfg.hailo.version}\n"}${builtins.readFile ./scripts/hat.sh}
      '';
    };
  };
in
{
  options.undercroft.hats = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the machine has AI boards.";
    };
    boards = mkOption {
      type = types.listOf (
        types.enum [
          "hailo-8"
          "hailo-8l"
          "coral-pcie"
          "coral-usb"
        ]
      );
      default = [ ];
      description = "The boards. The machine isn't healthy without one of them.";
    };
    group = mkOption {
      type = types.str;
      default = "ai-boards";
      description = "Group that may open Hailo's devices. Coral's have nixpkgs' group `coral`.";
    };

    hailo = {
      version = mkOption {
        type = types.strMatching "4\\.[0-9]+\\.[0-9]+";
        default = "4.23.0";
        description = ''
          Version of the driver, the firmware and HailoRT, which must be the same. Hailo-8 and 8L
          need 4.x; 5.x is for other chips.
        '';
      };
      driver = mkOption {
        type = types.nullOr types.package;
        default = config.boot.kernelPackages.callPackage ../packages/hailo-pci.nix {
          inherit (cfg.hailo) version;
        };
        defaultText = lib.literalExpression "the driver in the wanted version, for the machine's kernel";
        description = ''
          Kernel module hailo_pci for the machine's kernel. Null where the kernel brings it, as
          the vendor's kernel for the Raspberry Pi does from 6.12.25 on.
        '';
      };
      firmwareFile = mkOption {
        type = types.nullOr types.path;
        default = null;
        description = ''
          The firmware, `hailo8_fw.VERSION.bin` as Hailo publishes it. Its licence doesn't let this
          project bring it. Without it the board stays without a device, and the machine isn't
          healthy.
        '';
      };
      runtime = mkOption {
        type = types.nullOr types.package;
        default = null;
        description = ''
          HailoRT, with `bin/hailortcli`, in the same version. nixpkgs has none. With it the health
          check asks the board what it is; without it a Hailo-8L passes for a Hailo-8.
        '';
      };
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      undercroft.health.checks = lib.listToAttrs (map check cfg.boards);
      assertions = [
        {
          assertion = !(has "hailo-8" && has "hailo-8l");
          message = "undercroft.hats.boards: a Hailo-8 and a Hailo-8L in one machine can't be told apart by their device.";
        }
      ];
    }

    (mkIf hailo {
      warnings = lib.optional (cfg.hailo.firmwareFile == null) ''
        undercroft.hats: a Hailo needs its firmware, which Hailo publishes as
        hailo8_fw.${cfg.hailo.version}.bin. Set undercroft.hats.hailo.firmwareFile to it; without it
        there is no /dev/hailo0.
      '';
      boot.extraModulePackages = lib.optional (cfg.hailo.driver != null) cfg.hailo.driver;
      boot.kernelModules = [ "hailo_pci" ];
      # The Pi's PCIe controller takes descriptors of at most a page.
      boot.extraModprobeConfig = ''
        options hailo_pci force_desc_page_size=4096
      '';
      hardware.firmware = lib.optional (cfg.hailo.firmwareFile != null) firmware;
      environment.systemPackages = lib.optional (cfg.hailo.runtime != null) cfg.hailo.runtime;
      users.groups.${cfg.group} = { };
      services.udev.extraRules = ''
        SUBSYSTEM=="hailo_chardev", KERNEL=="hailo[0-9]*", MODE="0660", GROUP="${cfg.group}", TAG+="systemd"
      '';
    })

    (mkIf coral {
      users.groups.coral = { };
    })

    (mkIf (has "coral-pcie") {
      hardware.coral.pcie.enable = mkDefault true;
      boot.kernelModules = [
        "gasket"
        "apex"
      ];
      services.udev.extraRules = ''
        SUBSYSTEM=="apex", MODE="0660", GROUP="coral", TAG+="systemd"
      '';
    })

    (mkIf (has "coral-usb") {
      hardware.coral.usb.enable = mkDefault true;
      # libedgetpu's own rules name another group on some releases.
      services.udev.extraRules = ''
        SUBSYSTEM=="usb", ATTR{idVendor}=="1a6e", ATTR{idProduct}=="089a", MODE="0660", GROUP="coral"
        SUBSYSTEM=="usb", ATTR{idVendor}=="18d1", ATTR{idProduct}=="9302", MODE="0660", GROUP="coral"
      '';
    })
  ]);
}
