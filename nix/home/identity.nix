# Who the person is: the account, and the name that git writes.
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
  inherit (cfg) user;
  darwin = pkgs.stdenv.hostPlatform.isDarwin;
  identity =
    lib.optionalAttrs (user.fullName != null) { name = mkDefault user.fullName; }
    // lib.optionalAttrs (user.email != null) { email = mkDefault user.email; };
in
{
  options.undercroft.user = {
    name = mkOption {
      type = types.str;
      description = "Name of the account.";
    };
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

  config = {
    home.username = mkDefault user.name;
    home.homeDirectory = mkDefault (if darwin then "/Users/${user.name}" else "/home/${user.name}");
    home.stateVersion = mkDefault cfg.pc.stateVersion;
    # A home of its own has to bring the command that changes it.
    programs.home-manager.enable = mkDefault true;

    programs.git = {
      enable = mkDefault true;
    }
    # 25.11 turned userName and userEmail into settings.user.
    // (
      if options.programs.git ? settings then
        { settings.user = identity; }
      else
        {
          userName = mkIf (user.fullName != null) (mkDefault user.fullName);
          userEmail = mkIf (user.email != null) (mkDefault user.email);
        }
    );
  };
}
