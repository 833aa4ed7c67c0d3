//! A small fleet, and what may be seen of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fmt::Write;

use undercroft_model::{
    Found, InstallerReport, NodeName, NodeObservation, Observation, ReportedDisk, ReportedFirmware,
    System, SystemTarget,
    inventory::{Inventory, parse},
};

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// An inventory of that many machines of one disk each.
pub(crate) fn inventory(nodes: usize) -> Inventory {
    inventory_with(nodes, "ext4", "none", "")
}

pub(crate) fn inventory_with(
    nodes: usize,
    layout: &str,
    kubernetes: &str,
    class: &str,
) -> Inventory {
    let founder = match kubernetes {
        "none" => String::new(),
        _ => "founder = \"n00000\"".to_owned(),
    };
    let mut text = format!(
        "[fleet]\nname = \"cellar\"\n\
         [network]\nnode_cidr = \"172.16.0.0/12\"\nserver_address = \"172.16.0.1\"\n\
         [kubernetes]\ndistribution = \"{kubernetes}\"\n{founder}\n\
         [classes.plain]\nlayout = \"{layout}\"\nmin_memory_mb = 512\n{class}\n\
         [classes.server]\nlayout = \"{layout}\"\nrole = \"server\"\n"
    );
    for n in 0..nodes {
        let class = if n == 0 && kubernetes != "none" {
            "server"
        } else {
            "plain"
        };
        let (high, low) = (n / 200, n % 200 + 10);
        let (a, b) = (17 + high / 200, high % 200);
        write!(
            text,
            "[nodes.n{n:05}]\nclass = \"{class}\"\nmacs = [\"52:54:00:{:02x}:{:02x}:{:02x}\"]\n\
             address = \"172.{a}.{b}.{low}\"\ndisks = [{{ serial = \"S{n:05}\" }}]\n",
            n >> 16,
            n >> 8 & 0xff,
            n & 0xff
        )
        .unwrap();
    }
    let parsed = parse("undercroft.toml", text.as_bytes());
    parsed
        .inventory
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

pub(crate) fn target(name: &NodeName) -> SystemTarget {
    SystemTarget {
        toplevel: format!("/nix/store/0c0vdzlgl5n8kbzvxjmmdhdnjgcl7c6x-{name}"),
        disko_script: None,
        disko_mount_script: None,
        disko_devices: None,
        system: System::X86_64Linux,
        closure_bytes: Some(312_000_000),
    }
}

/// Systems and host keys for all, and nothing seen of anything.
pub(crate) fn prepared(inventory: &Inventory) -> Observation {
    let mut observation = Observation::default();
    for name in inventory.nodes.keys() {
        observation.targets.insert(name.clone(), Ok(target(name)));
        observation
            .host_keys
            .insert(name.clone(), format!("SHA256:key-of-{name}"));
    }
    observation
}

pub(crate) fn see(observation: &mut Observation, node: &str, found: Found) {
    let seen = NodeObservation {
        found,
        age_ms: Some(0),
    };
    observation.nodes.insert(name(node), seen);
}

/// It runs what it should, as a run has proved before.
#[allow(dead_code, reason = "not every test has such a machine")]
pub(crate) fn see_up(observation: &mut Observation, node: &str) {
    see(observation, node, running(node));
    let installed = observation.installed.entry(name(node)).or_default();
    installed.proved_up = true;
}

pub(crate) fn running(node: &str) -> Found {
    Found::Running {
        boot_id: "boot".to_owned(),
        booted_system: target(&name(node)).toplevel,
        current_system: target(&name(node)).toplevel,
    }
}

/// What an installer on that machine reports.
pub(crate) fn report(inventory: &Inventory, node: &str) -> InstallerReport {
    let entry = &inventory.nodes[&name(node)];
    InstallerReport {
        version: 1,
        nonce: "0".repeat(32),
        uuid: entry.uuid,
        macs: entry.macs.clone(),
        address: entry.address,
        boot_id: "installer-boot".to_owned(),
        host_key: "ssh-ed25519 AAAA".to_owned(),
        fingerprint: "SHA256:ephemeral".to_owned(),
        system: entry.system,
        firmware: ReportedFirmware::Uefi,
        memory_mb: 2048,
        installer: "installer 1".to_owned(),
        token: None,
        disks: entry
            .disks
            .iter()
            .map(|disk| ReportedDisk {
                path: "/dev/vda".to_owned(),
                serial: disk.serial.clone(),
                wwn: disk.wwn.clone(),
                size_bytes: 4 << 30,
                model: None,
                transport: Some("virtio".to_owned()),
            })
            .collect(),
    }
}

pub(crate) fn installer(report: InstallerReport) -> Found {
    Found::Installer {
        report: Box::new(report),
    }
}
