# Secrets of the host, by sops-nix: encrypted in the repository and in the Nix store, decrypted into
# memory with the machine's own host key. Applications' secrets are the cluster's business; with
# sealed-secrets or Vault those change, and what stands here stays.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.undercroft.secrets;
  kubernetes = config.undercroft.kubernetes;
  overlay = config.undercroft.overlay or { enable = false; };
  overlayServer = overlay.server or { enable = false; };
  isServer = kubernetes.role == "server";

  active = cfg.enable && cfg.directory != null;

  source = file: cfg.directory + "/${file}.sops.yaml";
  isThere = file: active && builtins.pathExists (source file);

  # A file that sops wrote: it ends in sops' own table, and every value before that is encrypted.
  # Someone who edits such a file without sops leaves a secret in plain text in the repository, and
  # from there in the Nix store, which everybody on the machine can read.
  plainLines =
    file:
    let
      lines = lib.splitString "\n" (builtins.readFile (source file));
      table = lib.lists.findFirstIndex (line: line == "sops:") null lines;
      isPlain =
        line:
        let
          value = builtins.match "[[:space:]]*[^#:[:space:]][^:]*:[[:space:]]+([^[:space:]].*)" line;
          # A line of a block that isn't a key: only plain text has such.
          bare = builtins.match "[[:space:]]*([^#[:space:]:]+|.*[^:])" line;
        in
        if line == "---" || builtins.match "[[:space:]]*(#.*)?" line != null then
          false
        else if value != null then
          !lib.hasPrefix "ENC[" (lib.head value)
        else
          bare != null;
    in
    if table == null then
      [ "the table of sops" ]
    else
      map (_: "a value") (lib.filter isPlain (lib.take table lines));

  files = lib.unique (map (one: one.file) (lib.attrValues cfg.wanted));

  # The files of the overlay are made when a person has a key for it: until then the machine is
  # without.
  wanted =
    (import ../lib).secrets.cluster { inherit kubernetes; }
    // lib.filterAttrs (_: secret: isThere secret.file) (
      (import ../lib).secrets.overlay {
        overlay = {
          enable = overlay.enable or false;
          server = {
            enable = overlayServer.enable or false;
            derp = overlayServer.derp or false;
          };
        };
      }
    );

  has = name: cfg.wanted ? ${name};
  path = name: "${cfg.runtime}/${name}";

  one = lib.types.submodule {
    options = {
      file = lib.mkOption {
        type = lib.types.str;
        description = "File of `directory` that has it, without .sops.yaml.";
        example = "servers";
      };
      mode = lib.mkOption {
        type = lib.types.str;
        default = "0400";
        description = "Permissions of the decrypted file.";
      };
      owner = lib.mkOption {
        type = lib.types.str;
        default = "root";
        description = "Owner of the decrypted file.";
      };
      neededForUsers = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether it is a password's hash, which has to be there before accounts are made.";
      };
      restartUnits = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "Units that are started anew when it changes.";
      };
    };
  };
in
{
  options.undercroft.secrets = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether the machine decrypts secrets of the repository, where there are any.";
    };
    backend = lib.mkOption {
      type = lib.types.enum [
        "sops"
        "sealed-secrets"
        "vault"
      ];
      default = "sops";
      description = "What keeps the applications' secrets. The host's own are sops' with each of them.";
    };
    directory = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      description = "Folder of the repository with the encrypted files. Null where there is none yet.";
    };
    runtime = lib.mkOption {
      type = lib.types.str;
      default = "/run/secrets";
      readOnly = true;
      description = "Where the decrypted files lie, in memory.";
    };
    wanted = lib.mkOption {
      type = lib.types.attrsOf one;
      default = { };
      description = "Secrets that the machine decrypts, by their names in the files: `k3s/server_token`.";
    };
  };

  config = lib.mkMerge [
    (lib.mkIf active {
      undercroft.secrets.wanted = wanted;

      assertions = [
        {
          assertion = options ? sops;
          message = "undercroft.secrets needs sops-nix: add its NixOS module to this configuration.";
        }
      ]
      ++ map (file: {
        assertion = builtins.pathExists (source file);
        message = ''
          ${baseNameOf (source file)} isn't in ${toString cfg.directory}, and this machine needs it. Run
          `undercroft secrets init`, and see that git knows of the file: a flake sees no other.
        '';
      }) files
      ++ map (file: {
        # What is wrong is named by its kind alone: the message must not show the secret.
        assertion = !builtins.pathExists (source file) || plainLines file == [ ];
        message = ''
          ${baseNameOf (source file)} isn't encrypted:
          ${lib.concatStringsSep ", " (lib.unique (plainLines file))} is in plain text or missing.
          Take the file out of git's history, encrypt it with sops, and rotate what was in it.
        '';
      }) files;

      undercroft.kubernetes.tokenFile = lib.mkIf (has "k3s/agent_token") (
        lib.mkDefault (path (if isServer then "k3s/server_token" else "k3s/agent_token"))
      );
      undercroft.kubernetes.agentTokenFile = lib.mkIf (has "k3s/agent_token" && isServer) (
        lib.mkDefault (path "k3s/agent_token")
      );
      undercroft.kubernetes.snapshot.recipientFile = lib.mkIf (has "etcd/snapshot_recipient") (
        lib.mkDefault (path "etcd/snapshot_recipient")
      );
    })

    (lib.optionalAttrs (options.undercroft ? overlay) {
      undercroft.overlay = {
        authKeyFile = lib.mkIf (active && has "tailscale/auth_key") (
          lib.mkDefault (path "tailscale/auth_key")
        );
        server.noiseKeyFile = lib.mkIf (active && has "headscale/noise_private.key") (
          lib.mkDefault (path "headscale/noise_private.key")
        );
        server.derpKeyFile = lib.mkIf (active && has "headscale/derp_private.key") (
          lib.mkDefault (path "headscale/derp_private.key")
        );
      };
    })

    (lib.optionalAttrs (options ? sops) {
      sops = lib.mkIf (active && cfg.wanted != { }) {
        # The machine's one identity. It lies on the root file system, which is there before
        # anything is decrypted.
        age.sshKeyPaths = [ config.undercroft.ssh.hostKeyPath ];
        gnupg.sshKeyPaths = [ ];
        secrets = lib.mapAttrs (name: secret: {
          sopsFile = source secret.file;
          key = name;
          inherit (secret)
            mode
            owner
            neededForUsers
            restartUnits
            ;
        }) (lib.filterAttrs (_: secret: builtins.pathExists (source secret.file)) cfg.wanted);
      };
    })

    {
      warnings = lib.optional (kubernetes.enable && !active && kubernetes.tokenFile == null) ''
        ${config.networking.hostName} is part of a cluster and has no secrets: it can't join. Run
        `undercroft secrets init`, or set undercroft.kubernetes.tokenFile.
      '';
    }
  ];
}
