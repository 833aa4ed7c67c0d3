# Phone hosts.
{
  lib,
  node,
  refused,
  inputs,
  ...
}:
let
  pkgs = inputs.nixpkgs.legacyPackages.x86_64-linux;
  phones = [
    {
      slot = 2;
      serial = "R5C3CTLK4LB";
    }
    {
      slot = 1;
      serial = "R5CC9B0DZWC";
      model = "galaxy-s21";
    }
  ];
  host =
    settings:
    node [
      {
        undercroft.phones = {
          enable = true;
          inherit phones;
        }
        // settings;
      }
    ];
  plain = host { };
  orchestrated = host { package = pkgs.hello; };
in
[
  {
    name = "scripts for the chassis find adb and the phones, in the order of their slots";
    expected = {
      devices = "R5CC9B0DZWC R5C3CTLK4LB";
      adb = true;
      server = "tcp:127.0.0.1:5037";
    };
    actual = {
      inherit (orchestrated.systemd.services.undercroft-phones.environment) devices;
      server = orchestrated.systemd.services.undercroft-phones.environment.ADB_SERVER_SOCKET;
      adb = lib.hasSuffix "/bin/adb" orchestrated.systemd.services.undercroft-phones.environment.adb_path;
    };
  }
  {
    name = "without an orchestrator there is no unit that pretends to be one";
    expected = {
      orchestrator = false;
      adb = true;
    };
    actual = {
      orchestrator = plain.systemd.services ? undercroft-phones;
      adb = plain.systemd.services ? undercroft-adb;
    };
  }
  {
    name = "no phone is suspended, and nothing here may do more than it has to";
    expected = {
      autosuspend = true;
      capabilities = [
        ""
        ""
      ];
    };
    actual = {
      autosuspend = lib.elem "usbcore.autosuspend=-1" plain.boot.kernelParams;
      capabilities =
        map (unit: orchestrated.systemd.services.${unit}.serviceConfig.CapabilityBoundingSet)
          [
            "undercroft-adb"
            "undercroft-phones"
          ];
    };
  }
  {
    name = "adb listens on the loopback interface alone";
    expected = true;
    actual = lib.hasInfix "-L tcp:localhost:5037 nodaemon server" plain.systemd.services.undercroft-adb.serviceConfig.ExecStart;
  }
  {
    name = "a device node per slot";
    expected = true;
    actual = lib.hasInfix ''ATTR{serial}=="R5C3CTLK4LB", MODE="0660", GROUP="adbusers", SYMLINK+="undercroft/phones/slot-2"'' plain.services.udev.extraRules;
  }
  {
    name = "the adb server may open them";
    expected = true;
    actual = lib.elem "adbusers" plain.users.users.undercroft-phones.extraGroups;
  }
  {
    name = "a phone that is there twice is refused";
    expected = 2;
    actual = lib.length (
      refused (host {
        phones = [
          {
            slot = 1;
            serial = "A";
          }
          {
            slot = 1;
            serial = "A";
          }
        ];
      })
    );
  }
  {
    name = "the key of adb is handed over by systemd";
    expected = {
      credential = "adbkey:/run/secrets/adbkey";
      environment = "%d/adbkey";
    };
    actual =
      let
        service = (host { adbKeyFile = "/run/secrets/adbkey"; }).systemd.services.undercroft-adb;
      in
      {
        credential = service.serviceConfig.LoadCredential;
        environment = service.environment.ADB_VENDOR_KEYS;
      };
  }
]
