# The overlay's control server on a machine of the fleet, outside of the cluster: it answers whether
# the cluster does or not. SQLite, as Headscale recommends; there is no second server.
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
  overlay = config.undercroft.overlay;
  cfg = overlay.server;
  functions = import ../../lib/overlay.nix;
  package = config.services.headscale.package or pkgs.headscale;
  url = functions.url overlay.serverUrl;
  policyFile = pkgs.writeText "headscale-policy.json" (
    builtins.toJSON (
      lib.recursiveUpdate (functions.policy {
        inherit (cfg.policy) users routes;
        version = lib.getVersion package;
      }) cfg.policy.extra
    )
  );

  # Keys are handed over by systemd, so that they can belong to root.
  credential = name: "/run/credentials/headscale.service/${name}";
  credentials =
    lib.optional (cfg.noiseKeyFile != null) "noise.key:${cfg.noiseKeyFile}"
    ++ lib.optional (cfg.derp && cfg.derpKeyFile != null) "derp.key:${cfg.derpKeyFile}"
    ++ lib.optionals (cfg.tls.mode == "files") [
      "tls.crt:${cfg.tls.certFile}"
      "tls.key:${cfg.tls.keyFile}"
    ];
in
{
  imports = [ ./options.nix ];

  options.undercroft.overlay.server = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the machine runs Headscale.";
    };
    derp = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the server also relays for clients that can't reach each other. Without it they use
        Tailscale's public relays, which see encrypted packets.
      '';
    };
    policy = {
      users = mkOption {
        type = types.attrsOf (
          types.submodule {
            options = {
              email = mkOption {
                type = types.nullOr types.str;
                default = null;
                description = "Address for electronic mail.";
              };
              role = mkOption {
                type = types.enum [
                  "admin"
                  "developer"
                  "viewer"
                ];
                default = "developer";
                description = "What the person may do with the fleet.";
              };
            };
          }
        );
        default = { };
        description = "People, who become users of Headscale and members of their role's group.";
      };
      routes = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Networks that machines of the fleet may announce.";
      };
      extra = mkOption {
        type = types.attrs;
        default = { };
        description = ''
          What is laid over the policy that follows from people and networks, in Tailscale's policy
          syntax. Attribute sets are merged, lists replaced.
        '';
      };
      file = mkOption {
        type = types.path;
        readOnly = true;
        default = policyFile;
        description = "The policy as Headscale reads it.";
      };
    };
    noiseKeyFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = ''
        Path on the machine of the key that clients know the server by. Without it Headscale makes
        one, and after a reinstallation every client has to log in again.
      '';
    };
    derpKeyFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Path on the machine of the relay's key. Without it Headscale makes one.";
    };
    tls = {
      mode = mkOption {
        type = types.enum [
          "acme"
          "files"
          "proxy"
        ];
        default = if url.scheme == "https" then "acme" else "proxy";
        defaultText = lib.literalExpression ''"acme" with an https serverUrl, else "proxy"'';
        description = ''
          Who ends TLS. "acme": Headscale itself, with a certificate from Let's Encrypt (TLS-ALPN-01:
          the server's port must be reached from the internet as 443). "files": Headscale itself, with a
          certificate of one's own, which clients must trust. "proxy": somebody else, before it;
          Headscale listens on the loopback interface.
        '';
      };
      email = mkOption {
        type = types.str;
        default = "";
        description = "Address that Let's Encrypt may write to.";
      };
      certFile = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "Path on the machine of the certificate, where `mode` is files.";
      };
      keyFile = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "Path on the machine of its key, where `mode` is files.";
      };
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = overlay.kind == "headscale" && overlay.serverUrl != null;
          message = "undercroft.overlay.server.enable needs undercroft.overlay.kind = headscale and a serverUrl.";
        }
        {
          assertion = cfg.tls.mode == "files" -> cfg.tls.certFile != null && cfg.tls.keyFile != null;
          message = "undercroft.overlay.server.tls.mode is files, but certFile and keyFile aren't both set.";
        }
        {
          assertion = overlay.baseDomain == null || !(functions.within overlay.baseDomain url.host);
          message = ''
            undercroft.overlay.baseDomain (${toString overlay.baseDomain}) holds the server's own name
            (${url.host}): clients would ask the overlay for the server that makes it. Give the
            overlay a domain of its own.
          '';
        }
        {
          assertion = cfg.derp -> url.scheme == "https";
          message = "undercroft.overlay.server.derp needs a serverUrl with https.";
        }
      ];

      services.headscale = {
        enable = true;
        address = mkDefault (if cfg.tls.mode == "proxy" then "127.0.0.1" else "0.0.0.0");
        port = mkDefault (if cfg.tls.mode == "proxy" then 8080 else url.port);
        # Each value by itself may be another's.
        settings = lib.mapAttrsRecursive (_: mkDefault) (
          {
            server_url = overlay.serverUrl;
            prefixes.v4 = overlay.cidr;
            # Everything that Headscale has to remember lies in one folder, for backups.
            database = {
              type = "sqlite";
              sqlite.path = "/var/lib/headscale/db.sqlite";
              sqlite.write_ahead_log = true;
            };
            policy = {
              mode = "file";
              path = "${cfg.policy.file}";
            };
            dns = {
              magic_dns = overlay.baseDomain != null;
              base_domain = if overlay.baseDomain != null then overlay.baseDomain else "";
              # Clients keep their own resolvers; only the overlay's names are asked of it.
              override_local_dns = false;
            };
            derp = {
              server = {
                enabled = cfg.derp;
              }
              // lib.optionalAttrs cfg.derp {
                region_id = 999;
                region_code = config.undercroft.fleet.name;
                region_name = config.undercroft.fleet.name;
                stun_listen_addr = "0.0.0.0:3478";
                verify_clients = true;
                private_key_path =
                  if cfg.derpKeyFile != null then credential "derp.key" else "/var/lib/headscale/derp_server_private.key";
              };
              urls = if cfg.derp then [ ] else [ "https://controlplane.tailscale.com/derpmap/default" ];
            };
            noise.private_key_path =
              if cfg.noiseKeyFile != null then credential "noise.key" else "/var/lib/headscale/noise_private.key";
            disable_check_updates = true;
            logtail.enabled = false;
          }
          // lib.optionalAttrs (cfg.tls.mode == "acme") {
            acme_email = cfg.tls.email;
            tls_letsencrypt_hostname = url.host;
            tls_letsencrypt_challenge_type = "TLS-ALPN-01";
          }
          // lib.optionalAttrs (cfg.tls.mode == "files") {
            tls_cert_path = credential "tls.crt";
            tls_key_path = credential "tls.key";
          }
        );
      };
      systemd.services.headscale.serviceConfig.LoadCredential = mkIf (
        credentials != [ ]
      ) credentials;

      networking.firewall.allowedTCPPorts = mkIf (cfg.tls.mode != "proxy") [ config.services.headscale.port ];
      networking.firewall.allowedUDPPorts = mkIf cfg.derp [ 3478 ];

      systemd.services.undercroft-headscale-users = {
        description = "Make the inventory's people users of Headscale";
        wantedBy = [ "multi-user.target" ];
        requires = [ "headscale.service" ];
        after = [ "headscale.service" ];
        path = [
          package
          pkgs.coreutils
          pkgs.jq
        ];
        environment = {
          USERS = lib.concatStringsSep " " (lib.attrNames cfg.policy.users);
          WAIT_S = "60";
        };
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${pkgs.runtimeShell} ${../scripts/headscale-users.sh}";
          User = config.services.headscale.user;
          Group = config.services.headscale.group;
          TimeoutStartSec = 180;
          # It only talks to the server's socket.
          NoNewPrivileges = true;
          CapabilityBoundingSet = "";
          ProtectSystem = "strict";
          ProtectHome = true;
          PrivateTmp = true;
          PrivateDevices = true;
          PrivateNetwork = true;
          RestrictAddressFamilies = "AF_UNIX";
          UMask = "0077";
        };
      };

      undercroft.health.checks.headscale = {
        description = "The overlay's control server answers";
        script = ''
          ${package}/bin/headscale users list --output json >/dev/null
        '';
      };
    }
  ]);
}
