//! Bring-ups in which nothing goes wrong, and what must be true afterwards.

use serde_json::Value;

use crate::fleet::{Fleet, Node, inventory, missing};

/// Every machine is up, and runs what was built for it, under the key that was made for it.
pub(crate) fn assert_up(fleet: &Fleet, nodes: &[Node]) -> Value {
    let status = fleet.json(&["status", "--json"]);
    let plan = accepted_plan(fleet);
    for node in nodes {
        let seen = &status["nodes"][node.name];
        assert_eq!(seen["state"], "up", "{}: {seen:#}", node.name);
        let up = last_evidence(fleet, node.name, "up");
        let target = &plan["nodes"][node.name]["target"]["toplevel"];
        assert!(
            target
                .as_str()
                .is_some_and(|t| t.starts_with("/nix/store/")),
            "{target}"
        );
        assert_eq!(&up["booted_system"], target, "{}", node.name);
    }
    status
}

/// The plan that the journal holds.
pub(crate) fn accepted_plan(fleet: &Fleet) -> Value {
    fleet
        .records()
        .into_iter()
        .filter(|record| record["record"] == "plan-accepted")
        .map(|record| record["plan"].clone())
        .next_back()
        .expect("a plan was accepted")
}

/// All evidence of that kind that the journal holds of a machine.
pub(crate) fn evidence(fleet: &Fleet, node: &str, kind: &str) -> Vec<Value> {
    let plan = accepted_plan(fleet);
    fleet
        .records()
        .into_iter()
        .filter(|record| record["outcome"]["evidence"]["is"] == kind)
        .filter(|record| {
            let step = usize::try_from(record["step"].as_u64().unwrap()).unwrap();
            plan["steps"][step]["node"] == node
        })
        .map(|record| record["outcome"]["evidence"].clone())
        .collect()
}

fn last_evidence(fleet: &Fleet, node: &str, kind: &str) -> Value {
    evidence(fleet, node, kind)
        .pop()
        .unwrap_or_else(|| panic!("no {kind} evidence of {node} in the journal"))
}

/// How often a machine's disk was wiped, as far as the journal knows.
pub(crate) fn wipes(fleet: &Fleet, node: &str) -> usize {
    evidence(fleet, node, "partitioned")
        .iter()
        .filter(|e| e["wiped"] == true)
        .count()
}

#[test]
fn three_machines_in_parallel_and_then_a_changed_host_key() {
    if let Some(reason) = missing(&[]) {
        println!("SKIPPED: {reason}");
        return;
    }
    let nodes = [
        Node::uefi("virtio-1", 11),
        Node::uefi("virtio-2", 12),
        Node {
            disk_bus: "nvme",
            ..Node::uefi("nvme-1", 13)
        },
    ];
    let mut fleet = Fleet::start("three", &inventory("server", &nodes), &[]);
    let up = fleet.call(&["up", "--yes"]);
    assert!(up.status.success(), "{}", up.text);
    assert_up(&fleet, &nodes);
    for node in &nodes {
        assert_eq!(wipes(&fleet, node.name), 1, "{}", node.name);
        assert!(up.text.contains(node.name), "{}", up.text);
        let facts = fleet.folder.join(format!("facts/{}.json", node.name));
        let facts = std::fs::read_to_string(&facts).unwrap();
        let facts: Value = serde_json::from_str(&facts).unwrap();
        assert_eq!(facts["disks"][0]["serial"], node.serial(), "{facts:#}");
        // What ends with the installer is no fact of the machine's.
        assert_eq!(facts["fingerprint"], Value::Null, "{facts:#}");
    }

    let plan = fleet.call(&["plan"]);
    assert_eq!(
        plan.status.code(),
        Some(0),
        "a converged fleet has an empty plan: {}",
        plan.text
    );
    let again = fleet.call(&["up", "--yes"]);
    assert!(again.status.success(), "{}", again.text);
    assert_eq!(wipes(&fleet, "virtio-1"), 1, "the second run wiped a disk");

    let who = fleet.call(&["ssh", "virtio-1", "--", "readlink", "/run/booted-system"]);
    assert!(
        who.status.success() && who.text.contains("/nix/store/"),
        "{}",
        who.text
    );
    let secrets = fleet.call(&["ssh", "virtio-1", "--", "cat", "/proc/cmdline"]);
    assert!(!secrets.text.contains("PRIVATE"), "{}", secrets.text);

    // The repository says that the two have each other's keys: each answers under a key that isn't
    // the one that was made for it, and nothing of theirs is trusted, and nothing is wiped.
    swap_keys(&fleet, "virtio-1", "virtio-2");
    let ssh = fleet.call(&["ssh", "virtio-2", "--", "true"]);
    assert!(
        !ssh.status.success() && ssh.text.contains("was proved to have the host key"),
        "{}",
        ssh.text
    );
    let plan = fleet.call(&["plan"]);
    assert!(
        plan.text.contains("virtio-2") && plan.text.contains("host key"),
        "{}",
        plan.text
    );
    let refused = fleet.call(&["up", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text);
    assert_eq!(
        wipes(&fleet, "virtio-2"),
        1,
        "a machine with a foreign key was wiped"
    );
    swap_keys(&fleet, "virtio-1", "virtio-2");
    assert_adopted(&mut fleet, &nodes);
    assert_updated(&mut fleet, &nodes);
}

/// Other systems are built, and the machines get them wave by wave: one first, and nothing of a disk is laid out anew.
fn assert_updated(fleet: &mut Fleet, nodes: &[Node]) {
    let left = fleet.call(&["plan", "--generation", "2"]);
    assert!(
        left.text.contains("running another system"),
        "{}",
        left.text
    );
    let plan = fleet.call(&["plan", "--update", "--generation", "2"]);
    assert_eq!(plan.status.code(), Some(2), "{}", plan.text);
    assert!(
        plan.text.contains("1 to update, 2 to update later")
            && plan.text.contains("fetch")
            && plan.text.contains("is updated first"),
        "{}",
        plan.text
    );
    let before: Vec<String> = nodes.iter().map(|node| boot_id(fleet, node)).collect();
    let up = fleet.call(&["up", "--update", "--generation", "2"]);
    assert!(up.status.success(), "{}", up.text);
    for (node, before) in std::iter::zip(nodes, before) {
        assert_ne!(boot_id(fleet, node), before, "{} didn't restart", node.name);
        assert_eq!(wipes(fleet, node.name), 0, "{}", node.name);
    }
    let plan = fleet.call(&["plan", "--update", "--generation", "2"]);
    assert_eq!(plan.status.code(), Some(0), "{}", plan.text);
    let waves = accepted_waves(fleet);
    assert!(
        waves.first().is_some_and(|wave| wave.len() == 1) && waves.len() == 3,
        "{waves:?}"
    );
}

fn boot_id(fleet: &mut Fleet, node: &Node) -> String {
    let words = [
        "ssh",
        node.name,
        "--",
        "cat",
        "/proc/sys/kernel/random/boot_id",
    ];
    let said = fleet.call(&words);
    assert!(said.status.success(), "{}", said.text);
    said.text
}

/// The machines of each wave of an update that the journal has.
fn accepted_waves(fleet: &Fleet) -> Vec<Vec<String>> {
    let records = fleet.records().into_iter();
    let plans = records.filter(|record| !record["plan"]["wave"].is_null());
    let names = |record: Value| {
        let nodes = record["plan"]["nodes"].as_object().cloned();
        let nodes = nodes.unwrap_or_default().into_iter();
        nodes.map(|(name, _)| name).collect()
    };
    plans.map(names).collect()
}

fn swap_keys(fleet: &Fleet, one: &str, other: &str) {
    let keys = fleet.folder.join("secrets/host-keys");
    for half in ["age", "pub"] {
        let file = |name: &str| keys.join(format!("{name}.{half}"));
        std::fs::rename(file(one), file("aside")).unwrap();
        std::fs::rename(file(other), file(one)).unwrap();
        std::fs::rename(file("aside"), file(other)).unwrap();
    }
}

/// The journal is lost, so that nobody knows who has installed these machines: they are taken as they are.
fn assert_adopted(fleet: &mut Fleet, nodes: &[Node]) {
    let names: Vec<&str> = nodes.iter().map(|node| node.name).collect();
    let written = |fleet: &Fleet| -> Vec<u64> {
        let each = nodes.iter();
        each.map(|node| fleet.disk_written_bytes(node)).collect()
    };
    for entry in std::fs::read_dir(fleet.folder.join(".undercroft")).unwrap() {
        let path = entry.unwrap().path();
        let is_journal = |name: &str| name.starts_with("journal");
        if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_journal)
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    let lost = fleet.call(&["status"]);
    assert!(lost.text.contains("unknown"), "{}", lost.text);
    let before = written(fleet);
    let named = names.join(",");
    let plan = fleet.call(&["plan", "--adopt", &named]);
    assert_eq!(plan.status.code(), Some(2), "{}", plan.text);
    assert!(plan.text.contains("steps     prove\n"), "{}", plan.text);
    let up = fleet.call(&["up", "--yes", "--adopt", &named]);
    assert!(up.status.success(), "{}", up.text);
    assert_up(fleet, nodes);
    for name in &names {
        assert_eq!(wipes(fleet, name), 0, "{name}");
    }
    // What their systems write by themselves is little; a disk that was laid out has its table anew.
    let grown = std::iter::zip(before, written(fleet));
    for (before, after) in grown {
        assert!(after - before < 64 << 20, "{before} {after}");
    }
    let plan = fleet.call(&["plan"]);
    assert_eq!(plan.status.code(), Some(0), "{}", plan.text);
    let who = fleet.call(&["ssh", "virtio-1", "--", "true"]);
    assert!(who.status.success(), "{}", who.text);
}
