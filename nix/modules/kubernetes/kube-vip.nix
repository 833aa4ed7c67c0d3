# The address that moves between the servers and answers for the API, by kube-vip as a static pod:
# it needs no cluster to start, and no cloud.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.undercroft.kubernetes;
  vip = cfg.kubeVip;
  node = config.undercroft.node;
  enabled = cfg.enable && cfg.role == "server" && cfg.virtualIp != null && vip.enable;
  isK3s = cfg.distribution == "k3s";

  variable = name: value: { inherit name value; };

  # `kubeconfig` is the host's file that kube-vip reaches the API of its own machine with.
  pod = kubeconfig: {
    apiVersion = "v1";
    kind = "Pod";
    metadata = {
      name = "kube-vip";
      namespace = "kube-system";
    };
    spec = {
      hostNetwork = true;
      priorityClassName = "system-node-critical";
      # The kubeconfig names the API at the address that isn't up yet; on this machine that name is
      # this machine.
      hostAliases = [
        {
          ip = "127.0.0.1";
          hostnames = [ "kubernetes" ];
        }
      ];
      containers = [
        {
          name = "kube-vip";
          inherit (vip) image;
          imagePullPolicy = "IfNotPresent";
          args = [ "manager" ];
          env = [
            (variable "address" cfg.virtualIp)
            (variable "port" (toString (import ../../lib).kubernetes.apiPort))
            (variable "vip_arp" "true")
            (variable "vip_subnet" "32")
            (variable "cp_enable" "true")
            (variable "cp_namespace" "kube-system")
            # Services' addresses are Cilium's; a second announcer would fight it for them.
            (variable "svc_enable" "false")
            (variable "vip_leaderelection" "true")
            (variable "vip_leaseduration" "15")
            (variable "vip_renewdeadline" "10")
            (variable "vip_retryperiod" "2")
            {
              name = "vip_nodename";
              valueFrom.fieldRef.fieldPath = "spec.nodeName";
            }
          ]
          ++ lib.optional (vip.interface != null) (variable "vip_interface" vip.interface);
          securityContext.capabilities = {
            add = [
              "NET_ADMIN"
              "NET_RAW"
            ];
            drop = [ "ALL" ];
          };
          volumeMounts = [
            {
              name = "kubeconfig";
              mountPath = "/etc/kubernetes/admin.conf";
              readOnly = true;
            }
          ];
        }
      ];
      volumes = [
        {
          name = "kubeconfig";
          hostPath = {
            path = kubeconfig;
            type = "File";
          };
        }
      ];
    };
  };

  manifest = name: kubeconfig: pkgs.writeText name (builtins.toJSON (pod kubeconfig));
in
{
  options.undercroft.kubernetes.kubeVip = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether kube-vip answers for `virtualIp`. False where something else does.";
    };
    image = lib.mkOption {
      type = lib.types.str;
      default = "ghcr.io/kube-vip/kube-vip:v0.9.9";
      description = "Image of kube-vip. It is pulled before the network of pods is up.";
    };
    interface = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = node.interface;
      defaultText = lib.literalExpression "config.undercroft.node.interface";
      description = "Interface that gets the address. Without it, the one with the default route.";
    };
    manifest = lib.mkOption {
      type = lib.types.nullOr lib.types.package;
      default = null;
      internal = true;
      description = "The static pod, where there is one.";
    };
    foundingManifest = lib.mkOption {
      type = lib.types.nullOr lib.types.package;
      default = null;
      internal = true;
      description = "The static pod while kubeadm founds the cluster.";
    };
  };

  config = lib.mkIf enabled {
    undercroft.kubernetes.kubeVip = {
      manifest = manifest "kube-vip.json" (
        if isK3s then "/etc/rancher/k3s/k3s.yaml" else "/etc/kubernetes/admin.conf"
      );
      # While kubeadm founds a cluster admin.conf may do nothing yet: the role that it is bound to
      # is made last, and over the virtual address (kube-vip#684).
      foundingManifest = lib.mkIf (!isK3s) (
        manifest "kube-vip-founding.json" "/etc/kubernetes/super-admin.conf"
      );
    };

    systemd.tmpfiles.rules = [
      "L+ ${
        if isK3s then "/var/lib/rancher/k3s/agent/pod-manifests" else "/etc/kubernetes/manifests"
      }/kube-vip.json - - - - ${vip.manifest}"
    ];
  };
}
