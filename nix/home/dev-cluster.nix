# A cluster on the PC (k3d) with the fleet's own manifests, made by `undercroft dev config`.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (config.undercroft) pc;

  fleetDev = pkgs.writeShellScriptBin "fleet-dev" ''
    export PATH=${lib.makeBinPath ([ pkgs.k3d ] ++ lib.optional (pc.package != null) pc.package)}:"$PATH"
    export PC_NAME=${lib.escapeShellArg pc.name}
    export DEFAULT_REPOSITORY=${lib.optionalString (pc.repository != null) (lib.escapeShellArg pc.repository)}
    ${builtins.readFile ./fleet-dev.sh}
  '';
in
{
  config = lib.mkIf pc.devCluster {
    home.packages = [
      pkgs.k3d
      fleetDev
    ];
  };
}
