# modules/secrets.nix, with sops-nix' own module.
{
  lib,
  node,
  refused,
  ...
}:
let
  member =
    settings: directory:
    node [
      {
        undercroft.secrets.directory = directory;
        undercroft.disks.root = [ { device = "/dev/sda"; serial = "A"; } ];
        undercroft.kubernetes = {
          enable = true;
          distribution = "k3s";
          role = "agent";
          founderAddress = "10.0.0.12";
        }
        // settings;
      }
    ];
  good = ../fixtures/secrets-good;
  agent = member { } good;
  founder = member { role = "server"; founder = true; } good;
  joiner = member { role = "server"; } good;
  kubeadmServer = member { distribution = "kubeadm"; role = "server"; } good;
  plain = member { role = "server"; } ../fixtures/secrets-plain;
  none = member { } null;
  names = config: lib.attrNames config.sops.secrets;
  about = part: lib.filter (lib.hasInfix part);
in
[
  {
    name = "a machine decrypts with its own host key and nothing else";
    expected = [
      [ "/etc/ssh/ssh_host_ed25519_key" ]
      [ ]
      null
    ];
    actual = [
      agent.sops.age.sshKeyPaths
      agent.sops.gnupg.sshKeyPaths
      agent.sops.age.keyFile
    ];
  }
  {
    name = "an agent gets its token and no server's";
    expected = [
      [ "k3s/agent_token" ]
      "/run/secrets/k3s/agent_token"
      "/run/secrets/k3s/agent_token"
      "0400"
    ];
    actual = [
      (names agent)
      agent.sops.secrets."k3s/agent_token".path
      agent.services.k3s.tokenFile
      agent.sops.secrets."k3s/agent_token".mode
    ];
  }
  {
    name = "the founder alone gets the authorities of k3s";
    expected = [
      true
      false
      "/run/secrets/k3s/server_token"
    ];
    actual = [
      (lib.elem "k3s/tls/server-ca.key" (names founder))
      (lib.elem "k3s/tls/server-ca.key" (names joiner))
      joiner.services.k3s.tokenFile
    ];
  }
  {
    name = "every server of kubeadm gets the authorities, and what proves the cluster";
    expected = true;
    actual = lib.all (name: lib.elem name (names kubeadmServer)) [
      "kubeadm/pki/ca.key"
      "kubeadm/pki/etcd-ca.crt"
      "kubeadm/pki/sa.key"
      "kubeadm/ca_cert_hash"
      "kubeadm/encryption-config.yaml"
    ];
  }
  {
    name = "servers of both distributions encrypt their snapshots of etcd, and agents take none";
    expected = [
      [
        "/run/secrets/etcd/snapshot_recipient"
        "/var/lib/rancher/k3s/server/db"
        "12h"
      ]
      [
        "/run/secrets/etcd/snapshot_recipient"
        "/var/lib/etcd"
        "12h"
      ]
      [
        false
        false
      ]
      1
    ];
    actual =
      let
        snapshots = config: [
          config.systemd.services.undercroft-etcd-snapshot.environment.UNDERCROFT_RECIPIENT
          config.systemd.services.undercroft-etcd-snapshot.environment.UNDERCROFT_DATASTORE
          config.systemd.timers.undercroft-etcd-snapshot.timerConfig.OnUnitActiveSec
        ];
        withoutSecrets = member { role = "server"; } null;
      in
      [
        (snapshots joiner)
        (snapshots kubeadmServer)
        (map (config: config.systemd.services ? undercroft-etcd-snapshot) [
          agent
          withoutSecrets
        ])
        (lib.length (about "nobody\nto encrypt them to" withoutSecrets.warnings))
      ];
  }
  {
    name = "files that sops wrote are accepted";
    expected = [ ];
    actual = refused agent ++ refused joiner;
  }
  {
    name = "plain text is refused, and not shown";
    expected = [
      2
      [ ]
    ];
    actual = [
      (lib.length (about "isn't encrypted" (refused plain)))
      (about "this-is-not-encrypted" (refused plain) ++ about "neither is this" (refused plain))
    ];
  }
  {
    name = "a file that isn't there is said to be missing";
    expected = 1;
    actual = lib.length (
      about "overlay.sops.yaml isn't in" (
        refused (
          node [
            {
              undercroft.secrets.directory = good;
              undercroft.secrets.wanted."tailscale/auth_key".file = "overlay";
              undercroft.disks.root = [ { device = "/dev/sda"; serial = "A"; } ];
            }
          ]
        )
      )
    );
  }
  {
    name = "a repository without secrets evaluates, and says what the machine can't do";
    expected = [
      [ ]
      1
    ];
    actual = [
      (refused none)
      (lib.length (about "it can't join" none.warnings))
    ];
  }
]
