# A Windows PC of the fleet's people: NixOS under WSL2, by NixOS-WSL. What is a person's own,
# lending among it, is in their home (../home).
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkDefault mkIf mkOption types;
  cfg = config.undercroft;
in
{
  imports = [
    ../home/options.nix
    ../modules/users.nix
  ];

  options.undercroft.overlay.inWsl = mkOption {
    type = types.bool;
    default = false;
    description = ''
      Whether Tailscale runs inside of WSL. Usually it runs on Windows, whose network WSL uses; two
      clients on one PC send each packet through both.
    '';
  };

  config = {
    assertions = [
      {
        assertion = cfg.pc.os == "windows-wsl2";
        message = "${cfg.pc.name}: this module is for PCs whose os is windows-wsl2, and this one's is ${cfg.pc.os}.";
      }
      {
        assertion = cfg.pc.owner != null;
        message = "${cfg.pc.name} has no users: the first of pcs.${cfg.pc.name}.users is whom WSL starts as.";
      }
    ];

    wsl.enable = true;
    wsl.defaultUser = mkIf (cfg.pc.owner != null) (mkDefault cfg.pc.owner);

    # Lent work must not see the Windows side: no drives, no Windows programs. An owner who needs
    # both in this distribution lends from another one.
    wsl.wslConf = mkIf cfg.lend.enable {
      automount.enabled = mkDefault false;
      interop.enabled = mkDefault false;
      interop.appendWindowsPath = mkDefault false;
    };

    networking.hostName = mkDefault cfg.pc.name;
    system.stateVersion = mkDefault cfg.pc.stateVersion;
    nix.settings.experimental-features = mkDefault [
      "nix-command"
      "flakes"
    ];

    # Everybody who works on the PC has an account in it, whatever they may do on the machines.
    users.users = lib.mapAttrs (_: person: {
      isNormalUser = true;
      description = mkIf (person.fullName != null) person.fullName;
      openssh.authorizedKeys.keys = person.sshKeys;
    }) cfg.users;
    # The owner's services go on when the last terminal is closed, as by `loginctl enable-linger`.
    systemd.tmpfiles.rules = mkIf (cfg.lend.enable && cfg.pc.owner != null) [
      "f /var/lib/systemd/linger/${cfg.pc.owner} 0644 root root -"
    ];
    # On one's own PC one may change the password that one hasn't got.
    users.mutableUsers = lib.mkOverride 900 true;

    services.tailscale.enable = mkIf (cfg.overlay.enable && cfg.overlay.inWsl) (mkDefault true);
    environment.systemPackages = lib.optional (cfg.pc.package != null) cfg.pc.package;
  };
}
