//! Two programs read undercroft.toml: the model in Rust, and the pure half in Nix. Here they are
//! held to the same reading, for every machine and PC of every example.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use undercroft_model::inventory::{self, DiskRole, Distribution, Inventory, Role};

use crate::support::{evaluate, examples, nix_is_here, pure_half, repository};

fn parsed(text: &str) -> Inventory {
    let parsed = inventory::parse("undercroft.toml", text.as_bytes());
    parsed
        .inventory
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

fn of_example(name: &str) -> Inventory {
    let path = repository().join(format!("examples/{name}/undercroft.toml"));
    parsed(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn nix_reads_every_machine_as_the_model_does() {
    if !nix_is_here() {
        return;
    }
    for example in examples() {
        let inventory = of_example(&example);
        compare(&example, &inventory, &pure_half(&example));
    }
}

/// What an inventory leaves out is where two readers drift apart first: each kind of class, with
/// nothing said that has a default.
#[test]
fn nix_has_the_models_defaults() {
    if !nix_is_here() {
        return;
    }
    let mut text = String::from(
        "[fleet]\nname = \"bare\"\n[network]\nnode_cidr = \"10.0.0.0/20\"\nserver_address = \"10.0.0.2\"\n\
         [kubernetes]\ndistribution = \"k3s\"\nfounder = \"control\"\n\
         [users.kim]\n[pcs.kims]\nos = \"linux\"\nsystem = \"x86_64-linux\"\nusers = [\"kim\"]\n",
    );
    for (index, kind) in ["control", "gpu", "phone-host", "pi", "plain"]
        .iter()
        .enumerate()
    {
        text += &format!(
            "[classes.{kind}]\nkind = \"{kind}\"\n[nodes.{kind}]\nclass = \"{kind}\"\n\
             macs = [\"02:00:00:00:00:0{index}\"]\naddress = \"10.0.1.{index}\"\ndisks = [{{ serial = \"D{index}\" }}]\n"
        );
    }
    text += "[classes.bare]\n[nodes.bare]\nclass = \"bare\"\nmacs = [\"02:00:00:00:01:00\"]\n\
             address = \"10.0.2.1\"\ndisks = [{ serial = \"E\" }]\n[classes.gpu.gpu]\nmodel = \"l40s\"\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("undercroft.toml"), &text).unwrap();
    let evaluated = evaluate("golden.nix", Some(folder.path()));
    compare("bare", &parsed(&text), &evaluated);
    // The machine that says least says it in the model's words.
    assert_eq!(
        evaluated["nodes"]["bare"]["settings"]["node"]["kind"],
        "plain"
    );
}

fn compare(example: &str, inventory: &Inventory, evaluated: &Value) {
    let nodes = evaluated["nodes"].as_object().unwrap();
    let names: BTreeSet<&str> = nodes.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = inventory.nodes.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, known, "{example}");
    for name in inventory.nodes.keys() {
        let nix = &nodes[name.as_str()];
        let got = what_nix_says(nix);
        let want = what_the_model_says(inventory, name);
        assert_eq!(got, want, "{example}, node {name}");
    }
    for (name, pc) in &inventory.pcs {
        let settings = &evaluated["pcs"][name.as_str()]["settings"];
        let want = json!({
            "os": pc.os, "system": pc.system, "users": pc.users, "dev_cluster": pc.dev_cluster,
            "overlay": pc.overlay, "slots": pc.lend.slots, "cpu": pc.lend.cpu_percent,
            "memory": pc.lend.memory_mb, "disk": pc.lend.disk_mb, "idle": pc.lend.idle_after_s,
            "lends": inventory.lending.enabled && pc.lend.enabled,
            "lease": inventory.lending.lease_s, "pause": inventory.lending.pause_s,
            "wall": inventory.lending.job_wall_s,
        });
        let lend = &settings["lend"];
        let pc = &settings["pc"];
        let got = json!({
            "os": pc["os"], "system": pc["system"], "users": pc["users"],
            "dev_cluster": pc["devCluster"], "overlay": pc["overlay"], "slots": lend["slots"],
            "cpu": lend["cpuPercent"], "memory": lend["memoryMb"], "disk": lend["diskMb"],
            "idle": lend["idleAfterS"], "lends": lend["enable"], "lease": lend["leaseS"],
            "pause": lend["pauseS"], "wall": lend["jobWallS"],
        });
        assert_eq!(got, want, "{example}, PC {name}");
    }
}

fn what_nix_says(nix: &Value) -> Value {
    let settings = &nix["settings"];
    let node = &settings["node"];
    let kubernetes = &settings["kubernetes"];
    let disks = &settings["disks"];
    let identities = |role: &str| -> Value {
        disks[role]
            .as_array()
            .unwrap()
            .iter()
            .map(|disk| json!([disk["serial"], disk["wwn"], disk["sizeGb"]]))
            .collect()
    };
    let gpu = &settings["gpu"];
    let root_keys: BTreeSet<&str> = settings["ssh"]["rootKeys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap())
        .collect();
    let annotation: Value = nix["derived"]["longhornAnnotation"]
        .as_str()
        .map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
    json!({
        "class": node["class"], "kind": node["kind"], "system": node["system"],
        "firmware": node["firmware"], "layout": disks["layout"], "role": node["role"],
        "address": node["address"], "macs": node["macs"], "kernel_params": node["kernelParams"],
        "esp_mb": disks["espMb"], "root": identities("root"), "longhorn": identities("longhorn"),
        "data": identities("data"), "partition_gb": disks["longhornPartitionGb"],
        "gpu": if gpu["enable"] == true {
            json!([gpu["model"], gpu["count"], gpu["driver"], gpu["sharing"], gpu["replicas"], gpu["migConfig"]])
        } else {
            Value::Null
        },
        "hats": settings["hats"]["boards"],
        "phones": settings["phones"]["phones"],
        "root_keys": root_keys,
        "in_cluster": kubernetes["enable"],
        "labels": if kubernetes["enable"] == true { nix["derived"]["labels"].clone() } else { json!({}) },
        "taints": kubernetes["taints"],
        "annotation": annotation,
        "founder": kubernetes["founder"],
        "servers": kubernetes["servers"],
        "networks": [kubernetes["podCidr"], kubernetes["serviceCidr"], kubernetes["clusterDomain"]],
        "snapshots": [kubernetes["snapshot"]["intervalH"], kubernetes["snapshot"]["keep"]],
        "state_version": node["stateVersion"],
        "overlay": [settings["overlay"]["kind"], settings["overlay"]["cidr"], settings["overlay"]["server"]["derp"]],
    })
}

fn what_the_model_says(inventory: &Inventory, name: &undercroft_model::NodeName) -> Value {
    let node = &inventory.nodes[name];
    let kubernetes = &inventory.kubernetes;
    let clustered = kubernetes.distribution != Distribution::None;
    let identities = |role: DiskRole| -> Value {
        node.disks
            .iter()
            .filter(|disk| disk.role == role)
            .map(|disk| json!([disk.serial, disk.wwn, disk.size_gb]))
            .collect()
    };
    let annotation = inventory
        .node_annotations(name)
        .remove(inventory::LONGHORN_DISK_ANNOTATION)
        .map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
    let servers: serde_json::Map<String, Value> = inventory
        .servers()
        .into_iter()
        .map(|name| (name.to_string(), json!(inventory.nodes[name].address)))
        .collect();
    json!({
        "class": node.class, "kind": node.kind, "system": node.system, "firmware": node.firmware,
        "layout": node.layout, "role": node.role, "address": node.address, "macs": node.macs,
        "kernel_params": node.kernel_params, "esp_mb": node.esp_mb,
        "root": identities(DiskRole::Root), "longhorn": identities(DiskRole::Longhorn),
        "data": identities(DiskRole::Data),
        "partition_gb": node.longhorn.as_ref().and_then(|l| l.partition_gb),
        "gpu": node.gpu.as_ref().map(|g| json!([g.model, g.count, g.driver, g.sharing, g.replicas, g.mig_config])),
        "hats": node.hats,
        "phones": node.phones.iter()
            .map(|p| json!({ "slot": p.slot, "serial": p.serial, "model": p.model }))
            .collect::<Vec<_>>(),
        "root_keys": inventory.root_keys().into_iter().collect::<BTreeSet<_>>(),
        "in_cluster": clustered && node.role != Role::None,
        "labels": inventory.node_labels(name),
        "taints": node.taints,
        "annotation": annotation,
        "founder": clustered && kubernetes.founder.as_ref() == Some(name),
        "servers": servers,
        "networks": [json!(kubernetes.pod_cidr), json!(kubernetes.service_cidr), json!(kubernetes.cluster_domain)],
        "snapshots": [kubernetes.snapshot_interval_h, kubernetes.snapshot_keep],
        "state_version": inventory.fleet.state_version,
        "overlay": [
            json!(inventory.network.overlay.kind), json!(inventory.network.overlay.cidr),
            json!(inventory.network.overlay.derp),
        ],
    })
}
