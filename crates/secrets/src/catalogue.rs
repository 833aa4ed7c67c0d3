//! Which secrets a fleet has, in which file each lies, and who can open that: read off the
//! inventory, and nothing else.
//!
//! A file goes to the operators and to those machines alone that can't work without it.

use std::collections::BTreeSet;

use undercroft_model::{
    NodeName,
    inventory::{Component, Distribution, Inventory, Layout, OverlayKind, Role, SecretsBackend},
};

/// How a secret comes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Make {
    /// A password of letters and digits.
    Password,
    /// The token of k3s' servers or agents in its full form, bound to the cluster's CA.
    K3sToken {
        /// The user of the token: `server` or `node`.
        user: &'static str,
    },
    /// The certificate of a CA of its own; its key is made with it.
    CaCertificate {
        /// The subject's common name.
        common_name: String,
    },
    /// The key of the CA whose certificate stands before it.
    CaKey,
    /// A key that signs service accounts' tokens.
    SigningKey {
        /// Whether it is in the form of SEC 1, as k3s needs it, rather than in PKCS #8.
        sec1: bool,
    },
    /// The public half of the signing key.
    PublicKeyOf(&'static str),
    /// What the API server encrypts secrets in etcd with, as a configuration file.
    EncryptionConfig {
        /// Whether it is JSON, as k3s keeps it, rather than YAML.
        json: bool,
    },
    /// An age identity.
    AgeIdentity,
    /// The recipient of an identity.
    AgeRecipientOf(&'static str),
    /// The same text as another secret.
    CopyOf(&'static str),
    /// The hash of a CA's public key, as kubeadm's discovery takes it.
    CaHashOf(&'static str),
    /// A key of Headscale's.
    TailscaleKey,
    /// A seed of NATS' keys.
    NatsSeed(NatsKind),
    /// An SSH key whose public half is told to another server.
    SshKey,
    /// Only a person can give it.
    Asked,
}

/// Kinds of NATS' keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatsKind {
    /// Signs accounts.
    Operator,
    /// Signs users.
    Account,
    /// A client.
    User,
}

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name: the path of its keys in the file.
    pub name: String,
    /// How it comes to be.
    pub make: Make,
    /// What it is, in a phrase.
    pub about: &'static str,
    /// What to do so that a new value is used, in a sentence.
    pub after_rotation: &'static str,
}

/// Who can open a file beside the operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Nobody.
    Operators,
    /// Some machines, for a reason.
    Nodes(BTreeSet<NodeName>, &'static str),
    /// A person, by an age recipient, with the person's name.
    Person(String, String),
}

/// One file of secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Its path in the secrets folder.
    pub path: String,
    /// Who can open it.
    pub audience: Audience,
    /// What is in it.
    pub secrets: Vec<Secret>,
}

const RESTART_SERVERS: &str = "Give the running cluster the new token first, with `k3s token rotate` on a server; then `undercroft up` brings it to the machines.";
/// k3s keeps the agents' password in a file that it compares with its datastore at each start, and
/// only the rotation of the servers' token writes that file there (k3s, pkg/cluster/bootstrap.go
/// and pkg/server/handlers/token.go).
const AGENT_TOKEN_AFTER: &str = "`undercroft up` brings it to the machines; agents that run stay joined. Then restart k3s on one server and rotate k3s/server_token there as well: that alone tells the datastore, and a server that starts a second time before that refuses to (rancher/rke2#5785).";
const CA_AFTER: &str = "A running cluster keeps its old authority until `k3s certificate rotate-ca` (or kubeadm's certificate procedure) has been carried out on a server; every certificate and kubeconfig changes with it.";
/// Name of the seed of the server of lending in the cluster.
pub(super) const LENDING_SERVER_SEED: &str = "lending/server_seed";
const APPLY: &str = "`undercroft up` puts it into the cluster.";

/// The CAs of k3s: the names of their files below `server/tls`, and the common name's start.
const K3S_CAS: [(&str, &str); 5] = [
    ("server-ca", "k3s-server-ca"),
    ("client-ca", "k3s-client-ca"),
    ("request-header-ca", "k3s-request-header-ca"),
    ("etcd-server-ca", "etcd-server-ca"),
    ("etcd-peer-ca", "etcd-peer-ca"),
];
/// The CAs of kubeadm, and their common names.
const KUBEADM_CAS: [(&str, &str); 3] = [
    ("ca", "kubernetes"),
    ("front-proxy-ca", "front-proxy-ca"),
    ("etcd-ca", "etcd-ca"),
];

fn secret(
    name: impl Into<String>,
    make: Make,
    about: &'static str,
    after_rotation: &'static str,
) -> Secret {
    Secret {
        name: name.into(),
        make,
        about,
        after_rotation,
    }
}

/// All files of secrets that the fleet should have. What machines need to come up is SOPS' whatever keeps the
/// applications' secrets: those come from inside the cluster, and it isn't there yet.
pub fn catalogue(inventory: &Inventory) -> Vec<SecretFile> {
    let with_role = |role: Role| -> BTreeSet<NodeName> {
        inventory
            .nodes
            .iter()
            .filter(|(_, node)| node.role == role)
            .map(|(name, _)| name.clone())
            .collect()
    };
    let mut files = Vec::new();
    let distribution = inventory.kubernetes.distribution;
    if distribution != Distribution::None {
        let servers = with_role(Role::Server);
        let members: BTreeSet<NodeName> = servers
            .iter()
            .cloned()
            .chain(with_role(Role::Agent))
            .collect();
        files.push(SecretFile {
            path: "servers.sops.yaml".to_owned(),
            audience: Audience::Nodes(servers, "servers"),
            secrets: servers_secrets(inventory),
        });
        files.push(SecretFile {
            path: "agents.sops.yaml".to_owned(),
            audience: Audience::Nodes(members, "servers and agents"),
            secrets: agents_secrets(distribution),
        });
    }
    let operators = operators_secrets(inventory);
    if !operators.is_empty() {
        files.push(SecretFile {
            path: "operators.sops.yaml".to_owned(),
            audience: Audience::Operators,
            secrets: operators,
        });
    }
    overlay(inventory, &mut files);
    pcs(inventory, &mut files);
    files
}

fn servers_secrets(inventory: &Inventory) -> Vec<Secret> {
    let fleet = &inventory.fleet.name;
    let mut secrets = Vec::new();
    let mut ca = |folder: &str, file: &str, common_name: String, about: &'static str| {
        secrets.push(secret(
            format!("{folder}/{file}.crt"),
            Make::CaCertificate { common_name },
            about,
            CA_AFTER,
        ));
        secrets.push(secret(
            format!("{folder}/{file}.key"),
            Make::CaKey,
            "the key of that authority",
            CA_AFTER,
        ));
    };
    if inventory.kubernetes.distribution == Distribution::K3s {
        for (file, start) in K3S_CAS {
            ca(
                "k3s/tls",
                file,
                format!("{start}@{fleet}"),
                "a certificate authority of k3s",
            );
        }
        secrets.extend([
            secret(
                "k3s/tls/service.key",
                Make::SigningKey { sec1: true },
                "signs the tokens of service accounts",
                "A running cluster keeps its old key until `k3s certificate rotate-ca` has been carried out on a server, with the old key after the new one; when all pods have been restarted, the old one goes the same way.",
            ),
            secret(
                "k3s/server_token",
                Make::K3sToken { user: "server" },
                "lets a server join",
                RESTART_SERVERS,
            ),
            secret(
                "k3s/encryption-config.json",
                Make::EncryptionConfig { json: true },
                "encrypts Kubernetes' secrets in etcd",
                "Use `k3s secrets-encrypt rotate-keys` on a running cluster instead: a file that is only replaced makes the stored secrets unreadable.",
            ),
        ]);
    } else {
        for (file, common_name) in KUBEADM_CAS {
            ca(
                "kubeadm/pki",
                file,
                common_name.to_owned(),
                "a certificate authority of kubeadm",
            );
        }
        secrets.extend([
            secret(
                "kubeadm/pki/sa.key",
                Make::SigningKey { sec1: false },
                "signs the tokens of service accounts",
                "Every service account's token becomes invalid: restart the control plane, then all pods.",
            ),
            secret(
                "kubeadm/pki/sa.pub",
                Make::PublicKeyOf("kubeadm/pki/sa.key"),
                "the public half of the signing key",
                "It follows from the signing key.",
            ),
            secret(
                "kubeadm/encryption-config.yaml",
                Make::EncryptionConfig { json: false },
                "encrypts Kubernetes' secrets in etcd",
                "Keep the old key as the second one in the file until all secrets are written anew: a file that is only replaced makes the stored secrets unreadable.",
            ),
        ]);
    }
    secrets.push(secret(
        "etcd/snapshot_recipient",
        Make::AgeRecipientOf("etcd/snapshot_identity"),
        "what snapshots of etcd are encrypted to before they leave a server",
        "It follows from the snapshots' identity.",
    ));
    secrets
}

fn agents_secrets(distribution: Distribution) -> Vec<Secret> {
    if distribution == Distribution::K3s {
        return vec![secret(
            "k3s/agent_token",
            Make::K3sToken { user: "node" },
            "lets an agent join",
            AGENT_TOKEN_AFTER,
        )];
    }
    vec![
        secret(
            "kubeadm/ca.crt",
            Make::CopyOf("kubeadm/pki/ca.crt"),
            "the cluster's authority, to know its API by",
            "It follows from the authority.",
        ),
        secret(
            "kubeadm/ca_cert_hash",
            Make::CaHashOf("kubeadm/pki/ca.crt"),
            "the hash by which a joining machine knows the cluster's authority",
            "It follows from the authority.",
        ),
    ]
}

fn operators_secrets(inventory: &Inventory) -> Vec<Secret> {
    let mut secrets = Vec::new();
    let cluster = inventory.kubernetes.distribution != Distribution::None;
    if cluster {
        secrets.push(secret(
            "etcd/snapshot_identity",
            Make::AgeIdentity,
            "opens snapshots of etcd",
            "Keep the old identity for as long as snapshots are kept that are encrypted to it.",
        ));
    }
    for (name, node) in &inventory.nodes {
        if node.layout == Layout::ZfsEncrypted {
            secrets.push(secret(
                format!("disks/{name}"),
                Make::Password,
                "the passphrase of that machine's disk",
                "Change the key on the machine first, with `zfs change-key`; the value here is for its next start.",
            ));
        }
    }
    let uses = |component| cluster && inventory.gitops.components.contains(&component);
    if let Some(repository) = inventory.gitops.repository.as_deref().filter(|_| cluster) {
        if is_ssh(repository) {
            secrets.push(secret(
                "argocd/repository_ssh_key",
                Make::SshKey,
                "Argo CD's deploy key for the repository",
                "Register its public half with the git server, which `undercroft secrets list --public` prints; then `undercroft up` puts it into the cluster.",
            ));
        } else {
            secrets.push(secret(
                "argocd/repository_username",
                Make::Asked,
                "Argo CD's user at the git server, where the repository isn't public",
                APPLY,
            ));
            secrets.push(secret(
                "argocd/repository_password",
                Make::Asked,
                "Argo CD's token at the git server, where the repository isn't public",
                APPLY,
            ));
        }
    }
    // A Vault has its own entry for it, which the cluster fetches.
    if uses(Component::Grafana) && inventory.secrets.backend != SecretsBackend::Vault {
        secrets.push(secret(
            "grafana/admin_password",
            Make::Password,
            "the password of Grafana's user admin",
            APPLY,
        ));
    }
    // A Vault has its own entry for this one, too.
    if uses(Component::LendingServer) && inventory.secrets.backend != SecretsBackend::Vault {
        secrets.push(secret(
            LENDING_SERVER_SEED,
            Make::NatsSeed(NatsKind::User),
            "by which NATS knows the server of lending",
            "Make its public half, which `undercroft secrets list --public` prints, `server_key` of [lending]; then `undercroft up` puts it into the cluster. Until both are there the server is refused.",
        ));
    }
    if uses(Component::Nats) || inventory.lending.enabled {
        for (name, kind, about) in [
            (
                "nats/operator_seed",
                NatsKind::Operator,
                "signs the accounts of NATS",
            ),
            (
                "nats/account_seed",
                NatsKind::Account,
                "signs the users of the fleet's account",
            ),
            (
                "nats/system_seed",
                NatsKind::Account,
                "signs the users of NATS' system account",
            ),
        ] {
            secrets.push(secret(
                name,
                Make::NatsSeed(kind),
                about,
                "Everything that it has signed must be signed anew.",
            ));
        }
    }
    secrets
}

fn overlay(inventory: &Inventory, files: &mut Vec<SecretFile>) {
    let overlay = &inventory.network.overlay;
    if overlay.kind == OverlayKind::None {
        return;
    }
    let headscale = overlay.kind == OverlayKind::Headscale;
    // The control server is no client of its own overlay.
    let clients: BTreeSet<NodeName> = inventory
        .nodes
        .keys()
        .filter(|name| !headscale || overlay.server_node.as_ref() != Some(*name))
        .cloned()
        .collect();
    if let Some(server) = overlay.server_node.as_ref().filter(|_| headscale) {
        let after = "Every client of the overlay must log in anew.";
        let mut secrets = vec![secret(
            "headscale/noise_private.key",
            Make::TailscaleKey,
            "by which clients know the overlay's control server",
            after,
        )];
        if overlay.derp {
            secrets.push(secret(
                "headscale/derp_private.key",
                Make::TailscaleKey,
                "by which clients know the overlay's relay",
                "`undercroft up` brings it to the machine.",
            ));
        }
        files.push(SecretFile {
            path: "overlay-server.sops.yaml".to_owned(),
            audience: Audience::Nodes([server.clone()].into(), "the overlay's control server"),
            secrets,
        });
    }
    files.push(SecretFile {
        path: "overlay.sops.yaml".to_owned(),
        audience: Audience::Nodes(clients, "the overlay's nodes"),
        secrets: vec![secret(
            "tailscale/auth_key",
            Make::Asked,
            "lets a machine into the overlay; the control server makes it",
            "`undercroft up` brings it to the machines; those that are in stay in.",
        )],
    });
}

fn pcs(inventory: &Inventory, files: &mut Vec<SecretFile>) {
    for (name, pc) in &inventory.pcs {
        let owner = pc.users.first();
        let recipient = owner
            .and_then(|owner| inventory.users.get(owner))
            .and_then(|user| user.age_recipient.clone());
        let (Some(owner), Some(recipient), true) = (owner, recipient, pc.lend.enabled) else {
            continue;
        };
        files.push(SecretFile {
            path: format!("pcs/{name}.sops.yaml"),
            audience: Audience::Person(owner.to_string(), recipient),
            secrets: vec![secret(
                "nats/user_seed",
                Make::NatsSeed(NatsKind::User),
                "by which NATS knows this PC's lending service",
                "The owner's next `home-manager switch` brings it to the PC.",
            )],
        });
    }
}

/// Whether a git URL is reached over SSH.
pub(super) fn is_ssh(url: &str) -> bool {
    url.starts_with("ssh://") || (!url.contains("://") && url.contains('@') && url.contains(':'))
}
