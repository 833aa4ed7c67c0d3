//! Each key of the inventory changes something.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use undercroft_fleet::{boot_config, boot_table};
use undercroft_model::{
    Observation, SystemTarget,
    inventory::{self, Inventory},
};
use undercroft_planner::plan;
use undercroft_render::{Lock, RenderInput, render};
use undercroft_testkit::{Missing, OrSkip as _, repository};

use super::{base::BASE, base::with, schema::leaves};

/// Keys whose change is written out here: `path | header | value`, and after `||` what the
/// inventory needs for that, as `header / key / value` each. Numbers, words and truths change by
/// themselves where the table's header is in [`HEADERS`].
const CHANGES: &str = r#"
fleet.name | fleet | "other"
fleet.domain | fleet | "cellar.example"
fleet.flake | fleet | "git+https://git.cellar.example/other"
fleet.state_version | fleet | "25.05"
fleet.admin_keys | fleet | ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHjs/2lF1ZglqlXIlokWHDGg320Vadw1vnGygDjxuD5n spare"]
network.node_cidr | network | "10.20.0.0/21"
network.server_address | network | "10.20.0.3"
network.interface | network | "eth7"
network.gateway | network | "10.20.0.9"
network.dns | network | ["10.20.0.1"]
network.ntp | network | ["10.20.0.1"]
network.dhcp | network | "off" || network.dhcp_range / DROP / -
network.dhcp_range.first | network.dhcp_range | "10.20.1.110"
network.dhcp_range.last | network.dhcp_range | "10.20.1.190"
network.overlay.kind | network.overlay | "none" || network.overlay / server_node / - ;; network.overlay / server_url / - ;; network.overlay / base_domain / -
network.overlay.cidr | network.overlay | "100.80.0.0/12"
network.overlay.server_url | network.overlay | "https://other.cellar.example"
network.overlay.server_node | network.overlay | "wake-01"
network.overlay.base_domain | network.overlay | "other.cellar.example"
network.overlay.routes | network.overlay | { control-01 = ["10.20.0.0/22"] }
kubernetes.distribution | kubernetes | "kubeadm"
kubernetes.version | kubernetes | "1.33"
kubernetes.founder | kubernetes | "control-02"
kubernetes.api_endpoint | kubernetes | "api.cellar.example"
kubernetes.virtual_ip | kubernetes | "10.20.0.20"
kubernetes.tls_sans | kubernetes | ["k.cellar.example"]
kubernetes.pod_cidr | kubernetes | "10.44.0.0/16"
kubernetes.service_cidr | kubernetes | "10.45.0.0/16"
kubernetes.load_balancer_cidrs | kubernetes | ["10.20.2.128/25"]
kubernetes.cluster_domain | kubernetes | "cellar.local"
kubernetes.registry_mirrors | kubernetes | { "docker.io" = ["https://mirror.cellar.example"] }
gitops.repository | gitops | "https://git.cellar.example/other.git"
gitops.revision | gitops | "stable"
gitops.path | gitops | "delivery"
gitops.apps_path | gitops | "own-apps"
gitops.components | gitops | ["cilium", "cert-manager"]
gitops.dev_without | gitops | ["cert-manager"]
gitops.ingress_domain | gitops | "web.cellar.example"
gitops.longhorn_replicas | gitops | 1
secrets.operators | secrets | ["age1rrgpwzgf3ptu5wl2fps4ce03s42hsau7u2nr4vhlvx0w6pfqpggs6443lq"]
secrets.backend | secrets | "sealed-secrets"
secrets.vault_url | secrets | "https://other.cellar.example" || secrets / backend / "vault" ;; secrets / vault_url / "https://vault.cellar.example"
classes.NAME.kind | classes.wake | "phone-host"
classes.NAME.gpu.count | classes.gpu.gpu | 3
classes.NAME.modules | classes.gpu | ["modules/gpu.nix"]
classes.NAME.system | classes.wake | "aarch64-linux"
classes.NAME.firmware | classes.gpu | "uefi-http"
classes.NAME.layout | classes.gpu | "zfs"
classes.NAME.role | classes.wake | "agent"
classes.NAME.min_memory_mb | classes.gpu | 65536
classes.NAME.hats | classes.pi4 | ["coral-usb"]
classes.NAME.labels | classes.gpu | { "cellar.example/x" = "y" }
classes.NAME.taints | classes.gpu | ["cellar.example/x=y:NoSchedule"]
classes.NAME.kernel_params | classes.gpu | ["console=ttyS1"]
classes.NAME.longhorn.partition_gb | classes.control.longhorn | 120
classes.NAME.longhorn.disk_tags | classes.gpu.longhorn | ["fast"]
classes.NAME.gpu.model | classes.gpu.gpu | "h100"
classes.NAME.gpu.sharing | classes.gpu.gpu | "mps"
classes.NAME.gpu.mig_config | classes.mig.gpu | "all-2g.20gb" || nodes.mig-01.gpu / DROP / -
classes.NAME.power.kind | classes.wake.power | "manual"
nodes.NAME.class | nodes.wake-01 | "mig" || nodes.wake-02 / class / "wake" ;; nodes.wake-02 / macs / ["3c:ec:ef:10:00:16"] ;; nodes.wake-02 / address / "10.20.1.13" ;; nodes.wake-02 / disks / [{ serial = "A16" }]
nodes.NAME.macs | nodes.gpu-01 | ["3c:ec:ef:10:00:44"]
nodes.NAME.uuid | nodes.gpu-01 | "a83fd8f7-b13e-4066-82dd-d35d5cdc4d81"
nodes.NAME.address | nodes.gpu-01 | "10.20.1.44"
nodes.NAME.modules | nodes.gpu-01 | ["modules/one.nix"]
nodes.NAME.firmware | nodes.gpu-01 | "uefi-http"
nodes.NAME.layout | nodes.gpu-01 | "zfs"
nodes.NAME.role | nodes.wake-01 | "agent"
nodes.NAME.min_memory_mb | nodes.gpu-01 | 65536
nodes.NAME.hats | nodes.pi-01 | ["coral-usb"]
nodes.NAME.labels | nodes.gpu-01 | { "cellar.example/x" = "y" }
nodes.NAME.taints | nodes.gpu-01 | ["cellar.example/x=y:NoSchedule"]
nodes.NAME.kernel_params | nodes.gpu-01 | ["console=ttyS1"]
nodes.NAME.disks[].serial | nodes.wake-01 | disks = [{ serial = "A66" }]
nodes.NAME.disks[].wwn | nodes.wake-01 | disks = [{ serial = "A6", wwn = "0x5000c500a1b2c3d4" }]
nodes.NAME.disks[].role | nodes.gpu-01 | disks = [{ serial = "A4" }, { serial = "B4", role = "longhorn", size_gb = 1000 }, { serial = "C4", role = "data", size_gb = 1000 }] || nodes.gpu-01 / disks / [{ serial = "A4" }, { serial = "B4", role = "longhorn", size_gb = 1000 }, { serial = "C4", role = "longhorn", size_gb = 1000 }]
nodes.NAME.disks[].size_gb | nodes.gpu-01 | disks = [{ serial = "A4" }, { serial = "B4", role = "longhorn", size_gb = 2000 }]
nodes.NAME.phones[].serial | nodes.phones-01 | phones = [{ slot = 1, serial = "R5CC9B0DZWX", model = "galaxy-s21" }]
nodes.NAME.phones[].slot | nodes.phones-01 | phones = [{ slot = 2, serial = "R5CC9B0DZWC", model = "galaxy-s21" }]
nodes.NAME.phones[].model | nodes.phones-01 | phones = [{ slot = 1, serial = "R5CC9B0DZWC", model = "pixel-8" }]
nodes.NAME.gpu.model | nodes.mig-01.gpu | "h100"
nodes.NAME.gpu.sharing | nodes.mig-01.gpu | "mps"
nodes.NAME.gpu.mig_config | nodes.mig-01.gpu | "all-2g.20gb" || nodes.mig-01.gpu / sharing / "mig" ;; nodes.mig-01.gpu / replicas / - ;; nodes.mig-01.gpu / mig_config / "all-1g.10gb"
nodes.NAME.power.kind | nodes.mig-01.power | "manual" || nodes.mig-01.power / on / - ;; nodes.mig-01.power / off / - ;; nodes.mig-01.power / status / -
pcs.NAME.os | pcs.desk | "windows-wsl2"
pcs.NAME.system | pcs.desk | "aarch64-linux"
pcs.NAME.users | pcs.desk | ["ada", "lin"] || users.lin / full_name / "Lin Okafor"
pcs.NAME.modules | pcs.desk | ["pcs/desk.nix"]
users.NAME.full_name | users.ada | "Ada N."
users.NAME.email | users.ada | "ada@cellar.example"
users.NAME.role | users.ada | "developer"
users.NAME.ssh_keys | users.ada | ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINFi8xE1uNUKdIiw7UHWTiSTDPw2EKHyBzt+4/OfL2PH lin@cellar.example"]
users.NAME.modules | users.ada | ["home/ada.nix"]
classes.NAME.netboot.ask_4011 | classes.gpu.netboot | true
"#;

/// The headers in which numbers, words and truths are changed by themselves.
const HEADERS: &[(&str, &str)] = &[
    ("classes.NAME.gpu", "classes.gpu.gpu"),
    ("classes.NAME.longhorn", "classes.gpu.longhorn"),
    ("classes.NAME.netboot", "classes.gpu.netboot"),
    ("classes.NAME", "classes.gpu"),
    ("nodes.NAME.gpu", "nodes.mig-01.gpu"),
    ("nodes.NAME", "nodes.gpu-01"),
    ("pcs.NAME", "pcs.desk"),
    ("users.NAME", "users.ada"),
];

/// Keys whose effect no plan, tree, boot server or configuration shows: the test that shows it.
const SHOWN_BY: &[(&str, &str)] = &[
    (
        "fleet.builder",
        "three_machines_in_parallel_and_then_a_changed_host_key",
    ),
    ("secrets.path", "secrets"),
    ("users.NAME.age_recipient", "secrets"),
    (
        "classes.NAME.power.on",
        "commands_are_run_with_their_placeholders_and_without_a_shell",
    ),
    (
        "classes.NAME.power.off",
        "commands_are_run_with_their_placeholders_and_without_a_shell",
    ),
    (
        "classes.NAME.power.status",
        "commands_are_run_with_their_placeholders_and_without_a_shell",
    ),
    ("classes.NAME.power.broadcast", "a_magic_packet_arrives"),
    (
        "classes.NAME.power.console",
        "only_the_very_boot_that_the_console_shows_is_confirmed",
    ),
    (
        "nodes.NAME.power.",
        "commands_are_run_with_their_placeholders_and_without_a_shell",
    ),
    (
        "nodes.NAME.rack.",
        "the_template_makes_a_rack_that_a_rack_takes",
    ),
];

/// Keys that are reserved for what isn't built yet, and why they are taken already.
const RESERVED: &[(&str, &str)] = &[
    (
        "lending.",
        "lending idle PCs comes later; PCs and the cluster's NATS are set up for it already",
    ),
    (
        "pcs.NAME.lend.",
        "as `lending`: a PC says already what it would give",
    ),
];

fn read(text: &str) -> Result<Inventory, String> {
    let parsed = inventory::parse("undercroft.toml", text.as_bytes());
    let findings: Vec<String> = parsed
        .diagnostics
        .iter()
        .map(|d| d.message.clone())
        .collect();
    parsed.inventory.ok_or_else(|| findings.join("; "))
}

/// What Undercroft itself does with an inventory: its plan, its tree, its boot servers, its keys.
fn behaviour(inventory: &Inventory) -> [String; 3] {
    let mut observation = Observation::default();
    for (name, node) in &inventory.nodes {
        let target = SystemTarget {
            toplevel: format!("/nix/store/00000000000000000000000000000000-{name}"),
            disko_script: None,
            disko_mount_script: None,
            disko_devices: None,
            system: node.system,
            closure_bytes: None,
        };
        observation.targets.insert(name.clone(), Ok(target));
        observation
            .host_keys
            .insert(name.clone(), format!("SHA256:{name}"));
    }
    let (mut plan, report) = plan(inventory, &observation, None);
    // These change with every key, whether it does anything or not.
    plan.inventory_digest.clear();
    plan.id = plan.content_id();
    let plan = serde_json::to_string(&(plan, report)).unwrap();
    let tree = [None, Some("dev")].map(|dev| {
        render(&RenderInput {
            inventory,
            standing: None,
            lock: &Lock::defaults(),
            apps: &[],
            overrides: &BTreeMap::new(),
            dev,
        })
    });
    let tree = format!("{tree:?}");
    let table = boot_table(inventory, None, None).map_err(|e| e.to_string());
    let mut config = boot_config(inventory, interface(inventory));
    config.authorized_keys = inventory.root_keys().join("\n");
    let boot = format!("{table:?} {config:?}");
    [plan, tree, boot]
}

/// What `up` serves on where the inventory names no interface.
fn interface(inventory: &Inventory) -> String {
    inventory
        .network
        .interface
        .clone()
        .unwrap_or_else(|| "eth0".to_owned())
}

/// Another value of the same kind: a number, a word or a truth.
fn another(schema: &Value) -> Option<String> {
    let default = &schema["default"];
    match schema["type"].as_str() {
        Some("boolean") => Some((!default.as_bool().unwrap_or(false)).to_string()),
        Some("integer") => {
            let least = schema["minimum"].as_u64().unwrap_or(0);
            let most = schema["maximum"].as_u64().unwrap_or(u64::MAX);
            let next = default.as_u64().unwrap_or(least) + 1;
            Some(if next > most { least } else { next }.to_string())
        }
        _ => {
            let words: Vec<String> = match schema["enum"].as_array().or(schema["oneOf"].as_array())
            {
                Some(all) => all
                    .iter()
                    .filter_map(|word| word.as_str().or(word["const"].as_str()))
                    .map(str::to_owned)
                    .collect(),
                None => return None,
            };
            let other = words
                .into_iter()
                .find(|word| Some(word.as_str()) != default.as_str())?;
            Some(format!("{other:?}"))
        }
    }
}

/// The inventory without the change and with it.
fn pair(path: &str, schema: &Value) -> Option<(String, String)> {
    let change = CHANGES
        .lines()
        .find(|line| line.split(" | ").next() == Some(path));
    if let Some(change) = change {
        let (change, needs) = change.split_once(" || ").unwrap_or((change, ""));
        let mut words = change.splitn(3, " | ").skip(1);
        let (header, value) = (words.next()?, words.next()?);
        let mut base = BASE.to_owned();
        let mut changed = None;
        for need in needs.split(" ;; ").filter(|need| !need.is_empty()) {
            let parts: Vec<&str> = need.split(" / ").map(str::trim).collect();
            let (at, key, to) = (parts[0], parts[1], parts[2]);
            let apply = |text: &str| match (key, to) {
                ("DROP", _) => without_table(text, at),
                (_, "-") => with(text, at, key, ""),
                _ => with(text, at, key, to),
            };
            // What is taken away can't be there with the new value; what is added must be there
            // with both.
            if to == "-" && key != "DROP" && !path.contains("mig_config") {
                changed = Some(apply(changed.as_deref().unwrap_or(&base)));
            } else if path == "network.dhcp" {
                changed = Some(apply(&base));
            } else {
                base = apply(&base);
            }
        }
        let key = path.rsplit('.').next()?;
        let start = changed.unwrap_or_else(|| base.clone());
        let new = match value.split_once(" = ") {
            Some((list, value)) if path.contains("[]") => with(&start, header, list, value),
            _ => with(&start, header, key, value),
        };
        return Some((base, new));
    }
    let (table, key) = path.rsplit_once('.')?;
    let header = HEADERS.iter().find(|(name, _)| *name == table);
    let header = header.map_or(table, |(_, header)| header);
    Some((BASE.to_owned(), with(BASE, header, key, &another(schema)?)))
}

fn without_table(text: &str, header: &str) -> String {
    let title = format!("[{header}]");
    let mut inside = false;
    let kept = text.lines().filter(|line| {
        if line.starts_with('[') {
            inside = *line == title;
        }
        !inside
    });
    kept.collect::<Vec<_>>().join("\n") + "\n"
}

/// What the flake makes of inventories, in one evaluation. `None` where Nix isn't here.
fn by_nix(texts: &[&str]) -> Option<Vec<String>> {
    let probe = Command::new("nix-instantiate").arg("--version").output();
    let found = probe.is_ok_and(|output| output.status.success());
    let missing = || Missing::new("nix-instantiate isn't here", "Debian's nix-bin has it");
    found.then_some(()).ok_or_else(missing).or_skip()?;
    let folder = tempfile::tempdir().unwrap();
    let mut list = String::new();
    for (n, text) in texts.iter().enumerate() {
        let at: PathBuf = folder.path().join(n.to_string());
        std::fs::create_dir(&at).unwrap();
        std::fs::write(at.join("undercroft.toml"), text).unwrap();
        let _ = write!(list, " {}", at.display());
    }
    let file = repository()
        .canonicalize()
        .unwrap()
        .join("nix/tests/golden.nix");
    let hash = "builtins.hashString \"sha256\" (builtins.toJSON (import FILE { inherit src; }))";
    let hash = hash.replace("FILE", &file.display().to_string());
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--readonly-mode", "-E"])
        .arg(format!("map (src: {hash}) [{list} ]"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The names of all tests of the workspace.
fn tests() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let files = undercroft_testkit::tracked("crates");
    let rust = files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "rs"));
    for file in rust {
        let text = std::fs::read_to_string(repository().join(file)).unwrap_or_default();
        for line in text.lines() {
            let name = line.trim().trim_start_matches("async ").strip_prefix("fn ");
            if let Some((name, _)) = name.and_then(|rest| rest.split_once('(')) {
                all.insert(name.to_owned());
            }
        }
        if let Some(stem) = Path::new(file).file_stem().and_then(|s| s.to_str()) {
            all.insert(stem.to_owned());
        }
    }
    all
}

#[test]
fn every_key_of_the_inventory_changes_something() {
    read(BASE).unwrap();
    let tests = tests();
    let covered = |list: &[(&str, &str)], path: &str| {
        list.iter()
            .any(|(key, _)| path == *key || (key.ends_with('.') && path.starts_with(key)))
    };
    for (key, test) in SHOWN_BY {
        assert!(
            tests.contains(*test),
            "{key} is said to be shown by {test}, which isn't there"
        );
    }
    let mut faults = String::new();
    let mut for_nix: Vec<(String, String, String)> = Vec::new();
    for (path, schema) in leaves() {
        if covered(RESERVED, &path) || covered(SHOWN_BY, &path) {
            continue;
        }
        let Some((base, changed)) = pair(&path, &schema) else {
            let _ = writeln!(faults, "{path}: no change of it is written here: {schema}");
            continue;
        };
        match (read(&base), read(&changed)) {
            (Ok(before), Ok(after)) if before == after => {
                let _ = writeln!(faults, "{path}: the change written here changes nothing");
            }
            (Ok(before), Ok(after)) if behaviour(&before) == behaviour(&after) => {
                for_nix.push((path, base, changed));
            }
            (Ok(_), Ok(_)) => {}
            (before, after) => {
                let why = before.err().or(after.err()).unwrap_or_default();
                let _ = writeln!(faults, "{path}: the change written here is refused: {why}");
            }
        }
    }
    let texts: Vec<&str> = for_nix
        .iter()
        .flat_map(|(_, base, changed)| [base.as_str(), changed.as_str()])
        .collect();
    if let Some(hashes) = by_nix(&texts) {
        for ((path, ..), pair) in for_nix.iter().zip(hashes.chunks(2)) {
            if pair[0] == pair[1] {
                let _ = writeln!(faults, "{path}: nothing changes with it");
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}
