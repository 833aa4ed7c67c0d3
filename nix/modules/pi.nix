# Raspberry Pi 4 and 5, from nixpkgs alone: firmware on the boot partition, U-Boot, and extlinux,
# which gives each generation an entry of its boot menu.
#
# A fleet that wants the vendor's kernel takes nixos-hardware or nixos-raspberrypi as an input and
# sets boot.kernelPackages (and the boot loader, where these bring one) in a module of its own;
# everything here is a default.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    mkDefault
    mkForce
    mkIf
    mkOption
    types
    ;
  cfg = config.undercroft.pi;
  hats = config.undercroft.hats;
  pcie = cfg.model == "5" && hats.enable && lib.any (board: board != "coral-usb") hats.boards;

  configTxt = pkgs.writeText "config.txt" (
    lib.concatStringsSep "\n" (
      [
        "# Written by Undercroft at each installation of the boot loader; see undercroft.pi.configTxt."
        "arm_64bit=1"
        "enable_uart=1"
        "avoid_warnings=1"
        "kernel=u-boot.bin"
      ]
      # The Pi 5's EEPROM starts nothing that doesn't say it is for a Pi 5; a boot loader doesn't.
      ++ lib.optional (cfg.model == "5") "os_check=0"
      ++ lib.optional (cfg.model == "4") "armstub=armstub8-gic.bin"
      ++ lib.optional pcie "dtparam=pciex1"
      ++ cfg.configTxt
      ++ [ "" ]
    )
  );
  bootFiles = pkgs.runCommand "raspberry-pi-boot-files" { } ''
    mkdir $out
    cp ${configTxt} $out/config.txt
    cp ${cfg.uboot}/u-boot.bin $out/u-boot.bin
    ${lib.optionalString (cfg.model == "4") "cp ${pkgs.raspberrypi-armstubs}/armstub8-gic.bin $out/"}
  '';

  installBootLoader = pkgs.writeShellScript "install-raspberry-pi-boot-loader" ''
    set -eu
    export PATH=${lib.makeBinPath [ pkgs.coreutils pkgs.diffutils ]}
    export FIRMWARE=${cfg.firmware}/share/raspberrypi/boot
    export BOOT_FILES=${bootFiles} MODEL=${cfg.model} TARGET=/boot
    ${pkgs.runtimeShell} ${./scripts/pi-firmware.sh}
    exec ${config.boot.loader.generic-extlinux-compatible.populateCmd} -c "$1"
  '';
in
{
  options.undercroft.pi = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the machine is a Raspberry Pi.";
    };
    model = mkOption {
      type = types.nullOr (types.enum [ "4" "5" ]);
      default = null;
      description = "Which Raspberry Pi it is.";
    };
    uboot = mkOption {
      type = types.package;
      default =
        if cfg.model == "4" then
          pkgs.ubootRaspberryPi4_64bit
        else
          # U-Boot knows the Pi 5 by its name for every 64-bit Pi, of which nixpkgs has no package.
          pkgs.buildUBoot {
            defconfig = "rpi_arm64_defconfig";
            extraMeta.platforms = [ "aarch64-linux" ];
            filesToInstall = [ "u-boot.bin" ];
          };
      defaultText = lib.literalExpression "pkgs.ubootRaspberryPi4_64bit, or U-Boot's rpi_arm64";
      description = "U-Boot, with `u-boot.bin`.";
    };
    firmware = mkOption {
      type = types.package;
      default = pkgs.raspberrypifw;
      defaultText = lib.literalExpression "pkgs.raspberrypifw";
      description = "The Pi's firmware, with `share/raspberrypi/boot`.";
    };
    installBootLoader = mkOption {
      type = types.package;
      default = installBootLoader;
      readOnly = true;
      internal = true;
      description = "The hook that writes the firmware and the boot menu.";
    };
    configTxt = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Further lines of config.txt.";
      example = [ "dtparam=pciex1_gen=3" ];
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.model != null;
        message = ''
          undercroft.pi.model isn't known: name the class so that it holds pi4 or pi5, or set
          undercroft.pi.model to "4" or "5" in a module of the class.
        '';
      }
      {
        assertion = pkgs.stdenv.hostPlatform.isAarch64;
        message = "A Raspberry Pi runs aarch64-linux, and this configuration is for ${pkgs.stdenv.hostPlatform.system}.";
      }
      {
        # nixpkgs gives the program that writes the boot menu for the machine that builds.
        assertion = pkgs.stdenv.buildPlatform.system == pkgs.stdenv.hostPlatform.system;
        message = ''
          A Raspberry Pi's system can't be cross-compiled here: its boot menu would be written by a
          program for ${pkgs.stdenv.buildPlatform.system}. Build it on an aarch64-linux builder, or with
          boot.binfmt.emulatedSystems = [ "aarch64-linux" ] on the building machine.
        '';
      }
    ];

    undercroft.unfree.packages = [ "raspberrypi" ];

    boot.loader = {
      grub.enable = mkDefault false;
      systemd-boot.enable = mkForce false;
      efi.canTouchEfiVariables = mkForce false;
      generic-extlinux-compatible = {
        enable = mkDefault true;
        configurationLimit = mkDefault 5;
      };
    };
    # The firmware is written together with the entries, by the hook that the installer runs too.
    system.build.installBootLoader = mkIf config.boot.loader.generic-extlinux-compatible.enable (
      mkForce cfg.installBootLoader
    );

    # Mainline drives the Pi 4 for long, and the Pi 5's network and PCIe only lately. With ZFS the
    # kernel is the one that ZFS builds for (disks.nix).
    boot.kernelPackages = mkIf (config.undercroft.disks.layout == "ext4") (
      mkDefault (if cfg.model == "5" then pkgs.linuxPackages_latest else pkgs.linuxPackages)
    );
    boot.kernelParams = [
      "console=tty1"
      (if cfg.model == "5" then "console=ttyAMA10,115200" else "console=ttyS0,115200")
      # Raspberry Pi's firmware switches the memory controller off, which the kubelet needs.
      "cgroup_enable=memory"
    ];
    boot.initrd.availableKernelModules = [
      "usbhid"
      "usb_storage"
      "sdhci_iproc"
      "sdhci_brcmstb"
      "nvme"
      "pcie_brcmstb"
      "reset-raspberrypi"
    ];
    # Lists of modules for every machine name some that a kernel for one board doesn't have.
    boot.initrd.includeDefaultModules = mkDefault false;

    hardware.enableRedistributableFirmware = mkDefault true;
    hardware.deviceTree.enable = mkDefault true;
    powerManagement.cpuFreqGovernor = mkDefault "ondemand";
  };
}
