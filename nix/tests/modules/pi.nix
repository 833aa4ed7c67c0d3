# Raspberry Pis and AI boards.
{
  lib,
  machine,
  refused,
  ...
}:
let
  pi =
    settings: hats:
    machine "aarch64-linux" [
      {
        undercroft.node.firmware = "rpi";
        undercroft.pi = {
          enable = true;
        }
        // settings;
        undercroft.hats = {
          enable = hats != [ ];
          boards = hats;
        };
      }
    ];
  five = pi { model = "5"; } [ "hailo-8" ];
  four = pi { model = "4"; } [ ];
  coral = pi { model = "5"; } [
    "coral-pcie"
    "coral-usb"
  ];
in
[
  {
    name = "a Pi with ZFS has the kernel that ZFS builds for";
    expected = [
      true
      false
    ];
    actual =
      let
        version = config: config.boot.kernelPackages.kernel.version;
        zfs = machine "aarch64-linux" [
          {
            undercroft.pi = {
              enable = true;
              model = "5";
            };
            undercroft.disks.layout = "zfs";
          }
        ];
      in
      # A Pi 4 has the plain kernel, a Pi 5 the latest.
      [
        (version zfs == version four)
        (version five == version four)
      ];
  }
  {
    name = "U-Boot and extlinux, not systemd-boot";
    expected = {
      extlinux = true;
      systemdBoot = false;
      grub = false;
    };
    actual = {
      extlinux = five.boot.loader.generic-extlinux-compatible.enable;
      systemdBoot = five.boot.loader.systemd-boot.enable;
      grub = five.boot.loader.grub.enable;
    };
  }
  {
    name = "the firmware is written by the hook that writes the entries";
    # Its place in system.build can't be looked at here: 20.09 knows no priorities inside of it.
    expected = [
      true
      true
    ];
    actual =
      let
        plain = builtins.unsafeDiscardStringContext;
      in
      map (part: lib.hasInfix (plain part) (plain five.undercroft.pi.installBootLoader.text)) [
        "pi-firmware.sh"
        "${five.boot.loader.generic-extlinux-compatible.populateCmd} -c \"$1\""
      ];
  }
  {
    name = "both models evaluate to a system";
    expected = [
      true
      true
    ];
    actual = map (config: lib.hasSuffix ".drv" config.system.build.toplevel.drvPath) [
      five
      four
    ];
  }
  {
    name = "a Pi whose model nobody knows is refused";
    expected = true;
    actual = lib.any (lib.hasInfix "undercroft.pi.model isn't known") (refused (pi { } [ ]));
  }
  {
    name = "a Hailo's descriptors are as small as the Pi's controller wants them";
    expected = true;
    actual = lib.hasInfix "options hailo_pci force_desc_page_size=4096" five.boot.extraModprobeConfig;
  }
  {
    name = "a Hailo without firmware is warned of";
    expected = true;
    actual = lib.any (lib.hasInfix "hailo8_fw.4.23.0.bin") five.warnings;
  }
  {
    name = "Coral's drivers and rules";
    expected = {
      pcie = true;
      usb = true;
      apex = true;
      unloaded = true;
      loaded = true;
    };
    actual = {
      pcie = coral.hardware.coral.pcie.enable;
      usb = coral.hardware.coral.usb.enable;
      apex = lib.elem "apex" coral.boot.kernelModules;
      unloaded = lib.hasInfix ''ATTR{idVendor}=="1a6e", ATTR{idProduct}=="089a"'' coral.services.udev.extraRules;
      loaded = lib.hasInfix ''ATTR{idVendor}=="18d1", ATTR{idProduct}=="9302"'' coral.services.udev.extraRules;
    };
  }
  {
    name = "each board is a matter of health";
    expected = [
      "hat-coral-pcie"
      "hat-coral-usb"
    ];
    actual = lib.filter (lib.hasPrefix "hat-") (lib.attrNames coral.undercroft.health.checks);
  }
]
