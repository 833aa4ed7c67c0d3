# A Mac of the fleet's people, by nix-darwin: its name, its accounts, the overlay's client. What
# is a person's own, lending among it, is in their home (../home).
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault mkIf mkOption types;
  cfg = config.undercroft;
in
{
  imports = [ ../home/options.nix ];

  options.undercroft.users = mkOption {
    type = types.attrsOf (
      types.submodule {
        options = {
          fullName = mkOption {
            type = types.nullOr types.str;
            default = null;
            description = "The name as people write it.";
          };
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
          sshKeys = mkOption {
            type = types.listOf types.str;
            default = [ ];
            description = "SSH public keys.";
          };
        };
      }
    );
    default = { };
    description = "People who work on the PC.";
  };

  config = {
    assertions = [
      {
        assertion = cfg.pc.os == "macos";
        message = "${cfg.pc.name}: nix-darwin is for PCs whose os is macos, and this one's is ${cfg.pc.os}.";
      }
    ];

    networking.hostName = mkDefault cfg.pc.name;
    networking.computerName = mkDefault cfg.pc.name;
    system.primaryUser = mkIf (cfg.pc.owner != null) (mkDefault cfg.pc.owner);

    # Accounts are macOS' own: they are described here, and neither made nor deleted, which
    # nix-darwin does only for users.knownUsers.
    users.users = lib.mapAttrs (
      name: person:
      {
        home = mkDefault "/Users/${name}";
        openssh.authorizedKeys.keys = person.sshKeys;
      }
      // lib.optionalAttrs (person.fullName != null) { description = mkDefault person.fullName; }
    ) cfg.users;

    services.tailscale.enable = mkIf cfg.overlay.enable (mkDefault true);
    environment.systemPackages = lib.optional (cfg.pc.package != null) cfg.pc.package;

    nix.settings.experimental-features = mkDefault [
      "nix-command"
      "flakes"
    ];
    # The number of nix-darwin's own defaults, which isn't NixOS' release.
    system.stateVersion = mkDefault 6;
  };
}
