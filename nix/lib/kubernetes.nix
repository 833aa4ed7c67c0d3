# Kubernetes: labels and taints of a node, k3s' flags, mirrors of registries.
#
# Each function takes the whole of `config.undercroft`, so that what a module overrides there is
# followed here.
let
  gpu = import ./gpu.nix;
  longhorn = import ./longhorn.nix;
  inherit (import ./util.nix)
    mapToList
    mod
    optionalAttrs
    optionals
    ;

  # Labels of the inventory, and those that follow from what the machine has. The same ones are put
  # on by `undercroft up`, by Inventory::node_labels in crates/model: here they are there from a
  # node's first second on, before any pod could miss them.
  nodeLabels =
    undercroft:
    let
      has = component: builtins.elem component undercroft.kubernetes.components;
    in
    undercroft.kubernetes.labels
    // {
      "undercroft.dev/class" = undercroft.node.class;
    }
    // optionalAttrs (longhorn.wanted undercroft) { "node.longhorn.io/create-default-disk" = "config"; }
    // optionalAttrs (undercroft.gpu.enable && has "nvidia-device-plugin") {
      "nvidia.com/device-plugin.config" = gpu.profile undercroft.gpu;
    }
    // builtins.listToAttrs (
      map (board: {
        name = "undercroft.dev/hat.${board}";
        value = "true";
      }) undercroft.hats.boards
    );

  nodeTaints = undercroft: undercroft.kubernetes.taints;

  # Where the API listens on every server, and answers at the virtual address: API_PORT in
  # crates/model.
  apiPort = 6443;

  # A cron expression for every so many hours. Where the hours don't divide the day, the last
  # interval of a day is a shorter one; from a day on, cron's own interval counts from the start.
  everyHours =
    hours:
    if hours == 1 then
      "0 * * * *"
    else if hours < 24 then
      "0 */${toString hours} * * *"
    else if mod hours 24 == 0 then
      "0 0 */${toString (hours / 24)} * *"
    else
      "@every ${toString hours}h";

  # What servers and agents both know.
  commonFlags =
    undercroft:
    [
      "--node-name=${undercroft.node.name}"
      "--node-ip=${undercroft.node.address}"
    ]
    ++ mapToList (key: value: "--node-label=${key}=${value}") (nodeLabels undercroft)
    ++ map (taint: "--node-taint=${taint}") (nodeTaints undercroft);

  # What an agent refuses to know. All servers must have the same of those that shape the cluster:
  # k3s compares them with the founder's and doesn't start otherwise.
  serverFlags =
    undercroft:
    let
      inherit (undercroft) kubernetes node;
    in
    [
      "--advertise-address=${node.address}"
      "--cluster-cidr=${kubernetes.podCidr}"
      "--service-cidr=${kubernetes.serviceCidr}"
      "--cluster-dns=${kubernetes.clusterDns}"
      "--cluster-domain=${kubernetes.clusterDomain}"
    ]
    ++ map (name: "--tls-san=${name}") kubernetes.tlsSans
    ++ [
      # Cilium is the network, the policies, the service proxy and the load balancer.
      "--flannel-backend=none"
      "--disable-network-policy"
      "--disable-kube-proxy"
      "--disable=servicelb"
      "--disable=traefik"
      # Longhorn is the storage; a second default StorageClass would compete with its own.
      "--disable=local-storage"
      # Charts are Argo CD's. A HelmChart beside it would be a second owner.
      "--disable-helm-controller"
      "--secrets-encryption"
      "--etcd-snapshot-schedule-cron=${everyHours kubernetes.snapshot.intervalH}"
      "--etcd-snapshot-retention=${toString kubernetes.snapshot.keep}"
    ];
in
{
  inherit apiPort nodeLabels nodeTaints;

  # The API's URL at a host.
  apiUrl = host: "https://${host}:${toString apiPort}";

  # k3s' flags, without its token, its server's URL and --cluster-init, which the NixOS module has
  # options for. The flags mean the same on every release of NixOS; the options that came for some
  # of them in 25.11 aren't used.
  k3sFlags =
    undercroft:
    commonFlags undercroft
    ++ optionals (undercroft.kubernetes.role == "server") (serverFlags undercroft);

  # k3s' registries.yaml.
  registriesYaml =
    undercroft:
    optionalAttrs (undercroft.kubernetes.registryMirrors != { }) {
      mirrors = builtins.mapAttrs (_: urls: {
        endpoint = urls;
      }) undercroft.kubernetes.registryMirrors;
    };

  # containerd's hosts.toml for each registry, as kubeadm's nodes need them:
  # /etc/containerd/certs.d/HOST/hosts.toml. The registry itself is asked last.
  containerdHosts =
    undercroft:
    builtins.mapAttrs (
      host: urls:
      let
        server = if host == "docker.io" then "registry-1.docker.io" else host;
      in
      ''
        server = "https://${server}"
      ''
      + builtins.concatStringsSep "" (
        map (url: ''

          [host."${url}"]
          capabilities = ["pull", "resolve"]
        '') urls
      )
    ) undercroft.kubernetes.registryMirrors;
}
