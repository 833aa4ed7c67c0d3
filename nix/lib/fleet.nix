# Reads undercroft.toml and facts/*.json, and gives each node's settings: the value of the options
# `undercroft.*`. crates/model/src/inventory/resolve.rs reads the same file; a test compares both.
#
# The file is taken as `undercroft check` lets it through; nothing is checked a second time here.
let
  addresses = import ./addresses.nix;
  disks = import ./disks.nix;
  inherit (import ./kubernetes.nix) apiUrl;
  lending = import ./lending.nix;
  inherit (import ./util.nix)
    filterAttrs
    mapToList
    optional
    optionalAttrs
    optionals
    split
    unique
    ;

  # What a class's kind says where the class itself doesn't (docs/inventory.md).
  kinds =
    let
      kind = system: firmware: layout: role: {
        inherit
          system
          firmware
          layout
          role
          ;
      };
    in
    {
      control = kind "x86_64-linux" "uefi" "zfs" "server";
      gpu = kind "x86_64-linux" "uefi" "zfs" "agent";
      phone-host = kind "x86_64-linux" "uefi" "zfs" "none";
      pi = kind "aarch64-linux" "rpi" "ext4" "none";
      plain = kind "x86_64-linux" "uefi" "ext4" "none";
    };

  # `gitops.components`, where the inventory doesn't name any (docs/inventory.md).
  defaultComponents = [
    "cilium"
    "longhorn"
    "nvidia-device-plugin"
    "node-feature-discovery"
    "cert-manager"
    "prometheus"
    "grafana"
    "loki"
    "alloy"
    "nats"
  ];

  resolveClass = _: class: (kinds.${class.kind or "plain"}) // { kind = "plain"; } // class;

  # A node with everything that it has from its class: lists are joined, labels replaced by name,
  # everything else replaced whole.
  resolveNode =
    classes: name: node:
    let
      class = classes.${node.class} or (throw "nodes.${name}: there is no class \"${node.class}\"");
      joined = key: (class.${key} or [ ]) ++ (node.${key} or [ ]);
    in
    removeAttrs class [ "netboot" ]
    // node
    // {
      inherit name;
      hats = joined "hats";
      modules = joined "modules";
      taints = joined "taints";
      kernel_params = joined "kernel_params";
      labels = (class.labels or { }) // (node.labels or { });
    };

  # Eight hexadecimal digits that stay as long as the fleet's and the node's names do.
  hostId =
    fleet: node:
    builtins.substring 0 8 (builtins.hashString "sha256" "undercroft host id ${fleet}/${node}");

  diskSettings =
    facts: node: disk:
    let
      found = builtins.filter (disks.matches disk) (facts.${node.name}.disks or [ ]);
      # Of two with one identity nobody can say which is meant.
      reported = if builtins.length found == 1 then builtins.head found else { };
    in
    {
      device = disks.device disk reported;
      serial = disk.serial or null;
      wwn = disk.wwn or null;
      sizeGb = disk.size_gb or null;
    };

  userSettings = user: {
    fullName = user.full_name or null;
    email = user.email or null;
    role = user.role or "developer";
    sshKeys = user.ssh_keys or [ ];
  };

  # How long a machine tries to join: it gives up before the command does, and says itself what was
  # wrong.
  joinLimit =
    seconds:
    let
      half = (seconds + 1) / 2;
    in
    if seconds - 30 > half then seconds - 30 else half;

  # What belongs to the fleet as a whole, worked out once.
  shared =
    {
      inventory,
      operatorKeys ? [ ],
    }:
    let
      classes = builtins.mapAttrs resolveClass (inventory.classes or { });
      nodes = builtins.mapAttrs (resolveNode classes) (inventory.nodes or { });
      kubernetes = {
        distribution = "none";
      }
      // (inventory.kubernetes or { });
      clustered = kubernetes.distribution != "none";
      servers = filterAttrs (_: node: clustered && node.role == "server") nodes;
      founder = if clustered then nodes.${kubernetes.founder} or null else null;
      users = builtins.mapAttrs (_: userSettings) (inventory.users or { });
      admins = filterAttrs (_: user: user.role == "admin") users;
      overlay = {
        kind = "none";
      }
      // (inventory.network.overlay or { });
      components = inventory.gitops.components or defaultComponents;
      serviceCidr = kubernetes.service_cidr or "10.43.0.0/16";
      # Where everybody asks for the API: the virtual IP moves with the server that holds it.
      # `Inventory::api_host` in the model says the same.
      apiEndpoint =
        if founder == null then
          null
        else
          kubernetes.virtual_ip or (kubernetes.api_endpoint or founder.address);
    in
    {
      inherit
        admins
        clustered
        founder
        inventory
        kubernetes
        nodes
        overlay
        users
        ;
      fleet = {
        inherit (inventory.fleet) name;
        domain = inventory.fleet.domain or null;
      };
      lending = lending.settings inventory;
      rootKeys = unique (
        operatorKeys
        ++ (inventory.fleet.admin_keys or [ ])
        ++ builtins.concatLists (mapToList (_: user: user.sshKeys) admins)
      );
      prefixLength = addresses.prefixLength inventory.network.node_cidr;
      cluster = {
        inherit (kubernetes) distribution;
        founderName = kubernetes.founder or null;
        founderAddress = if founder == null then null else founder.address;
        version = kubernetes.version or null;
        inherit apiEndpoint serviceCidr;
        virtualIp = kubernetes.virtual_ip or null;
        # Every way to the API that a certificate must bear.
        tlsSans = unique (
          optional (apiEndpoint != null) apiEndpoint
          ++ optional (kubernetes ? api_endpoint) kubernetes.api_endpoint
          ++ (kubernetes.tls_sans or [ ])
          ++ mapToList (_: node: node.address) servers
        );
        podCidr = kubernetes.pod_cidr or "10.42.0.0/16";
        clusterDomain = kubernetes.cluster_domain or "cluster.local";
        clusterDns = addresses.nth serviceCidr 10;
        servers = builtins.mapAttrs (_: node: node.address) servers;
        snapshot = {
          intervalH = kubernetes.snapshot_interval_h or 12;
          keep = kubernetes.snapshot_keep or 5;
        };
        registryMirrors = kubernetes.registry_mirrors or { };
        joinLimitSec = joinLimit (inventory.fleet.timeouts.join_s or 900);
        components = if clustered then components else [ ];
      };
    };

  kubernetesSettings =
    common: node:
    let
      role = if common.clustered then node.role else "none";
      founder = role != "none" && node.name == common.cluster.founderName;
    in
    common.cluster
    // {
      enable = role != "none";
      inherit role founder;
      # A server that joins asks the founder by its address: a name that leads to itself would let
      # it found a second cluster. Agents ask where everybody asks.
      serverUrl =
        if role == "server" && !founder then
          apiUrl common.cluster.founderAddress
        else if role == "agent" then
          apiUrl common.cluster.apiEndpoint
        else
          null;
      inherit (node) labels taints;
    };

  overlaySettings =
    common: node:
    let
      inherit (common) overlay;
      serves = overlay.kind == "headscale" && (overlay.server_node or null) == node.name;
    in
    {
      # The server is no client of its own overlay: it would need it to be up to come up.
      enable = overlay.kind != "none" && !serves;
      inherit (overlay) kind;
      serverUrl = overlay.server_url or null;
      cidr = overlay.cidr or "100.64.0.0/10";
      baseDomain = overlay.base_domain or null;
      routes = overlay.routes.${node.name} or [ ];
      server = {
        enable = serves;
        derp = overlay.derp or false;
      }
      // optionalAttrs serves {
        policy = {
          users = builtins.mapAttrs (_: user: { inherit (user) email role; }) common.users;
          routes = unique (builtins.concatLists (builtins.attrValues (overlay.routes or { })));
        };
      };
    };

  gpuSettings =
    gpu:
    if gpu == null then
      {
        enable = false;
      }
    else
      {
        enable = true;
        inherit (gpu) model;
        count = gpu.count or 1;
        driver = gpu.driver or "open";
        sharing = gpu.sharing or "none";
        replicas = gpu.replicas or null;
        migConfig = gpu.mig_config or null;
      };

  # The Pi's model as far as the class's name says it; a module of one's own says more.
  piModel =
    class:
    let
      match = builtins.match ".*pi-?([45]).*" class;
    in
    if match == null then null else builtins.head match;

  nodeSettings =
    common: facts: name: node:
    let
      network = common.inventory.network;
      withRole = role: builtins.filter (disk: (disk.role or "root") == role) (node.disks or [ ]);
      disksWithRole = role: map (diskSettings facts node) (withRole role);
    in
    {
      inherit (common) fleet lending;
      node = {
        inherit name;
        inherit (node)
          address
          class
          firmware
          kind
          role
          system
          ;
        inherit (common) prefixLength;
        gateway = network.gateway or null;
        nameservers = network.dns or [ ];
        ntp = network.ntp or [ ];
        macs = node.macs or [ ];
        interface = null;
        hostId = hostId common.fleet.name name;
        stateVersion = common.inventory.fleet.state_version or "25.11";
        kernelParams = node.kernel_params;
      };
      ssh.rootKeys = common.rootKeys;
      users = common.admins;
      disks = {
        inherit (node) layout;
        espMb = node.esp_mb or 1024;
        root = disksWithRole "root";
        longhorn = disksWithRole "longhorn";
        data = disksWithRole "data";
        longhornPartitionGb = node.longhorn.partition_gb or null;
      };
      kubernetes = kubernetesSettings common node;
      longhorn = {
        # As the cluster has it, and the machine is of the cluster and gives it something.
        enable =
          node ? longhorn
          && common.clustered
          && node.role != "none"
          && builtins.elem "longhorn" common.cluster.components;
        reservedPercent = node.longhorn.reserved_percent or 10;
        diskTags = node.longhorn.disk_tags or [ ];
      };
      secrets.backend = common.inventory.secrets.backend or "sops";
      gpu = gpuSettings (node.gpu or null);
      phones = {
        enable = node.kind == "phone-host";
        phones = map (phone: {
          inherit (phone) slot serial;
          model = phone.model or null;
        }) (node.phones or [ ]);
      };
      hats = {
        enable = node.hats != [ ];
        boards = node.hats;
      };
      pi = {
        enable = node.kind == "pi";
        model = if node.kind == "pi" then piModel node.class else null;
      };
      overlay = overlaySettings common node;
    };
in
{
  inherit
    resolveNode
    shared
    ;

  # An inventory's folder: the inventory, what the machines said of themselves, and the keys that
  # `undercroft` logs in with.
  read =
    src:
    let
      factsDir = src + "/facts";
      entries = if builtins.pathExists factsDir then builtins.readDir factsDir else { };
      nodeOf = file: builtins.match "(.*)[.]json" file;
      files = builtins.filter (file: nodeOf file != null) (builtins.attrNames entries);
      operators = factsDir + "/operators.pub";
      inventory = builtins.fromTOML (builtins.readFile (src + "/undercroft.toml"));
      hostKeys = src + "/${inventory.secrets.path or "secrets"}/host-keys";
      hostKey =
        node:
        let
          file = hostKeys + "/${node}.pub";
        in
        if builtins.pathExists file then builtins.head (split "\n" (builtins.readFile file)) else null;
    in
    {
      inherit inventory;
      # The public halves of the nodes' host keys, as far as they were made; else null.
      hostKeys = builtins.mapAttrs (node: _: hostKey node) (inventory.nodes or { });
      facts = builtins.listToAttrs (
        map (file: {
          name = builtins.head (nodeOf file);
          value = builtins.fromJSON (builtins.readFile (factsDir + "/${file}"));
        }) files
      );
      operatorKeys = optionals (builtins.pathExists operators) (
        builtins.filter (line: line != "") (split "\n" (builtins.readFile operators))
      );
    };

  # The settings of each node of what `read` gave.
  nodes =
    {
      inventory,
      facts ? { },
      operatorKeys ? [ ],
      ...
    }:
    let
      common = shared { inherit inventory operatorKeys; };
    in
    builtins.mapAttrs (nodeSettings common facts) common.nodes;

  # What follows from a node's settings. Modules work the same out of their options.
  derived =
    settings:
    let
      undercroft = settings // {
        disks = {
          longhornFsType = "xfs";
          encryptionKeyFile = (builtins.fromJSON (builtins.readFile ./on-machine.json)).diskKey;
        }
        // settings.disks;
      };
      kubernetes = import ./kubernetes.nix;
      longhorn = import ./longhorn.nix;
    in
    {
      disko = disks.devices undercroft.disks;
      labels = kubernetes.nodeLabels undercroft;
      taints = kubernetes.nodeTaints undercroft;
    }
    // optionalAttrs (settings.kubernetes.distribution == "k3s" && settings.kubernetes.enable) {
      k3sFlags = kubernetes.k3sFlags undercroft;
    }
    // optionalAttrs (settings.kubernetes.distribution == "kubeadm" && settings.kubernetes.enable) {
      kubeadm = removeAttrs (import ./kubeadm.nix undercroft) [ "initFile" ];
    }
    // optionalAttrs (longhorn.wanted undercroft) {
      longhornAnnotation = longhorn.annotation undercroft;
    };
}
