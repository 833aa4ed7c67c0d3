# SSH: keys only, and the host key that was made when the machine was planned.
{ config, lib, ... }:
let
  cfg = config.undercroft.ssh;
in
{
  options.undercroft.ssh = {
    rootKeys = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "SSH public keys that may log in as root.";
    };
    hostKeyPath = lib.mkOption {
      type = lib.types.str;
      default = (import ../lib).onMachine.hostKey;
      description = ''
        Where the machine's host key lies. It is delivered before the first boot, the controller
        pins it, and the machine's secrets are encrypted to it: it has to be on a file system that
        is there before secrets are decrypted.
      '';
    };
  };

  config = {
    assertions = [
      {
        assertion = cfg.rootKeys != [ ];
        message = ''
          undercroft.ssh.rootKeys is empty: nobody could log in to this machine, as no account has a
          password. Name keys in fleet.admin_keys, or run `undercroft plan` once, which writes
          facts/operators.pub (git must know of that file).
        '';
      }
      {
        assertion = !lib.any (folder: lib.hasPrefix folder cfg.hostKeyPath) [
          "/run/"
          builtins.storeDir
        ];
        message = "undercroft.ssh.hostKeyPath has to outlive a reboot and must not be in the Nix store.";
      }
    ];

    services.openssh = {
      enable = true;
      # Only the delivered key: a second one, made by the machine itself, is one that nobody pinned.
      hostKeys = [
        {
          type = "ed25519";
          path = cfg.hostKeyPath;
        }
      ];
      settings = {
        PasswordAuthentication = false;
        KbdInteractiveAuthentication = false;
        PermitRootLogin = lib.mkDefault "prohibit-password";
        X11Forwarding = lib.mkDefault false;
      };
    };

    users.users.root.openssh.authorizedKeys.keys = cfg.rootKeys;
  };
}
