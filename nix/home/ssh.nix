# SSH to the machines of the fleet by name, each with the host key that the repository has for it.
#
# The person's own ~/.ssh/config stays theirs: what is made here is a file beside it, to be
# included.
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf mkOption types;
  cfg = config.undercroft.ssh;
  inherit (config.undercroft) nodes fleet user;

  folder = "undercroft";
  names = lib.attrNames nodes;
  withDomain = name: lib.optional (fleet.domain != null) "${name}.${fleet.domain}";

  # A key's first two words are its type and itself; what follows is a comment.
  key = text: lib.concatStringsSep " " (lib.take 2 (lib.splitString " " (lib.trim text)));
  knownHosts = lib.concatMapStrings (
    name:
    let
      node = nodes.${name};
    in
    lib.optionalString (node.hostKey != null) ''
      ${lib.concatStringsSep "," ([ name ] ++ withDomain name ++ [ node.address ])} ${key node.hostKey}
    ''
  ) names;

  hosts = lib.concatMapStrings (name: ''
    Host ${lib.concatStringsSep " " ([ name ] ++ withDomain name)}
      HostName ${nodes.${name}.address}
      HostKeyAlias ${name}
      User ${if user.role == "admin" then cfg.adminUser else user.name}
      UserKnownHostsFile ${config.xdg.configHome}/${folder}/known_hosts
      StrictHostKeyChecking yes

  '') names;
in
{
  options.undercroft.ssh = {
    enable = mkOption {
      type = types.bool;
      default = nodes != { };
      defaultText = lib.literalExpression "whether the machines are known";
      description = ''
        Whether ~/.config/undercroft/ssh_config and known_hosts are written. They take effect by
        `Include ~/.config/undercroft/ssh_config` in ~/.ssh/config, which Home Manager writes where
        `programs.ssh.enable` is true.
      '';
    };
    adminUser = mkOption {
      type = types.str;
      default = user.name;
      defaultText = lib.literalExpression "undercroft.user.name";
      description = "Account that an admin logs in to.";
      example = "root";
    };
  };

  config = mkIf cfg.enable {
    xdg.configFile."${folder}/ssh_config".text = hosts;
    xdg.configFile."${folder}/known_hosts".text = knownHosts;
    programs.ssh.includes = [ "${config.xdg.configHome}/${folder}/ssh_config" ];
    xdg.enable = mkDefault true;
  };
}
