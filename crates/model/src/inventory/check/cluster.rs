//! The control plane, what the repository brings to the cluster, and the smaller sections.

use std::collections::BTreeSet;

use super::state::{Check, Seen};
use crate::inventory::{Component, DiskRole, Distribution, Kubernetes, Role, SecretsBackend};
use crate::kubernetes_minor;

/// The oldest minor version of Kubernetes 1 that is brought up: that of nixpkgs' `k3s_1_30`, in NixOS
/// 24.11, the oldest release that the modules are for. Older ones had their last release in 2024.
const KUBERNETES_MINOR_MIN: u32 = 30;
/// The newest: that of nixpkgs' `k3s_1_37`. What k3s and kubeadm are told, and which labels and kinds
/// there are, is known up to it; a later one may understand it otherwise.
const KUBERNETES_MINOR_MAX: u32 = 37;
/// The oldest with kubeadm, whose configuration is written as `v1beta4`, which came with 1.31.
const KUBEADM_MINOR_MIN: u32 = 31;
/// The NixOS releases that the modules are for, the oldest and the newest.
const RELEASES: [&str; 2] = ["24.11", "26.05"];

pub(super) fn check(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    fleet(c);
    if let Some(kubernetes) = &draft.kubernetes
        && kubernetes.distribution != Distribution::None
    {
        control_plane(c, kubernetes);
        components(c);
    }
    secrets(c);
}

fn fleet(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let Some(fleet) = &draft.fleet else {
        return;
    };
    state_version(c, &fleet.state_version);
    if fleet.retries.backoff_s > fleet.retries.backoff_max_s {
        let message = format!(
            "the first wait of {} s is longer than the longest of {} s",
            fleet.retries.backoff_s, fleet.retries.backoff_max_s
        );
        let key = ["backoff_s", "backoff_max_s"]
            .into_iter()
            .find(|key| c.has(&["fleet", "retries", key]))
            .unwrap_or("backoff_s");
        c.error(
            "contradiction",
            &["fleet", "retries", key],
            message,
            "Raise `backoff_max_s`, or lower `backoff_s`.",
        );
    }
    let mut seen = Seen::new();
    for (i, key) in fleet.admin_keys.iter().enumerate() {
        let blob = key.split_ascii_whitespace().nth(1).unwrap_or(key);
        if let Some(first) = seen.note(blob, i) {
            let (first, second) = (first.to_string(), i.to_string());
            c.duplicate(
                "duplicate-key",
                &["fleet", "admin_keys", &first],
                &["fleet", "admin_keys", &second],
                "the same SSH key is given twice".to_owned(),
                "Take one of them out.",
            );
        }
    }
}

/// A version that is no longer built, or wasn't released when this was written.
fn version(c: &mut Check<'_, '_>, kubernetes: &Kubernetes) {
    let Some(version) = &kubernetes.version else {
        return;
    };
    let kubeadm = kubernetes.distribution == Distribution::Kubeadm;
    let oldest = if kubeadm {
        KUBEADM_MINOR_MIN
    } else {
        KUBERNETES_MINOR_MIN
    };
    let known = oldest..=KUBERNETES_MINOR_MAX;
    let minor = kubernetes_minor(version);
    if minor.is_some_and(|(major, minor)| major == 1 && known.contains(&minor)) {
        return;
    }
    let by = if kubeadm { " by kubeadm" } else { "" };
    let what_then = if minor > Some((1, KUBERNETES_MINOR_MAX)) {
        "a later one needs a newer Undercroft."
    } else {
        "update an older cluster one minor version at a time first."
    };
    c.error(
        "unsupported-version",
        &["kubernetes", "version"],
        format!("Kubernetes {version} is none that Undercroft brings up{by}"),
        format!("It knows 1.{oldest} to 1.{KUBERNETES_MINOR_MAX}{by}; {what_then}"),
    );
}

/// A release of NixOS that the modules aren't for. The form is checked already, and texts of it are
/// in the order of the releases.
fn state_version(c: &mut Check<'_, '_>, version: &str) {
    let [oldest, newest] = RELEASES;
    if (oldest..=newest).contains(&version) {
        return;
    }
    c.error(
        "unsupported-release",
        &["fleet", "state_version"],
        format!("no machine was first installed with NixOS {version} by Undercroft"),
        format!(
            "Its modules are for {oldest} to {newest}. Machines that aren't installed yet take the \
             release that the flake's nixpkgs is of; it stays when NixOS is upgraded."
        ),
    );
}

fn control_plane(c: &mut Check<'_, '_>, kubernetes: &Kubernetes) {
    version(c, kubernetes);
    let draft = c.draft;
    let servers: Vec<&str> = draft
        .nodes
        .iter()
        .filter(|(_, node)| node.role == Role::Server)
        .map(|(name, _)| name.as_str())
        .collect();
    let path = &["kubernetes", "distribution"];
    // A node that couldn't be read might have been a server.
    let all_read = c.all_nodes_read();
    if servers.is_empty() {
        // Then there is no founder either, whatever is named as one; a name that isn't there says why.
        if let Some(founder) = &kubernetes.founder
            && !c.draft.nodes.contains_key(founder)
        {
            c.unknown(
                "node",
                "nodes",
                founder.as_str(),
                &["kubernetes", "founder"],
            );
        } else if all_read {
            c.error(
                "no-control-plane",
                path,
                "no node is a server, so there is no control plane",
                "Give an odd number of nodes a class of kind \"control\", or `role = \"server\"`, and \
                 name one as `founder`.",
            );
        }
        return;
    }
    if !founder(c, kubernetes, &servers) {
        return;
    }
    if servers.len().is_multiple_of(2) && all_read {
        let message = format!(
            "{} servers ({}) survive no more failures than {} would",
            servers.len(),
            servers.join(", "),
            servers.len() - 1
        );
        c.error(
            "even-control-plane",
            path,
            message,
            "etcd needs a majority: make it 1, 3 or 5 servers.",
        );
    }
}

/// Whether the founder is a server, which is reported where it isn't.
fn founder(c: &mut Check<'_, '_>, kubernetes: &Kubernetes, servers: &[&str]) -> bool {
    let Some(founder) = &kubernetes.founder else {
        if c.whole("kubernetes", "founder") {
            let hint = match servers.first() {
                Some(first) => format!("Add `founder = \"{first}\"`."),
                None => "Add `founder = \"NAME\"`, the name of a server.".to_owned(),
            };
            let message = "[kubernetes] doesn't say which node founds the cluster";
            c.error("no-founder", &["kubernetes"], message, hint);
        }
        return true;
    };
    let path = &["kubernetes", "founder"];
    match c.draft.nodes.get(founder) {
        None => {
            c.unknown("node", "nodes", founder.as_str(), path);
            false
        }
        Some(node) if node.role != Role::Server => {
            let message = format!(
                "the founder `{founder}` is no server but has the role \"{}\"",
                node.role
            );
            let hint = match servers.first() {
                Some(first) => format!("Name a server, such as `{first}`."),
                None => "Name a node whose role is \"server\".".to_owned(),
            };
            c.error("founder-not-server", path, message, hint);
            false
        }
        Some(_) => true,
    }
}

fn components(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let Some(gitops) = &draft.gitops else {
        return;
    };
    let listed: BTreeSet<Component> = gitops.components.iter().copied().collect();
    let path = &["gitops", "components"];
    for (key, list) in [
        ("components", &gitops.components),
        ("dev_without", &gitops.dev_without),
    ] {
        let mut seen = Seen::new();
        for (i, component) in list.iter().enumerate() {
            if let Some(first) = seen.note(component, i) {
                let (first, second) = (first.to_string(), i.to_string());
                c.duplicate(
                    "duplicate-component",
                    &["gitops", key, &first],
                    &["gitops", key, &second],
                    format!("`{component}` is listed twice"),
                    "Take one of them out.",
                );
            }
        }
    }
    if !listed.contains(&Component::Cilium) && c.whole("gitops", "components") {
        c.error(
            "missing-component",
            path,
            "the components lack `cilium`, without which no pod has a network",
            "Add \"cilium\".",
        );
    }
    let overlay = draft.network.as_ref().map(|n| &n.overlay);
    if listed.contains(&Component::Headscale) && overlay.is_some_and(|o| o.server_node.is_some()) {
        c.error(
            "two-owners",
            &["network", "overlay", "server_node"],
            "Headscale would run twice: on this node, and as a component in the cluster",
            "Take out `server_node`, or \"headscale\" from `gitops.components`.",
        );
    }
    let storage = draft
        .nodes
        .values()
        .filter(|n| n.longhorn.is_some() && n.role != Role::None)
        .count();
    if let Some(replicas) = gitops.longhorn_replicas
        && listed.contains(&Component::Longhorn)
        && replicas as usize > storage
        && c.all_nodes_read()
    {
        let message =
            format!("{replicas} replicas need as many storage nodes, and there are {storage}");
        c.error(
            "too-many-replicas",
            &["gitops", "longhorn_replicas"],
            message,
            "Lower it, or give more nodes a class with `longhorn`.",
        );
    }
    let disks = draft.nodes.values().flat_map(|n| &n.disks);
    let wants = storage > 0 || disks.into_iter().any(|d| d.role == DiskRole::Longhorn);
    if wants && !listed.contains(&Component::Longhorn) && c.whole("gitops", "components") {
        c.warning(
            "without-effect",
            path,
            "nodes have storage for Longhorn, which is not among the components",
            "Add \"longhorn\", or take `longhorn` out of the classes.",
        );
    }
}

fn secrets(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let Some(secrets) = &draft.secrets else {
        return;
    };
    match (secrets.backend, &secrets.vault_url) {
        (SecretsBackend::Vault, None) if c.whole("secrets", "vault_url") => c.error(
            "missing-key",
            &["secrets", "backend"],
            "the backend \"vault\" needs `vault_url`",
            "Add `vault_url = \"https://…\"`.",
        ),
        (SecretsBackend::Sops | SecretsBackend::SealedSecrets, Some(_)) => {
            let message = format!(
                "`vault_url` is without effect while `backend` is \"{}\"",
                secrets.backend
            );
            let hint = "Take it out, or set `backend` to \"vault\".";
            c.warning("without-effect", &["secrets", "vault_url"], message, hint);
        }
        _ => {}
    }
    let mut seen = Seen::new();
    for (i, recipient) in secrets.operators.iter().enumerate() {
        if let Some(first) = seen.note(recipient, i) {
            let (first, second) = (first.to_string(), i.to_string());
            c.duplicate(
                "duplicate-key",
                &["secrets", "operators", &first],
                &["secrets", "operators", &second],
                "the same recipient is given twice".to_owned(),
                "Take one of them out.",
            );
        }
    }
}
