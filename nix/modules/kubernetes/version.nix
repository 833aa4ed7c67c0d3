# Which Kubernetes ran on this machine's data last. A generation that is gone back to may have an
# older minor: it never starts it on a newer one's data.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.undercroft.kubernetes;
  isK3s = cfg.distribution == "k3s";
  unit = if isK3s then "k3s" else "kubelet";
in
{
  options.undercroft.kubernetes.versionProgram = lib.mkOption {
    type = lib.types.package;
    readOnly = true;
    internal = true;
    description = "Says whether this system's Kubernetes may start on the machine's data.";
  };

  config = lib.mkIf cfg.enable {
    undercroft.kubernetes.versionProgram = pkgs.writeShellScript "undercroft-kubernetes-version" ''
      export PATH=${lib.makeBinPath [ pkgs.coreutils ]}
      ${lib.toShellVars {
        # kubeadm's own parts are pods of the version that it was told, in no generation: what one
        # changes is the kubelet.
        KUBERNETES_DATA = if isK3s then "/var/lib/rancher/k3s" else "/var/lib/kubelet";
        KUBERNETES_VERSION = lib.getVersion cfg.package;
        KUBERNETES_UNIT = "${unit}.service";
      }}
      ${builtins.readFile ../scripts/kubernetes-version.sh}
    '';

    # A condition that doesn't hold leaves the unit stopped, neither failed nor tried again.
    systemd.services.${unit}.serviceConfig.ExecCondition = "${cfg.versionProgram} start";
  };
}
