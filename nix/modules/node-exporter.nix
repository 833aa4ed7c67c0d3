# Numbers of the machine for Prometheus: every machine of the fleet has them, in the cluster or not.
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf mkOption types;
  cfg = config.undercroft.observability.nodeExporter;
in
{
  options.undercroft.observability.nodeExporter = {
    enable = mkOption {
      type = types.bool;
      default = true;
      description = "Whether Prometheus' node exporter runs.";
    };
    port = mkOption {
      type = types.port;
      # 9100 is the port of the exporter that kube-prometheus-stack runs on each Kubernetes node.
      default = (import ../lib).onMachine.nodeExporterPort;
      description = ''
        TCP port, on the machine's own address. It isn't 9100, which a DaemonSet of
        kube-prometheus-stack takes on machines of the cluster.
      '';
    };
  };

  config = mkIf cfg.enable {
    services.prometheus.exporters.node = {
      enable = true;
      listenAddress = mkDefault config.undercroft.node.address;
      inherit (cfg) port;
      enabledCollectors = [ "systemd" ];
    };
    networking.firewall.allowedTCPPorts = [ cfg.port ];
    # The address may not be there yet when the exporter starts.
    systemd.services.prometheus-node-exporter = {
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
    };
  };
}
