# The message system, and its accounts.
{ lib, node, ... }:
let
  key = "U" + lib.concatStrings (lib.genList (_: "A") 55);
  server =
    settings:
    (node [
      {
        undercroft.nats = {
          enable = true;
          devices.ada-workstation.nkey = key;
        }
        // settings;
      }
    ]);
  plain = server { };
  tls = server {
    tls = {
      certFile = "/run/secrets/nats.crt";
      keyFile = "/run/secrets/nats.key";
    };
  };
in
[
  {
    name = "without TLS it listens on the loopback interface alone";
    expected = {
      host = "127.0.0.1";
      open = false;
    };
    actual = {
      inherit (plain.services.nats.settings) host;
      open = lib.elem 4222 plain.networking.firewall.allowedTCPPorts;
    };
  }
  {
    name = "with TLS it listens everywhere, and its key is handed over by systemd";
    expected = {
      host = "0.0.0.0";
      open = true;
      file = "/run/credentials/nats.service/tls.key";
      credential = [
        "tls.crt:/run/secrets/nats.crt"
        "tls.key:/run/secrets/nats.key"
      ];
    };
    actual = {
      inherit (tls.services.nats.settings) host;
      open = lib.elem 4222 tls.networking.firewall.allowedTCPPorts;
      file = tls.services.nats.settings.tls.key_file;
      credential = tls.systemd.services.nats.serviceConfig.LoadCredential;
    };
  }
  {
    name = "a plain value of one's own goes over the server's";
    expected = 65536;
    actual =
      (node [
        {
          undercroft.nats.enable = true;
          services.nats.settings.max_payload = 65536;
        }
      ]).services.nats.settings.max_payload;
  }
  {
    name = "the configuration is checked while it is built, but for a certificate that isn't there then";
    expected = [
      true
      false
    ];
    actual = map (config: config.services.nats.validateConfig) [
      plain
      tls
    ];
  }
  {
    name = "a lent PC hears nothing but its own inbox";
    expected = [ "_INBOX_ada-workstation.>" ];
    actual =
      (lib.head plain.services.nats.settings.accounts.LEND.users).permissions.subscribe.allow;
  }
]
