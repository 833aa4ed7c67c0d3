# Kubernetes on a machine: what k3s and kubeadm have in common. Each distribution has a file of its
# own, and what pods and Cilium need of any host stands in host.nix.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.undercroft.kubernetes;
  isServer = cfg.role == "server";
  version = lib.getVersion cfg.package;
  # "1_34" of "1.34" and of "1.34.2", as nixpkgs names its packages.
  minor = version: lib.concatStringsSep "_" (lib.take 2 (lib.splitString "." version));
in
{
  imports = [
    ./bootstrap.nix
    ./containerd.nix
    ./firewall.nix
    ./health.nix
    ./host.nix
    ./k3s.nix
    ./kube-vip.nix
    ./kubeadm.nix
    ./snapshots.nix
    ./version.nix
  ];

  options.undercroft.kubernetes = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether the machine is part of the cluster.";
    };
    distribution = lib.mkOption {
      type = lib.types.enum [
        "k3s"
        "kubeadm"
        "none"
      ];
      default = "none";
      description = "What makes the cluster.";
    };
    role = lib.mkOption {
      type = lib.types.enum [
        "server"
        "agent"
        "none"
      ];
      default = "none";
      description = "A server carries the control plane and etcd; an agent only runs pods.";
    };
    founder = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = ''
        Whether this server founds the cluster. Exactly one does, and it never changes by itself.
      '';
    };
    founderName = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "Name of the machine that founds the cluster.";
    };
    founderAddress = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "Address of the machine that founds the cluster.";
    };
    version = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "1.34";
      description = ''
        Version of Kubernetes, a minor or a whole one. Without it, nixpkgs' own: then a new release
        of NixOS raises Kubernetes with it, by two minors or more, which no cluster survives in one
        step.
      '';
    };
    package = lib.mkOption {
      type = lib.types.package;
      description = ''
        k3s, or for kubeadm the package with kubeadm and kubelet. The default follows `version`.
      '';
    };
    apiEndpoint = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "Name or address at which clients and nodes reach the API.";
    };
    serverUrl = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "https://10.20.0.11:6443";
      description = "URL at which the machine joins, where it isn't told another at the join.";
    };
    virtualIp = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "Address that moves between the servers and answers for the API (kube-vip).";
    };
    tlsSans = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Names and addresses in the API's certificate.";
    };
    podCidr = lib.mkOption {
      type = lib.types.str;
      default = "10.42.0.0/16";
      description = "Network of the pods.";
    };
    serviceCidr = lib.mkOption {
      type = lib.types.str;
      default = "10.43.0.0/16";
      description = "Network of the services.";
    };
    clusterDomain = lib.mkOption {
      type = lib.types.str;
      default = "cluster.local";
      description = "DNS domain inside the cluster.";
    };
    clusterDns = lib.mkOption {
      type = lib.types.str;
      default = "10.43.0.10";
      description = "Address of the cluster's DNS, the tenth of `serviceCidr`.";
    };
    labels = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      description = "Labels of the node, beside those that follow from its hardware.";
    };
    taints = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Taints of the node: KEY=VALUE:EFFECT or KEY:EFFECT.";
    };
    servers = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      description = "Address of each server by its name, this machine's own with it.";
    };
    snapshot = {
      intervalH = lib.mkOption {
        type = lib.types.ints.between 1 168;
        default = 12;
        description = "Hours between two snapshots of etcd.";
      };
      keep = lib.mkOption {
        type = lib.types.ints.between 1 1000;
        default = 5;
        description = "Snapshots of etcd that a server keeps.";
      };
      recipientFile = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        description = ''
          File with the age recipient that snapshots of etcd are encrypted to, outside the Nix
          store. The secrets give it; without it none leave the datastore.
        '';
      };
    };
    registryMirrors = lib.mkOption {
      type = lib.types.attrsOf (lib.types.listOf lib.types.str);
      default = { };
      example = {
        "docker.io" = [ "http://10.20.0.2:5000" ];
      };
      description = "Mirrors that are asked before a registry, by the registry's host.";
    };
    extraFlags = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Further flags of k3s. Of no effect with kubeadm.";
    };
    tokenFile = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = ''
        File with the token by which the machine joins a k3s cluster, outside the Nix store. The
        secrets give it; without secrets it has to be put there by hand before the machine joins.
      '';
    };
    agentTokenFile = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "On a server, the file with the token that agents join a k3s cluster by.";
    };
    components = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = ''
        What Argo CD runs in the cluster, in the words of the inventory. Modules look at it for what
        that needs of the host.
      '';
    };
    joinOnBoot = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = ''
        Whether the machine founds or joins the cluster by itself at its first boot. Undercroft
        starts that itself, one server after the other; set it only where nothing else does.
      '';
    };
    shutdownGraceSec = lib.mkOption {
      type = lib.types.ints.between 10 600;
      default = 60;
      description = "Seconds that pods have for ending before the machine goes down.";
    };
    shutdownGraceCriticalSec = lib.mkOption {
      type = lib.types.ints.between 5 300;
      default = 15;
      description = "How many of these seconds are kept for the critical pods, which end last.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.distribution != "none" && cfg.role != "none";
        message = "undercroft.kubernetes.enable needs a distribution and a role.";
      }
      {
        assertion = !cfg.founder || isServer;
        message = "undercroft.kubernetes.founder: only a server can found a cluster.";
      }
      {
        assertion = cfg.founder || cfg.founderAddress != null;
        message = ''
          undercroft.kubernetes.founderAddress isn't set, and this machine isn't the founder: it
          would have nobody to join.
        '';
      }
      {
        # A joiner whose server was itself once founded a second cluster.
        assertion = cfg.founder || cfg.founderAddress != config.undercroft.node.address;
        message = "undercroft.kubernetes.founderAddress is this machine's own address, but it isn't the founder.";
      }
      {
        assertion = cfg.shutdownGraceCriticalSec < cfg.shutdownGraceSec;
        message = "undercroft.kubernetes.shutdownGraceCriticalSec has to be less than shutdownGraceSec.";
      }
      {
        assertion =
          cfg.version == null
          || cfg.version == version
          || lib.hasPrefix "${cfg.version}." version
          || lib.hasPrefix "${cfg.version}+" version;
        message = ''
          The inventory asks for Kubernetes ${toString cfg.version}, and this nixpkgs' package is
          ${cfg.package.name}. Raise or lower nixpkgs, or set undercroft.kubernetes.package; never
          change the minor of a running cluster by more than one.
        '';
      }
    ];

    undercroft.kubernetes.package = lib.mkDefault (
      if cfg.distribution == "kubeadm" then
        pkgs.kubernetes
      else
        # nixpkgs keeps several minors of k3s: pin one, as a release of NixOS moves pkgs.k3s.
        pkgs.${if cfg.version == null then "k3s" else "k3s_${minor cfg.version}"} or pkgs.k3s
    );
  };
}
