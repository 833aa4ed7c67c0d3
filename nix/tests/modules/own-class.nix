# The example of docs/add-a-class.md.
{
  lib,
  inputs,
  node,
  refused,
  ...
}:
let
  fleet = import ../../mk-fleet.nix inputs { src = ../../../examples/own-class; };
  machine = name: fleet.nixosConfigurations.${name}.config;
  kept =
    name:
    lib.filter (lib.hasSuffix "d") (
      lib.filter (lib.hasInfix "recordings") (machine name).systemd.tmpfiles.rules
    );
in
[
  {
    name = "both machines evaluate to a system";
    expected = [
      true
      true
    ];
    actual = map (name: lib.hasSuffix ".drv" (machine name).system.build.toplevel.drvPath) [
      "recorder-01"
      "recorder-02"
    ];
  }
  {
    name = "a node's module goes over its class's default";
    expected = [
      [ "d /data/WD-WX12D3456789/recordings 0750 recorder recorder 14d" ]
      [ "d /data/WD-WX12D3456790/recordings 0750 recorder recorder 60d" ]
    ];
    actual = map kept [
      "recorder-01"
      "recorder-02"
    ];
  }
  {
    name = "the class's check is among the machine's";
    expected = true;
    actual = (machine "recorder-01").undercroft.health.checks ? recorder;
  }
  {
    name = "a class's module overrides Undercroft";
    expected = false;
    actual = (machine "recorder-01").services.prometheus.exporters.node.enable;
  }
  {
    name = "the inventory's kernel parameters are there";
    expected = true;
    actual = lib.elem "usbcore.usbfs_memory_mb=256" (machine "recorder-01").boot.kernelParams;
  }
  {
    name = "a recorder without a data disk is refused by name";
    expected = true;
    actual = lib.any (lib.hasInfix "box-01 is a recorder") (
      refused (node [ ../../../examples/own-class/modules/recorder.nix ])
    );
  }
]
