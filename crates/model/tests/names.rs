//! Names that people read are those that JSON has.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the finding")]

use std::fmt::Display;

use serde::Serialize;
use undercroft_model::{
    BootstrapPart, ClusterRole, DiskIdentity, MacAddr, MachineUuid, NodeName, NodeState, PlanId,
    System,
};

fn same_in_json(value: impl Display + Serialize) {
    let json = serde_json::to_value(&value).unwrap();
    assert_eq!(json, serde_json::Value::String(value.to_string()));
    // Columns are made of them.
    assert_eq!(format!("{value:>70}").len(), 70);
}

#[test]
fn what_is_shown_is_what_json_has() {
    NodeState::ALL.into_iter().for_each(same_in_json);
    [ClusterRole::Server, ClusterRole::Agent]
        .into_iter()
        .for_each(same_in_json);
    [
        System::X86_64Linux,
        System::Aarch64Linux,
        System::X86_64Darwin,
        System::Aarch64Darwin,
    ]
    .into_iter()
    .for_each(same_in_json);
    same_in_json(NodeName::new("gpu-01").unwrap());
    same_in_json(PlanId("abc".to_owned()));
    assert_eq!(
        MacAddr([0, 1, 2, 3, 0xab, 0xff]).to_string(),
        "00:01:02:03:ab:ff"
    );
    assert_eq!(
        MachineUuid([0x1a; 16]).to_string(),
        "1a1a1a1a-1a1a-1a1a-1a1a-1a1a1a1a1a1a"
    );
}

/// The verbs of the bootstrap's steps, in their order.
#[test]
fn a_part_of_the_bootstrap_is_shown_as_the_verb_of_its_step() {
    let shown = BootstrapPart::ALL.map(|part| part.to_string());
    assert_eq!(shown, ["network", "secrets", "argocd", "sync"]);
    assert!(BootstrapPart::ALL.is_sorted() && NodeState::ALL.is_sorted());
}

#[test]
fn a_disk_is_named_by_what_it_is_known_by() {
    let shown = |serial: Option<&str>, wwn: Option<&str>| {
        let (serial, wwn) = (serial.map(str::to_owned), wwn.map(str::to_owned));
        DiskIdentity { serial, wwn }.to_string()
    };
    assert_eq!(shown(Some("A"), None), "serial A");
    assert_eq!(shown(Some("A"), Some("0x1")), "serial A");
    assert_eq!(shown(None, Some("0x1")), "WWN 0x1");
    assert_eq!(shown(None, None), "a disk without identity");
}

/// The installer and the rack's systems are given the same keys as the machines that Nix makes.
#[test]
fn root_is_everybody_who_may_be_whoever_makes_the_machine() {
    let text = "[fleet]\nname = \"keys\"\nadmin_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB fleet\"]\n\
        [network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.2\"\n\
        [users.ada]\nrole = \"admin\"\nssh_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC ada\"]\n\
        [users.kim]\nssh_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD kim\"]\n";
    let parsed = undercroft_model::inventory::parse("undercroft.toml", text.as_bytes());
    let inventory = parsed.inventory.expect("it is sound");
    let keys = inventory.authorized_keys("ssh-ed25519 OPERATOR");
    let whose: Vec<&str> = keys
        .iter()
        .filter_map(|key| key.split(' ').nth(2))
        .collect();
    assert_eq!(
        keys.first().map(String::as_str),
        Some("ssh-ed25519 OPERATOR")
    );
    assert_eq!(whose, ["fleet", "ada"]);
    assert_eq!(inventory.authorized_keys("").len(), 2);
}
