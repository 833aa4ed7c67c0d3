# The overlay: clients, server, policy.
{
  lib,
  node,
  refused,
  ...
}:
let
  overlay = {
    kind = "headscale";
    serverUrl = "https://headscale.cellar.example";
    baseDomain = "net.cellar.example";
  };
  client =
    settings:
    node [
      {
        undercroft.overlay =
          overlay
          // {
            enable = true;
            authKeyFile = "/run/secrets/tailscale-auth-key";
          }
          // settings;
      }
    ];
  server =
    settings:
    node [
      {
        undercroft.overlay = overlay // {
          server = {
            enable = true;
            policy.users.ada.role = "admin";
            policy.routes = [ "10.0.0.0/24" ];
          }
          // settings;
        };
      }
    ];
  router = client { routes = [ "10.0.0.0/24" ]; };
  login = router.systemd.services.undercroft-overlay-connect;
  units = config: lib.attrValues (removeAttrs config.systemd.services [ "undercroft-overlay-connect" ]);
  headscale = (server { }).services.headscale;
in
[
  {
    name = "the key is a file that systemd hands over, and never a word of the command";
    expected = {
      credential = "auth-key:/run/secrets/tailscale-auth-key";
      environment = "%d/auth-key";
    };
    actual = {
      credential = login.serviceConfig.LoadCredential;
      environment = login.environment.AUTH_KEY_FILE;
    };
  }
  {
    name = "a login that fails is tried again for ever";
    expected = {
      Restart = "on-failure";
      limit = 0;
    };
    actual = {
      inherit (login.serviceConfig) Restart;
      limit = login.startLimitIntervalSec;
    };
  }
  {
    name = "nothing waits for the overlay";
    expected = [ ];
    actual = lib.filter (
      unit:
      lib.any (name: lib.hasPrefix "undercroft-overlay" name || lib.hasPrefix "tailscale" name) (
        unit.after ++ unit.requires ++ unit.wants
      )
      && !(lib.elem "tailscale" [ ])
    ) (units router);
  }
  {
    name = "a router forwards, and takes no routes";
    expected = [
      "server"
      "none"
    ];
    actual = map (config: config.services.tailscale.useRoutingFeatures) [
      router
      (client { })
    ];
  }
  {
    name = "without a key there is a daemon, and nobody logs in";
    expected = {
      daemon = true;
      login = false;
    };
    actual =
      let
        config = client { authKeyFile = null; };
      in
      {
        daemon = config.services.tailscale.enable;
        login = config.systemd.services ? undercroft-overlay-connect;
      };
  }
  {
    name = "the control server is no client of itself";
    expected = true;
    actual = lib.any (lib.hasInfix "can't be a client of it") (
      refused (
        node [
          {
            undercroft.overlay = overlay // {
              enable = true;
              server.enable = true;
            };
          }
        ]
      )
    );
  }
  {
    name = "the server's name isn't one of the overlay's";
    expected = true;
    actual = lib.any (lib.hasInfix "holds the server's own name") (
      refused (
        node [
          {
            undercroft.overlay = overlay // {
              baseDomain = "cellar.example";
              server.enable = true;
            };
          }
        ]
      )
    );
  }
  {
    name = "Headscale as it is told";
    expected = {
      port = 443;
      address = "0.0.0.0";
      url = "https://headscale.cellar.example";
      acme = "headscale.cellar.example";
      domain = "net.cellar.example";
      local = false;
      derp = false;
      # nixpkgs' module gives it, and a second definition would be an error.
      cache = "/var/lib/headscale/.cache";
    };
    actual = {
      inherit (headscale) port address;
      cache = headscale.settings.tls_letsencrypt_cache_dir;
      url = headscale.settings.server_url;
      acme = headscale.settings.tls_letsencrypt_hostname;
      domain = headscale.settings.dns.base_domain;
      local = headscale.settings.dns.override_local_dns;
      derp = headscale.settings.derp.server.enabled;
    };
  }
  {
    name = "a plain value of one's own goes over each of Headscale's";
    expected = [
      "1h"
      [ "9.9.9.9" ]
      true
    ];
    actual =
      let
        inherit
          ((node [
            {
              undercroft.overlay = overlay // {
                server.enable = true;
              };
              services.headscale.settings = {
                dns.override_local_dns = true;
                dns.nameservers.global = [ "9.9.9.9" ];
                derp.update_frequency = "1h";
              };
            }
          ]).services.headscale
          )
          settings
          ;
      in
      [
        settings.derp.update_frequency
        settings.dns.nameservers.global
        settings.dns.override_local_dns
      ];
  }
  {
    name = "a relay of one's own takes the place of others'";
    expected = {
      enabled = true;
      urls = [ ];
      stun = [ 3478 ];
    };
    actual =
      let
        config = server { derp = true; };
      in
      {
        inherit (config.services.headscale.settings.derp.server) enabled;
        inherit (config.services.headscale.settings.derp) urls;
        stun = lib.filter (port: port == 3478) config.networking.firewall.allowedUDPPorts;
      };
  }
  {
    name = "the server's keys come from secrets where there are some";
    expected = "/run/credentials/headscale.service/noise.key";
    actual =
      (server { noiseKeyFile = "/run/secrets/noise"; }).services.headscale.settings.noise.private_key_path;
  }
]
