//! What a class says, and what a node says in its place: cards, labels, power.

use std::collections::{BTreeMap, BTreeSet};

use super::{gpu, state::Check};
use crate::{
    System,
    inventory::{Class, Gpu, Kind, Power, PowerKind, forms, source::Finding},
};

pub(super) fn check(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let used: BTreeSet<_> = draft.nodes.values().map(|node| &node.class).collect();
    let all_read = c.all_nodes_read() && draft.without_class.is_empty();
    for (name, class) in &draft.classes {
        self::class(c, name.as_str(), class);
        if all_read && !used.contains(name) {
            let message = format!("no node belongs to the class `{name}`");
            let hint = "Take it out, or leave it for later.";
            c.warning("unused-class", &["classes", name.as_str()], message, hint);
        }
    }
    for (name, node) in &draft.nodes {
        let name = name.as_str();
        let at = |key| ["nodes", name, key];
        if c.has(&at("power")) {
            power(c, &at("power"), &node.power);
        }
        if c.has(&at("labels")) {
            labels(c, &at("labels"), &node.labels);
        }
        if let Some(gpu) = node.gpu.as_ref().filter(|_| c.has(&at("gpu"))) {
            cards(c, &at("gpu"), gpu);
        }
    }
}

fn class(c: &mut Check<'_, '_>, name: &str, class: &Class) {
    let path = |key| ["classes", name, key];
    if matches!(class.system(), System::X86_64Darwin | System::Aarch64Darwin) {
        let message = format!("a node can't run {}", class.system());
        let hint = "Nodes run \"x86_64-linux\" or \"aarch64-linux\"; Macs belong under [pcs].";
        c.error("not-a-node-system", &path("system"), message, hint);
    }
    if class.kind == Kind::Gpu && class.gpu.is_none() && c.whole("classes", name) {
        c.warning(
            "no-gpu",
            &path("kind"),
            format!("the class `{name}` is of kind \"gpu\" and names no cards"),
            "Add `gpu = { model = \"…\" }`.",
        );
    }
    if let Some(gpu) = &class.gpu {
        cards(c, &path("gpu"), gpu);
    }
    labels(c, &path("labels"), &class.labels);
    power(c, &path("power"), &class.power);
}

pub(super) fn cards(c: &mut Check<'_, '_>, path: &[&str], gpu: &Gpu) {
    for (key, code, message, hint) in gpu::faults(gpu) {
        let mut path = path.to_vec();
        path.push(key);
        c.error(code, &path, message, hint);
    }
}

/// Labels: their keys' form, and those that the kubelet may not set itself.
pub(super) fn labels(c: &mut Check<'_, '_>, path: &[&str], labels: &BTreeMap<String, String>) {
    for key in labels.keys() {
        let finding = if !forms::is_label_key(key) {
            let message = format!("{key:?} is not the key of a label");
            Finding::error("malformed", c.at_key(path, key), message)
                .hint("A key is a name, or a DNS name, '/' and a name: \"example.com/rack\".")
        } else if is_reserved_label(key) {
            let message = format!("a node may not give itself the label `{key}`");
            Finding::error("reserved-label", c.at_key(path, key), message).hint(
                "Use a domain of your own: \"example.com/…\". Kubernetes keeps its own for itself.",
            )
        } else {
            continue;
        };
        c.report(finding);
    }
}

/// Labels that the admission plugin NodeRestriction keeps a kubelet from setting on its node
/// (Kubernetes reference, "Admission Controllers", NodeRestriction).
fn is_reserved_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return false;
    };
    let within = |zone: &str| domain == zone || domain.ends_with(&format!(".{zone}"));
    let allowed = matches!(
        key,
        "kubernetes.io/hostname"
            | "kubernetes.io/arch"
            | "kubernetes.io/os"
            | "topology.kubernetes.io/region"
            | "topology.kubernetes.io/zone"
    ) || within("kubelet.kubernetes.io")
        || within("node.kubernetes.io");
    (within("kubernetes.io") || within("k8s.io")) && !allowed
}

pub(super) fn power(c: &mut Check<'_, '_>, path: &[&str], power: &Power) {
    let section = path.first().copied().unwrap_or("");
    let owner = path.get(1).copied().unwrap_or("");
    let commands = [
        ("on", &power.on),
        ("off", &power.off),
        ("status", &power.status),
    ];
    for (key, command) in commands {
        let at: Vec<&str> = path.iter().copied().chain([key]).collect();
        if power.kind == PowerKind::Command && command.is_empty() && key != "status" {
            if c.whole(section, owner) {
                let kind: Vec<&str> = path.iter().copied().chain(["kind"]).collect();
                let message = format!("switching by commands needs `{key}`");
                let hint = format!("Add `{key} = [\"COMMAND\", \"{{node}}\", \"{key}\"]`.");
                c.error("missing-key", &kind, message, hint);
            }
        } else if power.kind != PowerKind::Command && !command.is_empty() {
            let message = format!(
                "`{key}` is without effect while `kind` is \"{}\"",
                power.kind
            );
            c.warning(
                "without-effect",
                &at,
                message,
                "Take it out, or set `kind` to \"command\".",
            );
        }
    }
    if power.broadcast.is_some() && power.kind != PowerKind::WakeOnLan {
        let at: Vec<&str> = path.iter().copied().chain(["broadcast"]).collect();
        let message = format!(
            "`broadcast` is without effect while `kind` is \"{}\"",
            power.kind
        );
        c.warning(
            "without-effect",
            &at,
            message,
            "Take it out, or set `kind` to \"wake-on-lan\".",
        );
    }
    let commands = commands.into_iter().chain([("console", &power.console)]);
    for (key, command) in commands {
        for (i, word) in command.iter().enumerate() {
            if let Some(placeholder) = unknown_placeholder(word) {
                let i = i.to_string();
                let at: Vec<&str> = path.iter().copied().chain([key, &i]).collect();
                let message = format!("`{placeholder}` stands for nothing");
                let hint = "Known are `{node}`, `{address}` and `{mac}`.";
                c.error("unknown-placeholder", &at, message, hint);
            }
        }
    }
}

/// The first `{word}` of a text that isn't a known one.
fn unknown_placeholder(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        rest = rest.get(start..)?;
        let end = rest.find('}')? + 1;
        let (placeholder, after) = rest.split_at_checked(end)?;
        let word = placeholder.trim_matches(['{', '}']);
        let name = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if name && !matches!(word, "node" | "address" | "mac") {
            return Some(placeholder);
        }
        rest = after;
    }
    None
}
