# The people who may administer the machine, each under a name of their own.
{ config, lib, ... }:
let
  admins = lib.filterAttrs (_: user: user.role == "admin") config.undercroft.users;

  user = lib.types.submodule {
    options = {
      fullName = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        description = "The name as people write it.";
      };
      email = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        description = "Address for electronic mail.";
      };
      role = lib.mkOption {
        type = lib.types.enum [
          "admin"
          "developer"
          "viewer"
        ];
        default = "developer";
        description = "What the person may do with the fleet. Only admins get an account on a node.";
      };
      sshKeys = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "SSH public keys.";
      };
    };
  };
in
{
  options.undercroft.users = lib.mkOption {
    type = lib.types.attrsOf user;
    default = { };
    description = "People, by the name of their account.";
  };

  config = {
    # Accounts are what the repository says: one that was taken out of it is gone after the switch.
    users.mutableUsers = lib.mkDefault false;
    users.users = lib.mapAttrs (_: person: {
      isNormalUser = true;
      description = lib.mkIf (person.fullName != null) person.fullName;
      extraGroups = [ "wheel" ];
      openssh.authorizedKeys.keys = person.sshKeys;
    }) admins;
    # No account has a password, so sudo can't ask for one; the SSH key is what proves the person.
    security.sudo.wheelNeedsPassword = lib.mkDefault false;
  };
}
