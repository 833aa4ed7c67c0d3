# The message system, its accounts, and the server of lending beside it.
{
  lib,
  node,
  refused,
  ...
}:
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
  server-key = "U" + lib.concatStrings (lib.genList (_: "B") 55);
  submitter = "U" + lib.concatStrings (lib.genList (_: "C") 55);
  stub = {
    type = "derivation";
    outPath = "/nix/store/undercroft";
  };
  lends = node [
    {
      undercroft.nats = {
        enable = true;
        tls = {
          certFile = "/run/secrets/nats.crt";
          keyFile = "/run/secrets/nats.key";
        };
      };
      undercroft.lending = {
        enable = true;
        natsUrl = "tls://nats.cellar.example:4222";
        serverKey = server-key;
        devices.desk = {
          nkey = key;
          ownerKey = key;
        };
        submitters.ci = {
          nkey = submitter;
          tenant = "research";
        };
        server = {
          enable = true;
          keyFile = "/run/secrets/lend-server.nk";
          caFile = "/run/secrets/ca.crt";
          package = stub;
        };
        builds = {
          enable = true;
          submitter = "ci";
          tenant = "research";
          sensitivity = "public";
          keyFile = "/run/secrets/builds.nk";
          package = stub;
        };
      };
    }
  ];
  builders = builtins.fromJSON (
    builtins.unsafeDiscardStringContext lends.nix.settings.external-builders
  );
  unit = lends.systemd.services.undercroft-lend-server.serviceConfig;
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
  {
    name = "who may connect follows from the inventory, and what was acknowledged is synced";
    expected = {
      users = [
        server-key
        key
        submitter
      ];
      submits = [ "lend.submit.ci" ];
      sync = "always";
    };
    actual = {
      users = map (user: user.nkey) lends.services.nats.settings.accounts.LEND.users;
      submits =
        (lib.last lends.services.nats.settings.accounts.LEND.users).permissions.publish.allow;
      sync = lends.services.nats.settings.jetstream.sync_interval;
    };
  }
  {
    name = "the server of lending gets its key from systemd, and the inventory as a file";
    expected = {
      credentials = [
        "key:/run/secrets/lend-server.nk"
        "ca:/run/secrets/ca.crt"
      ];
      url = true;
      refused = [ ];
    };
    actual = {
      credentials = unit.LoadCredential;
      url = lib.hasInfix (
        "--nats tls://nats.cellar.example:4222"
        + " --key /run/credentials/undercroft-lend-server.service/key"
      ) unit.ExecStart;
      refused = refused lends;
    };
  }
  {
    name = "Nix' builds are brought to lent PCs by the command, with its settings";
    expected = {
      builders = 1;
      args = [
        "lend"
        "build"
        "--config"
      ];
      feature = true;
    };
    actual = {
      builders = lib.length builders;
      args = lib.take 3 (lib.head builders).args;
      feature = lib.elem "external-builders" lends.nix.settings.extra-experimental-features;
    };
  }
  {
    name = "a fleet that doesn't lend has no server of lending";
    expected = [
      "undercroft.lending.server: this fleet doesn't lend; set lending.enabled in the inventory."
    ];
    actual = refused (node [
      {
        undercroft.lending.server = {
          enable = true;
          url = "nats://127.0.0.1:4222";
          keyFile = "/run/secrets/lend-server.nk";
          package = stub;
        };
      }
    ]);
  }
]
