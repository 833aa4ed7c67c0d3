# Machines that record cameras to their data disk.
#
# A class's module is an ordinary NixOS module: options where its machines differ, configuration,
# and a check by which a machine says that it is what it should be.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.cellar.recorder;
  disk = lib.head config.undercroft.disks.data;
  recordings = "/data/${disk.serial}/recordings";
in
{
  options.cellar.recorder.keepDays = lib.mkOption {
    type = lib.types.ints.positive;
    default = 14;
    description = "Days for which recordings are kept.";
  };

  config = {
    assertions = [
      {
        assertion = config.undercroft.disks.data != [ ];
        message = "${config.undercroft.node.name} is a recorder, and has no disk whose role is data.";
      }
    ];

    users.groups.recorder = { };
    users.users.recorder = {
      isSystemUser = true;
      group = "recorder";
      extraGroups = [ "video" ];
    };

    systemd.tmpfiles.rules = [
      "d ${recordings} 0750 recorder recorder ${toString cfg.keepDays}d"
    ];
    systemd.services.recorder = {
      description = "Record the cameras";
      wantedBy = [ "multi-user.target" ];
      unitConfig.RequiresMountsFor = recordings;
      serviceConfig = {
        ExecStart = "${pkgs.ffmpeg}/bin/ffmpeg -f v4l2 -i /dev/video0 -f segment -segment_time 600 -strftime 1 ${recordings}/%%Y-%%m-%%dT%%H-%%M-%%S.mkv";
        User = "recorder";
        Restart = "always";
        RestartSec = 5;
      };
    };

    # Reports, and the gate that a new generation has to pass, read this by itself.
    undercroft.health.checks.recorder = {
      description = "A recording of the last quarter of an hour is there";
      script = ''
        found=$(${pkgs.findutils}/bin/find ${recordings} -name '*.mkv' -mmin -15 -print -quit)
        [ -n "$found" ] || { echo "${recordings} has no new recording"; exit 1; }
      '';
    };

    # Whatever Undercroft sets is a default of the module system: here, no node exporter.
    undercroft.observability.nodeExporter.enable = false;
  };
}
