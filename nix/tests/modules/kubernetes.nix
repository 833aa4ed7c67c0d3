# modules/kubernetes and modules/longhorn.nix.
{
  lib,
  node,
  refused,
  ...
}:
let
  servers = {
    box-01 = "10.0.0.11";
    box-02 = "10.0.0.12";
    box-03 = "10.0.0.13";
  };
  cluster =
    settings: modules:
    node (
      [
        {
          undercroft.kubernetes = {
            enable = true;
            distribution = "k3s";
            role = "server";
            founderName = "box-01";
            founderAddress = "10.0.0.11";
            apiEndpoint = "k8s.example";
            tokenFile = "/run/secrets/k3s/server_token";
            inherit servers;
          }
          // settings;
          undercroft.disks.root = [ { device = "/dev/sda"; serial = "A"; } ];
        }
      ]
      ++ modules
    );
  named = name: address: {
    undercroft.node = {
      name = lib.mkForce name;
      address = lib.mkForce address;
    };
  };

  founder = cluster {
    founder = true;
    virtualIp = "10.0.0.10";
    agentTokenFile = "/run/secrets/k3s/agent_token";
    registryMirrors."docker.io" = [ "http://10.0.0.2:5000" ];
  } [ ];
  joiner = cluster { } [ (named "box-02" "10.0.0.12") ];
  agentSettings = {
    role = "agent";
    serverUrl = "https://k8s.example:6443";
  };
  agent = cluster agentSettings [ (named "gpu-01" "10.0.0.21") ];
  storage = cluster { founder = true; } [
    {
      undercroft.longhorn.enable = true;
      undercroft.disks.longhornPartitionGb = 200;
      undercroft.disks.longhorn = [ { device = "/dev/sdb"; wwn = "eui.1"; } ];
    }
  ];

  adm = settings: modules: cluster ({ distribution = "kubeadm"; } // settings) modules;
  admFounder = adm { founder = true; virtualIp = "10.0.0.10"; } [ ];
  admAgent = adm (agentSettings // { registryMirrors."docker.io" = [ "http://10.0.0.2:5000" ]; }) [
    (named "gpu-01" "10.0.0.21")
  ];

  flags = config: lib.concatStringsSep " " config.services.k3s.extraFlags;
  # A file's text is among its derivation's arguments, so that nothing is built.
  textOf = file: builtins.unsafeDiscardStringContext file.text;
  documents =
    config:
    map builtins.fromJSON (
      lib.splitString "\n---\n" (textOf config.environment.etc."undercroft/kubeadm/init.yaml".source)
    );
  manifest = file: builtins.fromJSON (textOf file);
  mentions = part: messages: lib.any (lib.hasInfix part) messages;
  has = part: whole: lib.hasInfix part whole;
  inherit (lib) elem;
in
[
  {
    name = "the founder founds and names no server";
    expected = [
      true
      ""
      false
    ];
    actual = [
      founder.services.k3s.clusterInit
      founder.services.k3s.serverAddr
      (founder.systemd.services.k3s.environment ? UNDERCROFT_SERVER)
    ];
  }
  {
    name = "a joiner joins the founder at its address, unless it is told another";
    expected = [
      false
      "\${UNDERCROFT_SERVER}"
      "https://10.0.0.11:6443"
      "-/run/undercroft/cluster/join.env"
    ];
    actual = [
      joiner.services.k3s.clusterInit
      joiner.services.k3s.serverAddr
      joiner.systemd.services.k3s.environment.UNDERCROFT_SERVER
      (lib.head joiner.systemd.services.k3s.serviceConfig.EnvironmentFile)
    ];
  }
  {
    name = "an agent joins by the API's endpoint, and knows nothing of servers' flags";
    expected = [
      "agent"
      "https://k8s.example:6443"
      false
      false
    ];
    actual = [
      agent.services.k3s.role
      agent.systemd.services.k3s.environment.UNDERCROFT_SERVER
      (has "--cluster-cidr" (flags agent))
      (has "--agent-token-file" (flags agent))
    ];
  }
  {
    name = "Cilium has the network to itself, and agents a token of their own";
    expected = [
      true
      true
      true
      true
    ];
    actual = map (flag: has flag (flags founder)) [
      "--flannel-backend=none"
      "--disable-kube-proxy"
      "--disable-network-policy"
      "--agent-token-file=/run/secrets/k3s/agent_token"
    ];
  }
  {
    name = "a flag with spaces stays one word in k3s' command";
    expected = [
      ''"--etcd-snapshot-schedule-cron=0 */12 * * *"''
      ''"--kubelet-arg=a b%%c$$d"''
      "--etcd-snapshot-retention=5"
    ];
    actual =
      let
        inherit (cluster { founder = true; extraFlags = [ "--kubelet-arg=a b%c$d" ]; } [ ]) services;
        spaced = lib.filter (has " ") services.k3s.extraFlags;
      in
      spaced ++ lib.filter (has "retention") services.k3s.extraFlags;
  }
  {
    name = "k3s waits for its turn";
    expected = [
      "|/var/lib/undercroft/cluster/joined"
      "|/run/undercroft/cluster/starting"
    ];
    actual = joiner.systemd.services.k3s.unitConfig.ConditionPathExists;
  }
  {
    name = "a server that waits for others' votes doesn't hold the machine's start up";
    expected = [
      "exec"
      "exec"
    ];
    actual = map (config: config.systemd.services.k3s.serviceConfig.Type) [
      founder
      agent
    ];
  }
  {
    name = "health asks every server, and only a cluster's sole one answers for itself";
    expected = [
      true
      false
      false
      true
    ];
    actual =
      let
        script = config: config.undercroft.health.checks.kubernetes.script;
        sole = config: lib.any (mark: has "SOLE_SERVER=${mark}" (script config)) [ "1" "'1'" ];
      in
      [
        (has "https://10.0.0.11:6443 https://10.0.0.12:6443 https://10.0.0.13:6443" (script agent))
        (sole founder)
        (sole agent)
        (sole (cluster { founder = true; servers.box-01 = "10.0.0.11"; } [ ]))
      ];
  }
  {
    name = "what a power cut left empty goes before k3s starts, and health speaks before the kubelet evicts";
    expected = [
      true
      [ 80 95 ]
      [ 80 95 ]
      false
    ];
    actual =
      let
        limits = config: path: [ config.undercroft.health.space.${path} config.undercroft.health.space."/boot" ];
      in
      [
        (lib.any (has "k3s-heal") (map toString agent.systemd.services.k3s.serviceConfig.ExecStartPre))
        (limits agent "/var/lib/rancher")
        (limits admAgent "/var/lib/containerd")
        agent.undercroft.health.checks.certificates.gates
      ];
  }
  {
    name = "the version that runs is kept beside the data, and an older minor isn't started on them";
    expected = [
      true
      true
      true
      true
    ];
    actual = [
      (has "undercroft-kubernetes-version start" founder.systemd.services.k3s.serviceConfig.ExecCondition)
      (has "undercroft-kubernetes-version start" admAgent.systemd.services.kubelet.serviceConfig.ExecCondition)
      (has "KUBERNETES_DATA=" (textOf founder.undercroft.kubernetes.versionProgram))
      (has "VERSION_PROGRAM=" agent.undercroft.health.checks.kubernetes.script)
    ];
  }
  {
    name = "nothing starts a join at boot, but what is asked to";
    expected = [
      [ ]
      [ "multi-user.target" ]
    ];
    actual = map (config: config.systemd.services.undercroft-cluster-join.wantedBy) [
      joiner
      (cluster { joinOnBoot = true; } [ (named "box-02" "10.0.0.12") ])
    ];
  }
  {
    name = "pods end before the machine goes down, and logind waits for them";
    expected = [
      true
      "60s"
      "15s"
      65
    ];
    actual = [
      founder.services.k3s.gracefulNodeShutdown.enable
      founder.services.k3s.gracefulNodeShutdown.shutdownGracePeriod
      founder.services.k3s.gracefulNodeShutdown.shutdownGracePeriodCriticalPods
      founder.undercroft.compat.logind.InhibitDelayMaxSec
    ];
  }
  {
    name = "k3s starts only with Longhorn's file systems";
    expected = [
      "/var/lib/longhorn"
      "/var/lib/longhorn-2"
      "/var/lib/rancher"
    ];
    actual = storage.systemd.services.k3s.unitConfig.RequiresMountsFor;
  }
  {
    name = "mirrors of registries, as k3s and as containerd read them";
    expected = [
      { mirrors."docker.io".endpoint = [ "http://10.0.0.2:5000" ]; }
      true
    ];
    actual = [
      (builtins.fromJSON founder.environment.etc."rancher/k3s/registries.yaml".text)
      (has "http://10.0.0.2:5000" admAgent.environment.etc."containerd/certs.d/docker.io/hosts.toml".text)
    ];
  }
  {
    name = "etcd is open to servers alone, and on servers alone";
    expected = [
      true
      true
      false
      false
      false
    ];
    actual = [
      (has "-s 10.0.0.12 -p tcp --dport 2379 -j nixos-fw-accept" founder.networking.firewall.extraCommands)
      (has "-s 10.0.0.13 -p tcp --dport 2380 -j nixos-fw-accept" founder.networking.firewall.extraCommands)
      (has "2380" agent.networking.firewall.extraCommands)
      (elem 2379 founder.networking.firewall.allowedTCPPorts)
      (elem 6443 agent.networking.firewall.allowedTCPPorts)
    ];
  }
  {
    name = "the kubelet is open to the nodes' network";
    expected = true;
    actual = has "-s 10.0.0.21/24 -p tcp --dport 10250 -j nixos-fw-accept" agent.networking.firewall.extraCommands;
  }
  {
    name = "the firewall of nftables says the same";
    expected = [
      true
      true
      true
      false
    ];
    actual =
      let
        config = cluster { founder = true; } [ { networking.nftables.enable = true; } ];
      in
      [
        (has "ip saddr 10.0.0.12 tcp dport 2380 accept" config.networking.firewall.extraInputRules)
        (has ''iifname "lxc*" accept'' config.networking.firewall.extraInputRules)
        (has "meta mark & 0xf00 == 0x200 accept" config.networking.firewall.extraInputRules)
        (elem "lxc+" config.networking.firewall.trustedInterfaces)
      ];
  }
  {
    name = "a firewall that there are no rules for is refused";
    expected = true;
    actual = lib.any (has "firewalld") (
      refused (
        cluster { founder = true; } [
          { options.networking.firewall.backend = lib.mkOption { default = "firewalld"; }; }
        ]
      )
    );
  }
  {
    name = "a join waits for the clock, by a unit that comes before time-sync.target";
    expected = [
      true
      true
      true
    ];
    actual =
      let
        inherit (founder.systemd.services) undercroft-clock undercroft-cluster-join;
      in
      [
        (elem "undercroft-clock.service" undercroft-cluster-join.wants)
        (elem "time-sync.target" undercroft-cluster-join.after)
        (elem "time-sync.target" undercroft-clock.before)
      ];
  }
  {
    name = "the kernel has what pods run out of, and the modules that containers can't load";
    expected = [
      true
      true
      [ ]
    ];
    actual =
      let
        inherit (agent.boot.kernel) sysctl;
      in
      [
        (sysctl."fs.inotify.max_user_instances" >= 8192)
        (sysctl."vm.max_map_count" >= 262144)
        (lib.subtractLists agent.boot.kernelModules [
          "br_netfilter"
          "overlay"
          "xt_TPROXY"
          "xt_socket"
        ])
      ];
  }
  {
    name = "a switch restarts what runs pods, and doesn't stop it for the time between";
    expected = [
      false
      false
    ];
    actual = [
      agent.systemd.services.k3s.stopIfChanged
      admAgent.systemd.services.kubelet.stopIfChanged
    ];
  }
  {
    name = "what kubeadm's containerd is told may be another's word";
    expected = "/var/lib/cni/bin";
    actual =
      (cluster
        {
          distribution = "kubeadm";
          founder = true;
        }
        [
          {
            virtualisation.containerd.settings.plugins."io.containerd.grpc.v1.cri".cni.bin_dir =
              "/var/lib/cni/bin";
          }
        ]
      ).virtualisation.containerd.settings.plugins."io.containerd.grpc.v1.cri".cni.bin_dir;
  }
  {
    name = "no reverse path filter, even where the overlay asks for a loose one";
    expected = [
      false
      0
      0
    ];
    actual =
      let
        config = cluster { founder = true; } [ { networking.firewall.checkReversePath = "loose"; } ];
      in
      [
        config.networking.firewall.checkReversePath
        config.boot.kernel.sysctl."net.ipv4.conf.all.rp_filter"
        config.boot.kernel.sysctl."net.ipv4.conf.lxc*.rp_filter"
      ];
  }
  {
    name = "what Cilium marks for its proxy is taken, whatever Tailscale sets, and a check looks";
    expected = [
      1
      true
    ];
    actual =
      let
        config = cluster { founder = true; } [ ];
      in
      [
        config.boot.kernel.sysctl."net.ipv4.conf.all.accept_local"
        (config.undercroft.health.checks ? marks)
      ];
  }
  {
    name = "the virtual address is a static pod of servers, with the kubeconfig of each distribution";
    expected = [
      [
        "L+ /var/lib/rancher/k3s/agent/pod-manifests/kube-vip.json"
        "/etc/rancher/k3s/k3s.yaml"
      ]
      [
        "L+ /etc/kubernetes/manifests/kube-vip.json"
        "/etc/kubernetes/admin.conf"
      ]
      "/etc/kubernetes/super-admin.conf"
      false
    ];
    actual =
      let
        hostPath = file: (lib.head (manifest file).spec.volumes).hostPath.path;
        rule =
          config:
          lib.head (
            lib.splitString " - " (
              lib.findFirst (has "kube-vip.json") "" config.systemd.tmpfiles.rules
            )
          );
      in
      [
        [
          (rule founder)
          (hostPath founder.undercroft.kubernetes.kubeVip.manifest)
        ]
        [
          (rule admFounder)
          (hostPath admFounder.undercroft.kubernetes.kubeVip.manifest)
        ]
        (hostPath admFounder.undercroft.kubernetes.kubeVip.foundingManifest)
        (lib.any (has "kube-vip") agent.systemd.tmpfiles.rules)
      ];
  }
  {
    name = "kubeadm's file has the cluster, this machine and its kubelet";
    expected = [
      [
        "InitConfiguration"
        "ClusterConfiguration"
        "KubeletConfiguration"
      ]
      [ "addon/kube-proxy" ]
      "k8s.example:6443"
      "systemd"
    ];
    actual =
      let
        parts = documents admFounder;
      in
      [
        (map (part: part.kind) parts)
        (lib.head parts).skipPhases
        (lib.elemAt parts 1).controlPlaneEndpoint
        (lib.elemAt parts 2).cgroupDriver
      ];
  }
  {
    name = "kubeadm founds a cluster of its package's version, and looks none up";
    expected = [
      "v1.34.7"
      "v1.34.7"
    ];
    actual =
      let
        package =
          { pkgs, ... }:
          {
            undercroft.kubernetes.package = pkgs.runCommand "kubernetes-1.34.7" { version = "1.34.7"; } "";
          };
        founding =
          version:
          (lib.elemAt (documents (adm { founder = true; inherit version; } [ package ])) 1)
          .kubernetesVersion;
      in
      [
        (founding "1.34")
        (founding null)
      ];
  }
  {
    name = "the kubelet is what kubeadm's package installs";
    expected = [
      true
      "-/var/lib/kubelet/kubeadm-flags.env"
      "--config=/var/lib/kubelet/config.yaml"
      [ "containerd.service" ]
    ];
    actual =
      let
        unit = admAgent.systemd.services.kubelet;
      in
      [
        (has "$KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS" unit.serviceConfig.ExecStart)
        unit.serviceConfig.EnvironmentFile
        unit.environment.KUBELET_CONFIG_ARGS
        unit.requires
      ];
  }
  {
    name = "containerd lets Cilium install its plugin, counts by systemd's cgroups and stays on overlayfs";
    expected = [
      "/opt/cni/bin"
      true
      "overlayfs"
      "/etc/containerd/certs.d"
    ];
    actual =
      let
        cri = admAgent.virtualisation.containerd.settings.plugins."io.containerd.grpc.v1.cri";
      in
      [
        cri.cni.bin_dir
        cri.containerd.runtimes.runc.options.SystemdCgroup
        cri.containerd.snapshotter
        cri.registry.config_path
      ];
  }
  {
    name = "kubeadm refuses swap";
    expected = true;
    actual = mentions "doesn't start with swap" (
      refused (adm { founder = true; } [ { swapDevices = [ { device = "/dev/sdc"; } ]; } ])
    );
  }
  {
    name = "a cluster that can't come together is refused";
    expected = [
      true
      true
      true
    ];
    actual = [
      (mentions "only a server can found" (refused (cluster { founder = true; role = "agent"; } [ ])))
      # This machine is box-01, the founder's address its own.
      (mentions "this machine's own address" (refused (cluster { } [ ])))
      (mentions "asks for Kubernetes 1.99" (refused (cluster { founder = true; version = "1.99"; } [ ])))
    ];
  }
  {
    name = "a sound cluster is not refused";
    expected = [
      [ ]
      [ ]
      [ ]
      [ ]
      [ ]
      [ ]
    ];
    actual = map refused [
      founder
      joiner
      agent
      storage
      admFounder
      admAgent
    ];
  }
  {
    name = "Longhorn finds its programs, and each machine has an iSCSI name of its own";
    expected = [
      true
      "iqn.2026-01.arpa.home.cellar:gpu-01"
      true
    ];
    actual = [
      (elem "L+ /usr/local/bin - - - - /run/current-system/sw/bin" agent.systemd.tmpfiles.rules)
      agent.services.openiscsi.name
      (agent.undercroft.health.checks ? longhorn-host)
    ];
  }
  {
    name = "Longhorn without a place for replicas is refused";
    expected = true;
    actual = mentions "no place for its replicas" (
      refused (cluster { founder = true; } [ { undercroft.longhorn.enable = true; } ])
    );
  }
]
