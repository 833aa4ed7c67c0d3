# How a machine comes into the cluster: one unit, the same for k3s and kubeadm, that the controller
# starts when it is this machine's turn. Nothing starts it at boot, so that servers join one by one
# (k3s#4335) and nobody joins before the founder is up. Once it has joined, the machine starts
# Kubernetes at every boot by itself.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.undercroft.kubernetes;
  node = config.undercroft.node;
  secrets = config.undercroft.secrets;
  inherit ((import ../../lib).kubernetes) apiUrl;
  inherit ((import ../../lib)) onMachine;

  others = lib.filterAttrs (name: _: name != node.name) cfg.servers;

  programs = cfg.nodePrograms ++ [
    cfg.package
    pkgs.coreutils
    pkgs.curl
    pkgs.findutils
    pkgs.gnugrep
    pkgs.gnused
    pkgs.jq
    config.systemd.package
  ];

  # "NAME=ADDRESS" words, which the scripts go through.
  environment = {
    UNDERCROFT_NODE = node.name;
    UNDERCROFT_ROLE = cfg.role;
    UNDERCROFT_FOUNDER = if cfg.founder then "1" else "";
    UNDERCROFT_OTHERS = toString (lib.mapAttrsToList (name: address: "${name}=${address}") others);
    UNDERCROFT_JOIN_LIMIT_S = toString cfg.joinLimitSec;
    UNDERCROFT_SECRETS = secrets.runtime;
    UNDERCROFT_ADDRESS = node.address;
    # Servers join at an address: a name may one day mean the machine itself, which then founds a
    # second cluster.
    UNDERCROFT_SERVER =
      if cfg.founder then
        ""
      else if cfg.role == "agent" && cfg.serverUrl != null then
        cfg.serverUrl
      else
        apiUrl (toString cfg.founderAddress);
    UNDERCROFT_VERSION_PROGRAM = "${cfg.versionProgram}";
    UNDERCROFT_TOKEN_FILE = if cfg.tokenFile != null then cfg.tokenFile else "";
    UNDERCROFT_VIP = "${if cfg.kubeVip.manifest != null then cfg.kubeVip.manifest else ""}";
    UNDERCROFT_VIP_FOUNDING = "${
      if cfg.kubeVip.foundingManifest != null then cfg.kubeVip.foundingManifest else ""
    }";
  };

  program =
    name: parts:
    pkgs.writeShellScript "undercroft-${name}" ''
      export PATH=${lib.makeBinPath programs}:$PATH
      ${lib.concatStrings (
        lib.mapAttrsToList (key: value: ''
          export ${key}=''${${key}:-${lib.escapeShellArg value}}
        '') environment
      )}
      ${lib.concatMapStrings (part: builtins.readFile (../scripts + "/${part}.sh")) parts}
    '';
in
{
  options.undercroft.kubernetes.joinLimitSec = lib.mkOption {
    type = lib.types.ints.between 1 86400;
    default = 870;
    description = ''
      Seconds that founding or joining may take. The fleet's settings put it below the inventory's
      fleet.timeouts.join_s, so that the machine itself says what went wrong.
    '';
  };

  options.undercroft.kubernetes.nodePrograms = lib.mkOption {
    type = lib.types.listOf lib.types.package;
    internal = true;
    default = [
      pkgs.conntrack-tools
      pkgs.cri-tools
      pkgs.e2fsprogs
      pkgs.ethtool
      pkgs.iproute2
      pkgs.iptables
      pkgs.kmod
      pkgs.nfs-utils
      pkgs.openiscsi
      pkgs.socat
      pkgs.util-linux
      pkgs.xfsprogs
    ];
    description = "What a kubelet calls on its host, and what kubeadm looks for before it begins.";
  };
  options.undercroft.kubernetes.joinServer = lib.mkOption {
    type = lib.types.str;
    readOnly = true;
    internal = true;
    description = "URL at which the machine joins unless it is told another; empty for the founder.";
  };

  config = lib.mkIf cfg.enable {
    undercroft.kubernetes.joinServer = environment.UNDERCROFT_SERVER;

    systemd.services.${onMachine.joinUnit} = {
      description = "Found or join the cluster";
      wantedBy = lib.mkIf cfg.joinOnBoot [ "multi-user.target" ];
      wants = [
        "network-online.target"
        # What waits for the clock before time-sync.target (node.nix).
        "undercroft-clock.service"
      ];
      after = [
        "network-online.target"
        "time-sync.target"
        # sops-nix' unit, where secrets aren't installed by the activation script.
        "sops-install-secrets.service"
      ];
      # A switch in the middle of a join must not begin another.
      restartIfChanged = false;
      stopIfChanged = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        # What only the controller knows, for this join alone: which server, and kubeadm's token.
        EnvironmentFile = "-${onMachine.joinEnv}";
        ExecStart = program "cluster-join" [
          "cluster-lib"
          "cluster-join-${cfg.distribution}"
        ];
        TimeoutStartSec = cfg.joinLimitSec + 30;
        UMask = "0077";
      };
    };

    systemd.tmpfiles.rules = [
      "d /run/undercroft 0755 root root -"
      "d ${dirOf onMachine.joinEnv} 0700 root root -"
      "d ${dirOf onMachine.joined} 0700 root root -"
    ];

    # Takes the machine out, for a reinstallation or another cluster. It deletes, and wants to be
    # told so.
    environment.etc.${lib.removePrefix "/etc/" onMachine.clusterLeave} = {
      mode = "0700";
      source = program "cluster-leave" [
        "cluster-lib"
        "cluster-leave-${cfg.distribution}"
      ];
    };
  };
}
