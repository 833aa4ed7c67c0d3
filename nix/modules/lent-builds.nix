# Builds of this machine's Nix, brought to lent PCs: `external-builders`, an experimental feature
# of Nix 2.31 and later.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.undercroft.lending;
  inherit (cfg) builds;
  text = default: description: mkOption {
    type = types.nullOr types.str;
    inherit default description;
  };
  count = default: description: mkOption {
    type = types.ints.positive;
    inherit default description;
  };

  cache = "/var/cache/undercroft-lent-builds";

  # `undercroft lend build` reads it: crates/lending, nix/settings.rs, has the same names.
  settings = pkgs.writeText "undercroft-lent-builds.json" (
    builtins.toJSON (
      {
        version = 1;
        natsUrl = builds.url;
        inherit (builds)
          keyFile
          submitter
          tenant
          waitS
          limits
          ;
        cacheDirectory = cache;
        bwrap = "${pkgs.bubblewrap}/bin/bwrap";
        shell = "${pkgs.busybox-sandbox-shell}/bin/busybox";
      }
      // lib.optionalAttrs (builds.caFile != null) { inherit (builds) caFile; }
      // lib.optionalAttrs (builds.sensitivity != null) { inherit (builds) sensitivity; }
    )
  );
in
{
  options.undercroft.lending.builds = {
    enable = lib.mkEnableOption "bringing this machine's builds of Nix to lent PCs";
    package = mkOption {
      type = types.package;
      description = "The command `undercroft`.";
    };
    systems = mkOption {
      type = types.listOf types.str;
      default = [ pkgs.stdenv.hostPlatform.system ];
      defaultText = "this machine's own";
      description = ''
        The kinds of builds. What no PC builds is built here, so that this machine has to be able
        to.
      '';
    };
    url = mkOption {
      type = types.str;
      default = if cfg.natsUrl == null then "" else cfg.natsUrl;
      defaultText = "lending.nats_url";
      description = "URL of the NATS server.";
    };
    submitter = mkOption {
      type = types.str;
      description = "The name under `[lending.submitters]`.";
    };
    tenant = mkOption {
      type = types.str;
      description = "For whom builds are.";
    };
    sensitivity = mkOption {
      type = types.nullOr (
        types.enum [
          "public"
          "internal"
        ]
      );
      default = null;
      description = ''
        How sensitive builds are, with all that they are built from. Unstated they are secret, and
        none is lent.
      '';
    };
    keyFile = mkOption {
      type = types.str;
      description = ''
        Path on the machine of the submitter's key: root's, mode 0440, of the group `nixbld`, as
        builds run as its
        users.
      '';
    };
    caFile = text null ''
      Path on the machine of the certificate of the authority that signed NATS'. Without it, those
      of the system are
      believed.
    '';
    waitS = count 5 "Seconds for which a build waits until a PC begins.";
    limits = {
      cpu_percent = count 400 "Processors of one build, in percent of one.";
      memory_mb = count 4096 "Memory of one build, in MiB.";
      disk_mb = count 8192 "Disk of one build, in MiB.";
      wall_s = count 3600 "Seconds that one build may take on a PC.";
    };
  };

  config = mkIf builds.enable {
    assertions = [
      {
        assertion = cfg.enable;
        message = "undercroft.lending.builds: this fleet doesn't lend; set lending.enabled in the inventory.";
      }
      {
        assertion = builds.url != "";
        message = "undercroft.lending.builds: there is no NATS server; set lending.nats_url in the inventory.";
      }
    ];
    # Builds run as the users of that group, and none of them may change what another has written.
    systemd.tmpfiles.rules = [ "d ${cache} 1770 root nixbld 60d" ];
    nix.settings = {
      extra-experimental-features = [ "external-builders" ];
      external-builders = builtins.toJSON [
        {
          inherit (builds) systems;
          program = "${builds.package}/bin/undercroft";
          args = [
            "lend"
            "build"
            "--config"
            "${settings}"
          ];
        }
      ];
    };
  };
}
