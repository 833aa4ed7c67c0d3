# modules/overlay: all of services.headscale, and what services.tailscale has had since 23.05.
{ lib }:
let
  inherit (lib) mkOption types;
  string = default: mkOption {
    type = types.str;
    inherit default;
  };
in
{
  "services.tailscale.useRoutingFeatures" = mkOption {
    type = types.enum [
      "none"
      "client"
      "server"
      "both"
    ];
    default = "none";
  };
  "services.headscale.enable" = mkOption {
    type = types.bool;
    default = false;
  };
  "services.headscale.address" = string "127.0.0.1";
  "services.headscale.port" = mkOption {
    type = types.port;
    default = 8080;
  };
  "services.headscale.user" = string "headscale";
  "services.headscale.group" = string "headscale";
  # With what the module itself sets there, so that a second definition of ours is found.
  "services.headscale.settings" = mkOption {
    type = types.submodule {
      freeformType = types.attrsOf types.anything;
      options = {
        noise.private_key_path = mkOption { type = types.path; };
        derp.server.private_key_path = mkOption {
          type = types.path;
          default = "/var/lib/headscale/derp_server_private.key";
        };
        policy.path = mkOption {
          type = types.nullOr types.path;
          default = null;
        };
        tls_letsencrypt_challenge_type = mkOption {
          type = types.enum [
            "TLS-ALPN-01"
            "HTTP-01"
          ];
          default = "HTTP-01";
        };
      };
      config = {
        disable_check_updates = true;
        unix_socket = "/run/headscale/headscale.sock";
        tls_letsencrypt_cache_dir = "/var/lib/headscale/.cache";
      };
    };
    default = { };
  };
}
