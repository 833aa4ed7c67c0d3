# modules/boot.nix, compat.nix, disks.nix, ssh.nix: what came after 20.09.
{ lib }:
let
  inherit (lib) mkOption types;
  bool =
    default:
    mkOption {
      type = types.bool;
      inherit default;
    };
  lines = mkOption {
    type = types.lines;
    default = "";
  };
  section = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };
in
{
  "boot.loader.systemd-boot.extraInstallCommands" = lines;
  "boot.loader.systemd-boot.bootCounting.enable" = {
    since = "26.11";
    option = bool false;
  };

  "services.openssh.settings.PasswordAuthentication" = bool true;
  "services.openssh.settings.KbdInteractiveAuthentication" = bool true;
  "services.openssh.settings.X11Forwarding" = bool false;
  "services.openssh.settings.PermitRootLogin" = mkOption {
    type = types.nullOr (
      types.enum [
        "yes"
        "without-password"
        "prohibit-password"
        "forced-commands-only"
        "no"
      ]
    );
    default = "prohibit-password";
  };

  "nix.gc.randomizedDelaySec" = mkOption {
    type = types.singleLineStr;
    default = "0";
  };

  "services.logind.settings.Login" = {
    since = "25.11";
    option = section;
  };
  "systemd.settings.Manager" = {
    since = "25.11";
    option = section;
  };
  "services.resolved.settings.Resolve" = {
    since = "26.05";
    option = section;
  };
  "systemd.network.config.networkConfig" = section;
  "systemd.network.wait-online.anyInterface" = bool false;
}
