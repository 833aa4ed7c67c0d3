# What kubeadm is given, as the values of its own configuration files (kubeadm.k8s.io/v1beta4,
# which kubeadm reads from 1.31 on). Tokens and keys aren't among them: they live for hours, and
# are made at the join.
let
  inherit (import ./kubernetes.nix) apiPort nodeLabels nodeTaints;
  inherit (import ./util.nix)
    mapToList
    optionalAttrs
    split
    ;

  apiVersion = "kubeadm.k8s.io/v1beta4";

  # "KEY=VALUE:EFFECT" or "KEY:EFFECT" as an object.
  taint =
    text:
    let
      halves = split ":" text;
      pair = split "=" (builtins.head halves);
    in
    {
      key = builtins.head pair;
      effect = builtins.elemAt halves 1;
    }
    // optionalAttrs (builtins.length pair > 1) { value = builtins.elemAt pair 1; };

  argument = name: value: { inherit name value; };

  nodeRegistration = undercroft: {
    name = undercroft.node.name;
    criSocket = "unix:///run/containerd/containerd.sock";
    # An empty list, too, has a meaning: without it kubeadm keeps pods off the control plane, and
    # what the inventory says would hold on k3s alone.
    taints = map taint (nodeTaints undercroft);
    kubeletExtraArgs = [
      (argument "node-ip" undercroft.node.address)
    ]
    ++ (
      let
        labels = mapToList (key: value: "${key}=${value}") (nodeLabels undercroft);
      in
      if labels == [ ] then [ ] else [ (argument "node-labels" (builtins.concatStringsSep "," labels)) ]
    );
  };

  localApiEndpoint = undercroft: {
    advertiseAddress = undercroft.node.address;
    bindPort = apiPort;
  };

  # A whole version; kubeadm would look up "1.34", or none, on the internet.
  isWhole = version: version != null && builtins.match "[0-9]+[.][0-9]+[.][0-9]+" version != null;
in
undercroft:
let
  inherit (undercroft) fleet kubernetes;

  # Secrets of the cluster are encrypted in etcd, as k3s does with --secrets-encryption. The file
  # lies in the folder of certificates, which the API server's pod has anyway.
  encryption = undercroft.secrets.wanted or { } ? "kubeadm/encryption-config.yaml";

  clusterConfiguration = {
    inherit apiVersion;
    kind = "ClusterConfiguration";
    clusterName = fleet.name;
    controlPlaneEndpoint = "${kubernetes.apiEndpoint}:${toString apiPort}";
    networking = {
      podSubnet = kubernetes.podCidr;
      serviceSubnet = kubernetes.serviceCidr;
      dnsDomain = kubernetes.clusterDomain;
    };
    apiServer = {
      certSANs = kubernetes.tlsSans;
    }
    // optionalAttrs encryption {
      extraArgs = [
        (argument "encryption-provider-config" "/etc/kubernetes/pki/encryption-config.yaml")
      ];
    };
  }
  // optionalAttrs (isWhole kubernetes.version) {
    kubernetesVersion = "v${kubernetes.version}";
  };

  initConfiguration = {
    inherit apiVersion;
    kind = "InitConfiguration";
    nodeRegistration = nodeRegistration undercroft;
    localAPIEndpoint = localApiEndpoint undercroft;
    # Cilium does kube-proxy's work.
    skipPhases = [ "addon/kube-proxy" ];
  };

  joinConfiguration = {
    inherit apiVersion;
    kind = "JoinConfiguration";
    nodeRegistration = nodeRegistration undercroft;
  }
  // optionalAttrs (kubernetes.role == "server") {
    controlPlane.localAPIEndpoint = localApiEndpoint undercroft;
  };

  kubeletConfiguration = {
    apiVersion = "kubelet.config.k8s.io/v1beta1";
    kind = "KubeletConfiguration";
    cgroupDriver = "systemd";
    clusterDNS = [ kubernetes.clusterDns ];
    clusterDomain = kubernetes.clusterDomain;
    rotateCertificates = true;
    failSwapOn = true;
    staticPodPath = "/etc/kubernetes/manifests";
    # Of these seconds the critical pods have the last ones.
    shutdownGracePeriod = "${toString (kubernetes.shutdownGraceSec or 60)}s";
    shutdownGracePeriodCriticalPods = "${toString (kubernetes.shutdownGraceCriticalSec or 15)}s";
  };
in
{
  inherit
    clusterConfiguration
    initConfiguration
    joinConfiguration
    kubeletConfiguration
    ;

  # Where the other machines find the API.
  endpoint = "${kubernetes.apiEndpoint}:${toString apiPort}";

  # The file of `kubeadm init`. JSON is YAML; documents of one file stand apart by a line of dashes.
  initFile = builtins.concatStringsSep "\n---\n" (
    map builtins.toJSON [
      initConfiguration
      clusterConfiguration
      kubeletConfiguration
    ]
  );
}
