# Which secrets a machine decrypts: name → the file that has it, without .sops.yaml.
#
# crates/secrets/src/catalogue.rs makes the files, and says who can open each. A test holds the two
# together: every machine can open what it wants, and no file is encrypted to a machine that wants
# nothing of it.
let
  inherit (import ./util.nix) optional optionalAttrs;

  want =
    file: names:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = { inherit file; };
      }) names
    );
  pair = name: [
    "${name}.crt"
    "${name}.key"
  ];
in
{
  # What makes it a member of its cluster.
  cluster =
    { kubernetes, ... }:
    let
      isServer = kubernetes.role == "server";
    in
    # What is encrypted to it only the operators can open.
    optionalAttrs (kubernetes.enable && isServer && kubernetes.distribution != "none") (
      want "servers" [ "etcd/snapshot_recipient" ]
    )
    // optionalAttrs (kubernetes.enable && kubernetes.distribution == "k3s") (
      optionalAttrs isServer (want "servers" [ "k3s/server_token" ])
      // want "agents" [ "k3s/agent_token" ]
      # Only the founder makes the cluster from them; other servers get them from it.
      // optionalAttrs kubernetes.founder (
        want "servers" (
          builtins.concatMap (name: pair "k3s/tls/${name}") [
            "server-ca"
            "client-ca"
            "request-header-ca"
            "etcd-server-ca"
            "etcd-peer-ca"
          ]
          ++ [
            "k3s/tls/service.key"
            "k3s/encryption-config.json"
          ]
        )
      )
    )
    // optionalAttrs (kubernetes.enable && kubernetes.distribution == "kubeadm") (
      want "agents" [ "kubeadm/ca_cert_hash" ]
      // optionalAttrs isServer (
        want "servers" (
          builtins.concatMap (name: pair "kubeadm/pki/${name}") [
            "ca"
            "front-proxy-ca"
            "etcd-ca"
          ]
          ++ [
            "kubeadm/pki/sa.key"
            "kubeadm/pki/sa.pub"
            "kubeadm/encryption-config.yaml"
          ]
        )
      )
    );

  # What lets it into the overlay, or makes it the overlay's server.
  overlay =
    { overlay, ... }:
    optionalAttrs overlay.enable (want "overlay" [ "tailscale/auth_key" ])
    // optionalAttrs overlay.server.enable (
      want "overlay-server" (
        [ "headscale/noise_private.key" ]
        ++ optional overlay.server.derp "headscale/derp_private.key"
      )
    );
}
