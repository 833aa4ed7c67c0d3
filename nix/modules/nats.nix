# The message system on a machine of the fleet, outside of the cluster. Usually it runs in the
# cluster, as a component of the GitOps tree, and this stays off; a fleet without Kubernetes, or one
# whose lending should outlive its cluster, has it here.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib) mkDefault mkIf mkOption types;
  cfg = config.undercroft.nats;
  functions = import ../lib/nats.nix;
  tls = cfg.tls.certFile != null;
  credential = name: "/run/credentials/nats.service/${name}";

  # A public key of NATS' kind for users: U and 55 characters of base 32.
  keyed = default: description: mkOption {
    type = types.attrsOf (
      types.submodule {
        options.nkey = mkOption {
          type = types.strMatching "U[A-Z2-7]{55}";
          description = "Public nkey.";
        };
      }
    );
    inherit default description;
  };
  nkeys = builtins.mapAttrs (_: who: { inherit (who) nkey; });
  inherit (config.undercroft) lending;
in
{
  options.undercroft.nats = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the machine runs a NATS server.";
    };
    port = mkOption {
      type = types.port;
      default = 4222;
      description = "TCP port.";
    };
    account = mkOption {
      type = types.strMatching "[A-Z0-9_]+";
      default = lending.account;
      description = "Account that lent work is confined to.";
    };
    devices = keyed (nkeys lending.devices) ''
      Lent PCs and their public keys. Each may only ask for work, take what is assigned to it, and
      give its own results; it sees nothing of another's.
    '';
    submitters = keyed (nkeys lending.submitters) ''
      Those who bring work. Each has one subject and an inbox.
    '';
    services = keyed (lib.optionalAttrs (lending.serverKey != null) {
      lend-server.nkey = lending.serverKey;
    }) "Services that administer the account: the server of lending.";
    administrators = keyed { } "Users of the system account, who see the server's own events.";
    tls = {
      certFile = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "Path on the machine of the certificate. Without it there is no TLS.";
      };
      keyFile = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "Path on the machine of the certificate's key.";
      };
    };
    allowPlain = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the server may listen without TLS beyond the loopback interface. nkeys prove who
        somebody is, and hide nothing of what is said.
      '';
    };
    maxMemory = mkOption {
      type = types.str;
      default = "256M";
      description = "Most memory of JetStream's streams.";
    };
    maxStore = mkOption {
      type = types.str;
      default = "10G";
      description = "Most disk space of JetStream's streams.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = (cfg.tls.certFile != null) == (cfg.tls.keyFile != null);
        message = "undercroft.nats.tls: certFile and keyFile go together.";
      }
      {
        assertion = cfg.account != "SYS";
        message = "undercroft.nats.account: SYS is the server's own account.";
      }
    ];

    services.nats = {
      enable = true;
      serverName = config.undercroft.node.name;
      jetstream = true;
      inherit (cfg) port;
      settings = {
        host = mkDefault (if tls || cfg.allowPlain then "0.0.0.0" else "127.0.0.1");
        accounts = functions.accounts {
          inherit (cfg)
            account
            devices
            services
            submitters
            ;
          system = cfg.administrators;
        };
        system_account = "SYS";
        jetstream = {
          max_memory_store = mkDefault cfg.maxMemory;
          max_file_store = mkDefault cfg.maxStore;
          # What was acknowledged outlives a power cut, too: as it comes, NATS syncs every two
          # minutes, and relies on other servers of its cluster for what is lost between.
          sync_interval = mkDefault "always";
        };
        # Loopback alone: the numbers name accounts and connections.
        http = mkDefault "127.0.0.1:8222";
        max_payload = mkDefault 1048576;
        ping_interval = mkDefault "20s";
        write_deadline = mkDefault "10s";
      }
      // lib.optionalAttrs tls {
        tls = {
          cert_file = credential "tls.crt";
          key_file = credential "tls.key";
          timeout = 5;
        };
      };
    }
    # Where NixOS checks the configuration while it builds, the credentials aren't there yet.
    // lib.optionalAttrs (options.services.nats ? validateConfig) { validateConfig = !tls; };

    systemd.services.nats.serviceConfig.LoadCredential = mkIf tls [
      "tls.crt:${cfg.tls.certFile}"
      "tls.key:${cfg.tls.keyFile}"
    ];
    networking.firewall.allowedTCPPorts = mkIf (tls || cfg.allowPlain) [ cfg.port ];

    undercroft.health.checks.nats = {
      description = "The message system answers";
      # The server's greeting, without a client of its own: bash opens the connection.
      script = ''
        exec 3<>/dev/tcp/127.0.0.1/${toString cfg.port}
        read -r -t 5 greeting <&3
        case $greeting in
          "INFO "*) echo "nats-server answers" ;;
          *) echo "port ${toString cfg.port} answers, but not as NATS: $greeting"; exit 1 ;;
        esac
      '';
    };
  };
}
