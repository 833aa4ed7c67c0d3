//! What a machine's steps are made of.

use undercroft_model::inventory::parse;

use super::*;

#[test]
fn a_table_guid_tells_every_input_apart_and_stays_as_it_is() {
    let node = NodeName::new("n1").unwrap();
    let disk = |serial: Option<&str>, wwn: Option<&str>| DiskIdentity {
        serial: serial.map(str::to_owned),
        wwn: wwn.map(str::to_owned),
    };
    let guid = |fleet, disk: &DiskIdentity, role, layout, generation| {
        table_guid(fleet, &node, disk, role, layout, generation).to_string()
    };
    let a = disk(Some("A"), None);
    // Machines in the field carry these: the derivation must never change.
    assert_eq!(
        guid("rack", &a, DiskRole::Root, Layout::Ext4, 0),
        "5bc755e9-c71d-8045-9620-206ea7f94707"
    );
    let all = [
        guid("rack", &a, DiskRole::Root, Layout::Ext4, 0),
        guid("rack2", &a, DiskRole::Root, Layout::Ext4, 0),
        guid(
            "rack",
            &disk(Some("B"), None),
            DiskRole::Root,
            Layout::Ext4,
            0,
        ),
        guid(
            "rack",
            &disk(None, Some("A")),
            DiskRole::Root,
            Layout::Ext4,
            0,
        ),
        guid(
            "rack",
            &disk(Some("A"), Some("")),
            DiskRole::Root,
            Layout::Ext4,
            0,
        ),
        guid("rack", &a, DiskRole::Longhorn, Layout::Ext4, 0),
        guid("rack", &a, DiskRole::Root, Layout::Zfs, 0),
        guid("rack", &a, DiskRole::Root, Layout::Ext4, 1),
    ];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

/// A machine with a disk of each role, whose class says that.
fn inventory(class: &str) -> Inventory {
    let text = format!(
        "[fleet]\nname = \"cellar\"\n\
         [fleet.timeouts]\nnetwork_boot_s = 11\napproval_s = 12\ninspect_s = 13\npartition_s = 14\n\
         copy_s = 15\ninstall_s = 16\nreboot_s = 17\nprove_s = 18\n\
         [fleet.retries]\nattempts = 4\nbackoff_s = 5\nbackoff_max_s = 7\n\
         [network]\nnode_cidr = \"172.16.0.0/12\"\nserver_address = \"172.16.0.1\"\n\
         [classes.plain]\nrole = \"agent\"\n{class}\n\
         [nodes.a]\nclass = \"plain\"\nmacs = [\"52:54:00:00:00:01\"]\naddress = \"172.16.0.10\"\n\
         disks = [{{ serial = \"D\", role = \"data\" }}, {{ serial = \"K\", role = \"keep\" }},\n\
         {{ serial = \"R\" }}]\n"
    );
    let parsed = parse("undercroft.toml", text.as_bytes());
    parsed
        .inventory
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

/// The roles of a machine's disks, and how many bytes each must have.
fn needed(class: &str, closure_bytes: Option<u64>) -> Vec<(DiskRole, u64)> {
    let inventory = inventory(class);
    let (name, node) = inventory.nodes.first_key_value().unwrap();
    disks(&inventory, name, node, 0, closure_bytes)
        .into_iter()
        .map(|disk| (disk.role, disk.size_bytes_min))
        .collect()
}

#[test]
fn a_disk_is_as_large_as_what_must_fit_on_it() {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let esp = 512 * MIB;
    for (class, closure_bytes, root) in [
        ("esp_mb = 512", None, GIB + esp),
        // The running system and the next, and no less than without any.
        ("esp_mb = 512", Some(3 * GIB), 6 * GIB + esp),
        ("esp_mb = 512", Some(GIB / 2), GIB + esp),
        ("esp_mb = 512", Some(GIB / 2 + 1), GIB + 2 + esp),
        ("esp_mb = 512", Some(1), GIB + esp),
        ("esp_mb = 1024", None, 2 * GIB),
        (
            "esp_mb = 512\nlonghorn = { partition_gb = 20 }",
            None,
            21 * GIB + esp,
        ),
        ("esp_mb = 512", Some(u64::MAX), u64::MAX),
    ] {
        let wanted = [(DiskRole::Root, root), (DiskRole::Data, GIB)];
        assert_eq!(
            needed(class, closure_bytes),
            wanted,
            "{class} {closure_bytes:?}"
        );
    }
}

#[test]
fn steps_have_the_inventory_s_time_limits_and_tries() {
    let inventory = inventory("");
    let (name, node) = inventory.nodes.first_key_value().unwrap();
    let install = Install {
        system: Some(SystemToInstall {
            target: SystemTarget {
                toplevel: "/nix/store/x".to_owned(),
                disko_script: None,
                disko_mount_script: None,
                disko_devices: None,
                system: node.system,
                closure_bytes: None,
            },
            host_key_fingerprint: "SHA256:x".to_owned(),
        }),
        generation: 0,
        disks: disks(&inventory, name, node, 0, None),
        installer_seen: false,
    };
    let mut steps = Vec::new();
    build(&inventory, name, node, &install, &mut steps);
    let limits: Vec<u64> = steps.iter().map(|step| step.timeout_ms).collect();
    assert_eq!(
        limits,
        [
            11_000, 12_000, 13_000, 14_000, 15_000, 16_000, 17_000, 18_000
        ]
    );
    for step in &steps {
        let retry = &step.retry;
        assert_eq!(
            (retry.attempts_max, retry.backoff_ms, retry.backoff_ms_max),
            (4, 5_000, 7_000)
        );
    }
}

#[test]
fn the_console_that_only_the_machine_can_write_to_is_the_rack_s_or_a_command_s() {
    let commands = |console: &str| {
        let power = "power = { kind = \"command\", on = [\"on\"], off = [\"off\"]";
        inventory(&format!("{power}{console} }}"))
    };
    for (inventory, has) in [
        (inventory(""), false),
        (inventory("power = { kind = \"rack\" }"), true),
        (commands(""), false),
        (commands(", console = [\"ipmi\", \"{node}\"]"), true),
    ] {
        let (_, node) = inventory.nodes.first_key_value().unwrap();
        assert_eq!(has_console(node), has, "{:?}", node.power);
    }
}

#[test]
fn a_machine_that_is_no_part_of_a_cluster_does_not_join_and_the_plan_says_why() {
    let mut inventory = inventory("");
    let why = |inventory: &Inventory| {
        let (_, node) = inventory.nodes.first_key_value().unwrap();
        not_applicable(inventory, node)
    };
    inventory.kubernetes.distribution = Distribution::K3s;
    assert_eq!(why(&inventory), BTreeMap::new());
    for (distribution, role, said) in [
        (Distribution::None, Role::Agent, "distribution is \"none\""),
        (Distribution::None, Role::None, "distribution is \"none\""),
        (Distribution::K3s, Role::None, "its role is \"none\""),
        (Distribution::Kubeadm, Role::None, "its role is \"none\""),
    ] {
        inventory.kubernetes.distribution = distribution;
        inventory.nodes.first_entry().unwrap().get_mut().role = role;
        let found = why(&inventory);
        let states: Vec<NodeState> = found.keys().copied().collect();
        assert_eq!(states, [NodeState::Joined, NodeState::Ready]);
        assert!(found.values().all(|why| why.contains(said)), "{found:?}");
    }
}
