# The controller as a service.
{
  lib,
  node,
  refused,
  ...
}:
let
  stub = {
    type = "derivation";
    outPath = "/nix/store/undercroft";
  };
  serves =
    settings:
    node [
      {
        undercroft.controller = {
          enable = true;
          package = stub;
        }
        // settings;
      }
    ];
  plain = serves { };
  unit = plain.systemd.services.undercroft-controller.serviceConfig;
in
[
  {
    name = "a machine is no controller unless it is told to be";
    expected = {
      service = false;
      user = false;
      dhcp = false;
    };
    actual =
      let
        without = node [ ];
      in
      {
        service = without.systemd.services ? undercroft-controller;
        user = without.users.users ? undercroft;
        dhcp = lib.elem 67 without.networking.firewall.allowedUDPPorts;
      };
  }
  {
    name = "systemd waits for its word, and ends it where its rounds give no sign of life";
    expected = {
      type = "notify";
      watchdog = 120;
      restart = "always";
      again = 0;
      refused = [ ];
    };
    actual = {
      type = unit.Type;
      watchdog = unit.WatchdogSec;
      restart = unit.Restart;
      again = plain.systemd.services.undercroft-controller.unitConfig.StartLimitIntervalSec;
      refused = refused plain;
    };
  }
  {
    name = "it has the two capabilities that its ports take, and writes to its own folders alone";
    expected = {
      capabilities = [
        "CAP_NET_BIND_SERVICE"
        "CAP_NET_RAW"
      ];
      none = true;
      system = "strict";
      writes = [ "/srv/fleet" ];
      user = "undercroft";
    };
    actual =
      let
        elsewhere =
          (serves { directory = "/srv/fleet"; }).systemd.services.undercroft-controller.serviceConfig;
      in
      {
        capabilities = elsewhere.CapabilityBoundingSet;
        none = elsewhere.AmbientCapabilities == elsewhere.CapabilityBoundingSet;
        system = elsewhere.ProtectSystem;
        writes = elsewhere.ReadWritePaths;
        user = elsewhere.User;
      };
  }
  {
    name = "machines and the interval are given as they are named";
    expected = "/nix/store/undercroft/bin/undercroft serve --yes --interval 300 --only gpu --only 'box-*'";
    actual =
      (serves {
        intervalS = 300;
        only = [
          "gpu"
          "box-*"
        ];
      }).systemd.services.undercroft-controller.serviceConfig.ExecStart;
  }
  {
    name = "machines boot from it over one interface where one is named";
    expected = {
      all = [
        67
        69
        4011
      ];
      elsewhere = false;
      one = [ 8080 ];
    };
    actual =
      let
        one = serves { interface = "enp2s0"; };
      in
      {
        all = lib.intersectLists [
          67
          69
          4011
        ] plain.networking.firewall.allowedUDPPorts;
        elsewhere = lib.elem 8080 one.networking.firewall.allowedTCPPorts;
        one = one.networking.firewall.interfaces.enp2s0.allowedTCPPorts;
      };
  }
  {
    name = "the webhook's secret is handed over by systemd, and is on no command line";
    expected = {
      credentials = [ "webhook:/run/secrets/hook" ];
      command = true;
      refused = 1;
      open = true;
    };
    actual =
      let
        told = serves {
          metricsPort = 9110;
          webhook = {
            url = "https://hooks.example/{secret}";
            secretFile = "/run/secrets/hook";
          };
        };
        inherit (told.systemd.services.undercroft-controller) serviceConfig;
      in
      {
        credentials = serviceConfig.LoadCredential;
        command = lib.hasSuffix (
          "--webhook 'https://hooks.example/{secret}'"
          + " --webhook-secret /run/credentials/undercroft-controller.service/webhook"
        ) serviceConfig.ExecStart;
        refused = lib.length (refused (serves { webhook.secretFile = "/run/secrets/hook"; }));
        open = lib.elem 9110 told.networking.firewall.allowedTCPPorts;
      };
  }
  {
    name = "a folder that the service couldn't see is refused";
    expected = [ 1 1 0 ];
    actual = map (directory: lib.length (refused (serves { inherit directory; }))) [
      "/home/ada/fleet"
      "/tmp"
      "/homes/fleet"
    ];
  }
]
