# Which machines may reach what of Kubernetes, for both of NixOS' firewalls.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.undercroft.kubernetes;
  node = config.undercroft.node;
  isServer = cfg.role == "server";
  inherit ((import ../../lib).kubernetes) apiPort;

  nodes = "${node.address}/${toString node.prefixLength}";
  servers = lib.attrValues cfg.servers;

  # From every machine of the nodes' network.
  tcp = [
    10250 # kubelet
    4240 # cilium-health
    4244 # Hubble's server, for the relay
  ]
  ++ lib.optional isServer 2381; # etcd's metrics
  udp = [
    8472 # VXLAN, Cilium's tunnel
    51871 # WireGuard, where Cilium encrypts
  ];

  # One rule in each firewall's words; `from` is an address or a network.
  rule = from: protocol: port: { inherit from protocol port; };
  rules =
    map (rule nodes "tcp") tcp
    ++ map (rule nodes "udp") udp
    # etcd is between servers alone: who reaches it and holds a certificate owns the cluster.
    ++ lib.optionals isServer (
      lib.concatMap (from: [
        (rule from "tcp" 2379)
        (rule from "tcp" 2380)
      ]) servers
    );

  iptables = one: ''
    iptables -A nixos-fw -s ${one.from} -p ${one.protocol} --dport ${toString one.port} -j nixos-fw-accept
  '';
  nftables =
    one: "ip saddr ${one.from} ${one.protocol} dport ${toString one.port} accept\n";
  interfaces = [
    "cilium_host"
    "cilium_net"
    "cilium_vxlan"
  ];
  # 25.11 has an option for it, and firewalld as a third.
  backend =
    config.networking.firewall.backend
      or (if config.networking.nftables.enable then "nftables" else "iptables");
  useNftables = backend == "nftables";
in
{
  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        # Clients and nodes reach the API at every server; it asks each for a certificate or token.
        networking.firewall.allowedTCPPorts = lib.optional isServer apiPort;
        networking.firewall.trustedInterfaces = interfaces ++ lib.optional (backend == "iptables") "lxc+";
      }
      (lib.mkIf (backend == "iptables") {
        networking.firewall.extraCommands = lib.concatMapStrings iptables rules;
      })
      {
        assertions = [
          {
            assertion = backend != "firewalld" || !config.networking.firewall.enable;
            message = ''
              networking.firewall.backend is "firewalld", for which there are no rules here: the
              machines couldn't reach each other's kubelets. Use "iptables" or "nftables".
            '';
          }
        ];
      }
      (lib.optionalAttrs (options.networking.firewall ? extraInputRules) {
        networking.firewall.extraInputRules = lib.mkIf useNftables (
          lib.concatMapStrings nftables rules
          # nftables has another sign for "any ending" than iptables. What Cilium hands to its proxy,
          # requests from outside among it, is let in by a rule that it makes itself for iptables,
          # and that says nothing to a table of nftables.
          + ''
            iifname "lxc*" accept
            meta mark & 0xf00 == 0x200 accept
          ''
        );
      })
    ]
  );
}
