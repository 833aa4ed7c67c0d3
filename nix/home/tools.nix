# Tools for the fleet and its cluster.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.undercroft.tools;
  inherit (config.undercroft) pc overlay;

  # tailscaled is the operating system's to start: the person runs this once.
  overlayUp = pkgs.writeShellScriptBin "fleet-overlay-up" ''
    set -eu
    if ! command -v tailscale >/dev/null; then
      echo "tailscale isn't installed. On Linux take the distribution's package, on Windows and macOS Tailscale's own." >&2
      exit 1
    fi
    exec sudo tailscale up --hostname=${lib.escapeShellArg pc.name} \
      ${lib.optionalString (overlay.serverUrl != null) "--login-server=${lib.escapeShellArg overlay.serverUrl}"} "$@"
  '';
in
{
  options.undercroft.tools = {
    enable = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the tools are installed.";
    };
    packages = mkOption {
      type = types.listOf types.package;
      default = [
        pkgs.age
        pkgs.argocd
        pkgs.git
        pkgs.jq
        pkgs.k9s
        pkgs.kubectl
        pkgs.kubernetes-helm
        pkgs.sops
      ];
      defaultText = lib.literalExpression "age, argocd, git, jq, k9s, kubectl, kubernetes-helm, sops";
      description = "The tools.";
    };
  };

  config.home.packages = lib.mkIf cfg.enable (
    cfg.packages
    ++ lib.optional (pc.package != null) pc.package
    ++ lib.optional overlay.enable overlayUp
  );
}
