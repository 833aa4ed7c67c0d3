//! Two programs read undercroft.toml: the model in Rust, and the pure half in Nix. Here they are
//! held to the same reading, for every machine and PC of every example.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use undercroft_lend::fleet::{FleetFile, LendingFleet};
use undercroft_model::inventory::{self, API_PORT, DiskRole, Distribution, Inventory, Role};

use crate::support::{asked_of_nix, evaluate, examples, nix_is_here, pure_half, repository};

pub(crate) fn parsed(text: &str) -> Inventory {
    let parsed = inventory::parse("undercroft.toml", text.as_bytes());
    parsed
        .inventory
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

pub(crate) fn of_example(name: &str) -> Inventory {
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

/// Three programs look for a disk by what the inventory says of it: the model, Nix among a
/// machine's facts, and the installer before it wipes. They mean the same disk.
#[test]
fn model_nix_and_installer_mean_the_same_disk() {
    if !nix_is_here() {
        return;
    }
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    for (serial, wwn, shown_serial, shown_wwn, same) in [
        ("S1", "", "S1", "naa.5000c500a1b2c3d4", true),
        (
            "S1",
            "0x5000c500a1b2c3d4",
            "S1",
            "naa.5000c500a1b2c3d4",
            true,
        ),
        (
            "S1",
            "0x5000C500A1B2C3D4",
            "S1",
            "naa.5000c500a1b2c3d4",
            true,
        ),
        ("", "0x5000C500A1B2C3D4", "S1", "naa.5000c500a1b2c3d4", true),
        ("", "eui.0025385B71B00C5A", "", "eui.0025385b71b00c5a", true),
        // All that is given must be there, and be the same.
        (
            "S1",
            "0x5000c500a1b2c3d5",
            "S1",
            "naa.5000c500a1b2c3d4",
            false,
        ),
        (
            "S2",
            "0x5000c500a1b2c3d4",
            "S1",
            "naa.5000c500a1b2c3d4",
            false,
        ),
        ("S1", "0x5000c500a1b2c3d4", "S1", "", false),
        (
            "S1",
            "0x5000c500a1b2c3d4",
            "",
            "naa.5000c500a1b2c3d4",
            false,
        ),
        // A serial number is its letters, and no other kind of name.
        ("s1", "", "S1", "", false),
        ("S1", "", "S12", "", false),
        (
            "0x5000c500a1b2c3d4",
            "",
            "S1",
            "naa.5000c500a1b2c3d4",
            false,
        ),
        ("", "S1", "S1", "", false),
    ] {
        let case = format!("{serial:?} {wwn:?} for {shown_serial:?} {shown_wwn:?}");
        let reported_wwn = match shown_wwn.strip_prefix("naa.") {
            Some(digits) => format!("0x{digits}"),
            None => shown_wwn.to_owned(),
        };
        let identity = undercroft_model::DiskIdentity {
            serial: some(serial),
            wwn: some(wwn),
        };
        let model = identity.matches(
            some(shown_serial).as_deref(),
            some(&reported_wwn).as_deref(),
        );
        assert_eq!(model, same, "the model: {case}");

        let set = |serial: &str, wwn: &str| {
            let parts = [("serial", serial), ("wwn", wwn)];
            let given = parts.iter().filter(|(_, value)| !value.is_empty());
            given
                .map(|(key, value)| format!("{key} = \"{value}\"; "))
                .collect::<String>()
        };
        let expression = format!(
            "(import {}/nix/lib/disks.nix).matches {{ {} }} {{ {} }}",
            repository().display(),
            set(serial, wwn),
            set(shown_serial, &reported_wwn)
        );
        assert_eq!(asked_of_nix(&expression), json!(same), "Nix: {case}");

        let machine = tempfile::tempdir().unwrap();
        let block = machine.path().join("sys/block/sda");
        std::fs::create_dir_all(block.join("device")).unwrap();
        std::fs::write(block.join("size"), "8388608\n").unwrap();
        std::fs::write(block.join("serial"), format!("{shown_serial}\n")).unwrap();
        std::fs::write(block.join("device/wwid"), format!("{shown_wwn}\n")).unwrap();
        let library = repository().join("crates/build/src/installer/assets/undercroft/lib.sh");
        let output = std::process::Command::new("sh")
            .args([
                "-c",
                ". \"$1\"; find_disk \"$2\" \"$3\"; echo \"$name\"",
                "find",
            ])
            .arg(&library)
            .args([serial, wwn])
            .env("UNDERCROFT_ROOT", machine.path())
            .output()
            .unwrap();
        let found = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            found.trim() == "sda",
            same,
            "the installer: {case}: {output:?}"
        );
        assert_eq!(output.status.success(), same, "the installer: {case}");
    }
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
        // The machine gives up first, and says what was wrong.
        let own_s = nix["settings"]["kubernetes"]["joinLimitSec"]
            .as_u64()
            .unwrap();
        let join_s = u64::from(inventory.fleet.timeouts.join_s);
        assert!(
            own_s < join_s && own_s + 30 >= join_s,
            "{example}, node {name}: {own_s} of {join_s} s"
        );
    }
    lending(example, inventory, evaluated);
    for (name, pc) in &inventory.pcs {
        let settings = &evaluated["pcs"][name.as_str()]["settings"];
        let lending = &inventory.lending;
        let both = |own: &[String], offered: &[String]| -> Vec<String> {
            let shared = own.iter().filter(|one| offered.contains(one));
            shared.cloned().collect()
        };
        let words = |runtimes: &[inventory::Runtime]| -> Vec<String> {
            runtimes.iter().map(|one| one.as_str().to_owned()).collect()
        };
        let want = json!({
            "gpu": pc.lend.gpu, "network": pc.lend.network, "hours": pc.lend.hours,
            "runtimes": both(&words(&pc.lend.runtimes), &words(&lending.runtimes)),
            "tenants": if pc.lend.tenants.is_empty() {
                lending.tenants.clone()
            } else {
                both(&pc.lend.tenants, &lending.tenants)
            },
            "nats": [json!(lending.nats_url), json!(lending.account), json!(lending.max_sensitivity)],
            "heartbeat": lending.heartbeat_s, "attempts": lending.attempts,
            "people": people(inventory, |user| pc.users.contains(user)),
            "joins": overlay_of(inventory, pc.overlay),
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
            "gpu": lend["gpu"], "network": lend["network"], "hours": lend["hours"],
            "runtimes": lend["runtimes"], "tenants": lend["tenants"],
            "nats": [lend["natsUrl"], lend["account"], lend["maxSensitivity"]],
            "heartbeat": lend["heartbeatS"], "attempts": lend["attempts"],
            "people": settings["users"], "joins": settings["overlay"],
            "os": pc["os"], "system": pc["system"], "users": pc["users"],
            "dev_cluster": pc["devCluster"], "overlay": pc["overlay"], "slots": lend["slots"],
            "cpu": lend["cpuPercent"], "memory": lend["memoryMb"], "disk": lend["diskMb"],
            "idle": lend["idleAfterS"], "lends": lend["enable"], "lease": lend["leaseS"],
            "pause": lend["pauseS"], "wall": lend["jobWallS"],
        });
        assert_eq!(got, want, "{example}, PC {name}");
    }
}

/// A cluster whose API has a virtual address and no name: with Cilium asking there and the agents
/// joining at the founder, it went down with the founder.
#[test]
fn agents_join_where_everybody_asks_for_the_api() {
    if !nix_is_here() {
        return;
    }
    let base = "[fleet]\nname = \"bare\"\n[network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.2\"\n\
         [classes.control]\nkind = \"control\"\n[classes.gpu]\nkind = \"gpu\"\n[classes.gpu.gpu]\nmodel = \"l40s\"\n\
         [nodes.c1]\nclass = \"control\"\nmacs = [\"52:54:00:00:00:01\"]\naddress = \"10.0.0.11\"\ndisks = [{ serial = \"D1\" }]\n\
         [nodes.g1]\nclass = \"gpu\"\nmacs = [\"52:54:00:00:00:02\"]\naddress = \"10.0.0.12\"\ndisks = [{ serial = \"D2\" }]\n\
         [kubernetes]\nfounder = \"c1\"\n";
    for distribution in ["k3s", "kubeadm"] {
        for (more, host) in [
            ("", "10.0.0.11"),
            (
                "virtual_ip = \"10.0.0.10\"\n[fleet.timeouts]\njoin_s = 50\n",
                "10.0.0.10",
            ),
            ("api_endpoint = \"api.example\"\n", "api.example"),
            (
                "virtual_ip = \"10.0.0.10\"\napi_endpoint = \"api.example\"\n",
                "10.0.0.10",
            ),
        ] {
            let text = format!("{base}distribution = \"{distribution}\"\n{more}");
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("undercroft.toml"), &text).unwrap();
            let evaluated = evaluate("golden.nix", Some(folder.path()));
            let inventory = parsed(&text);
            compare("bare", &inventory, &evaluated);
            let agent = &evaluated["nodes"]["g1"]["settings"]["kubernetes"];
            assert_eq!(
                agent["serverUrl"],
                format!("https://{host}:{API_PORT}"),
                "{text}"
            );
            assert_eq!(inventory.api_host().as_deref(), Some(host));
        }
    }
}

/// Some of the people, as Nix has them.
fn people(inventory: &Inventory, wanted: impl Fn(&undercroft_model::UserName) -> bool) -> Value {
    let people = inventory.users.iter().filter(|(name, _)| wanted(name));
    let people = people.map(|(name, user)| {
        let shown = json!({
            "fullName": user.full_name, "email": user.email, "role": user.role,
            "sshKeys": user.ssh_keys,
        });
        (name.to_string(), shown)
    });
    Value::Object(people.collect())
}

/// The overlay as a machine that is its client, or not, has it.
fn overlay_of(inventory: &Inventory, joins: bool) -> Value {
    let overlay = &inventory.network.overlay;
    json!({
        "enable": joins && overlay.kind != inventory::OverlayKind::None, "kind": overlay.kind,
        "serverUrl": overlay.server_url, "cidr": overlay.cidr, "baseDomain": overlay.base_domain,
    })
}

/// Kubernetes' DNS service has the tenth address of the services' network with both distributions.
fn tenth(network: std::net::Ipv4Addr) -> String {
    std::net::Ipv4Addr::from(u32::from(network) + 10).to_string()
}

fn as_set(value: &Value) -> BTreeSet<&str> {
    let items = value.as_array().unwrap();
    items.iter().map(|item| item.as_str().unwrap()).collect()
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
        "api": kubernetes["apiEndpoint"],
        "joins_at": kubernetes["serverUrl"],
        "virtual_ip": kubernetes["virtualIp"],
        "sans": as_set(&kubernetes["tlsSans"]),
        "components": as_set(&kubernetes["components"]),
        "distribution": kubernetes["distribution"],
        "version": kubernetes["version"],
        "network": [node["gateway"], node["nameservers"], node["ntp"], node["prefixLength"]],
        "reserved": if settings["longhorn"]["enable"] == true {
            json!([settings["longhorn"]["reservedPercent"], settings["longhorn"]["diskTags"]])
        } else {
            Value::Null
        },
        "fleet": [settings["fleet"]["name"], settings["fleet"]["domain"]],
        "admins": settings["users"],
        "mirrors": kubernetes["registryMirrors"],
        "backend": settings["secrets"]["backend"],
        "dns": kubernetes["clusterDns"],
        "servers": kubernetes["servers"],
        "networks": [kubernetes["podCidr"], kubernetes["serviceCidr"], kubernetes["clusterDomain"]],
        "snapshots": [kubernetes["snapshot"]["intervalH"], kubernetes["snapshot"]["keep"]],
        "state_version": node["stateVersion"],
        "overlay": json!({
            "enable": settings["overlay"]["enable"], "kind": settings["overlay"]["kind"],
            "serverUrl": settings["overlay"]["serverUrl"], "cidr": settings["overlay"]["cidr"],
            "baseDomain": settings["overlay"]["baseDomain"],
        }),
        "serves": settings["overlay"]["server"]["enable"],
        "derp": settings["overlay"]["server"]["derp"],
        "routes": settings["overlay"]["routes"],
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
    let founder = kubernetes.founder.as_ref().filter(|_| clustered);
    let founds = founder == Some(name);
    let joins_at = match node.role {
        // A server asks the founder itself: behind the API's own name might be the one that asks.
        Role::Server if clustered && !founds => founder
            .map(|founder| format!("https://{}:{API_PORT}", inventory.nodes[founder].address)),
        Role::Agent if clustered => inventory
            .api_host()
            .map(|host| format!("https://{host}:{API_PORT}")),
        _ => None,
    };
    let sans: BTreeSet<String> = inventory
        .api_host()
        .into_iter()
        .chain(clustered.then(|| kubernetes.api_endpoint.clone()).flatten())
        .chain(kubernetes.tls_sans.iter().cloned())
        .chain(
            servers
                .values()
                .filter_map(Value::as_str)
                .map(str::to_owned),
        )
        .collect();
    let components: BTreeSet<String> = (inventory.gitops.components.iter())
        .filter(|_| clustered)
        .map(|component| json!(component).as_str().unwrap().to_owned())
        .collect();
    let overlay = &inventory.network.overlay;
    let serves = overlay.kind == inventory::OverlayKind::Headscale
        && overlay.server_node.as_ref() == Some(name);
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
        "api": inventory.api_host(),
        "joins_at": joins_at,
        "virtual_ip": kubernetes.virtual_ip,
        "sans": sans,
        "components": components,
        "distribution": kubernetes.distribution,
        "version": kubernetes.version,
        "network": [
            json!(inventory.network.gateway), json!(inventory.network.dns),
            json!(inventory.network.ntp), json!(inventory.network.node_cidr.prefix_len()),
        ],
        "reserved": node.longhorn.as_ref().filter(|_| !annotation.is_null())
            .map(|l| json!([l.reserved_percent, l.disk_tags])),
        "fleet": [json!(inventory.fleet.name), json!(inventory.fleet.domain)],
        "admins": people(inventory, |name| inventory.users[name].role == inventory::UserRole::Admin),
        "mirrors": kubernetes.registry_mirrors,
        "backend": inventory.secrets.backend,
        "dns": tenth(kubernetes.service_cidr.network()),
        "servers": servers,
        "networks": [json!(kubernetes.pod_cidr), json!(kubernetes.service_cidr), json!(kubernetes.cluster_domain)],
        "snapshots": [kubernetes.snapshot_interval_h, kubernetes.snapshot_keep],
        "state_version": inventory.fleet.state_version,
        "overlay": overlay_of(inventory, !serves),
        "serves": serves,
        "derp": overlay.derp,
        "routes": overlay.routes.get(name).cloned().unwrap_or_default(),
    })
}

/// What a server of lending goes by: the file that the flake writes, and the inventory itself.
fn lending(example: &str, inventory: &Inventory, evaluated: &Value) {
    let node = evaluated["nodes"]
        .as_object()
        .and_then(|nodes| nodes.values().next());
    let settings = &node.unwrap()["settings"]["lending"];
    assert_eq!(
        settings["enable"],
        json!(inventory.lending.enabled),
        "{example}"
    );
    assert_eq!(
        settings["natsUrl"],
        json!(inventory.lending.nats_url),
        "{example}"
    );
    assert_eq!(
        settings["serverKey"],
        json!(inventory.lending.server_key),
        "{example}"
    );
    assert_eq!(
        settings["account"],
        json!(inventory.lending.account),
        "{example}"
    );
    let submitters = inventory.lending.submitters.iter();
    for (name, submitter) in submitters.filter(|_| inventory.lending.enabled) {
        assert_eq!(
            settings["submitters"][name.as_str()]["nkey"],
            json!(submitter.nkey)
        );
    }
    let Ok(ours) = LendingFleet::of(inventory) else {
        return;
    };
    let expression = format!(
        "builtins.toJSON ((import {}).serverFile {:?} (builtins.fromJSON {:?}))",
        repository().join("nix/lib/lending.nix").display(),
        inventory.fleet.name,
        settings.to_string(),
    );
    let written = asked_of_nix(&expression);
    let written = written.as_str().unwrap();
    let theirs = FleetFile::read(written.as_bytes()).unwrap();
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"), "{example}");
}

#[test]
fn nix_has_the_devices_and_submitters_that_the_model_has() {
    if !nix_is_here() {
        return;
    }
    let [server, ci, nkey, owner] = [
        "UCZ6VTJTIM5TDNJFENIQGLE3HZ5C46VHOOGV33G7BXLMMJUAQU6ANX4L",
        "UANRLCBZ7CVDHHUJXNILCYB6SDWGRYH5KVS74EFHZMZHFH6564DQVGKZ",
        "UD664QYNIC6VPXXKYGDM3F4QAM6Q6BXZBGUIA3T443TRPK34PVICTSWH",
        "UBGBAKLJP3RVQ4K5HIKKFLOYC7CLAFSRIQG6QCBXD54BMWWJBXCYCPAP",
    ];
    let text = format!(
        "[fleet]\nname = \"lent\"\n[network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.1\"\n\
         [classes.box]\n[nodes.one]\nclass = \"box\"\nmacs = [\"52:54:00:00:00:0b\"]\naddress = \"10.0.0.11\"\n\
         disks = [{{ serial = \"ONE\" }}]\n[users.kim]\n[lending]\nenabled = true\nnats_url = \"tls://nats.lent.example:4222\"\n\
         server_key = \"{server}\"\ntenants = [\"research\"]\nruntimes = [\"oci\", \"process\"]\n\
         [lending.submitters.ci]\nnkey = \"{ci}\"\ntenant = \"research\"\n\
         [pcs.kims]\nos = \"linux\"\nsystem = \"x86_64-linux\"\nusers = [\"kim\"]\n\
         lend = {{ enabled = true, nkey = \"{nkey}\", owner_key = \"{owner}\" }}\n\
         [pcs.idle]\nos = \"linux\"\nsystem = \"x86_64-linux\"\nusers = [\"kim\"]\n"
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("undercroft.toml"), &text).unwrap();
    let evaluated = evaluate("golden.nix", Some(folder.path()));
    let inventory = parsed(&text);
    assert_eq!(LendingFleet::of(&inventory).unwrap().devices.len(), 1);
    compare("lent", &inventory, &evaluated);
}
