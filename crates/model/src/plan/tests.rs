//! What a plan says in its written form, and which disk is meant.

use super::*;
use crate::inventory::DiskRole;

#[test]
fn every_state_is_written_as_people_read_it_and_the_former_names_are_read_too() {
    for state in NodeState::ALL {
        let written = serde_json::to_value(state).unwrap();
        assert_eq!(written, state.as_str());
        assert_eq!(serde_json::from_value::<NodeState>(written).unwrap(), state);
    }
    for (former, state) in [
        ("entrusted", NodeState::SecretsReady),
        ("delivering", NodeState::ArgoCdReady),
    ] {
        assert_eq!(
            serde_json::from_value::<NodeState>(former.into()).unwrap(),
            state
        );
    }
}

/// A disk is wiped by what this says: a table of all that it may be asked.
#[test]
fn a_disk_is_the_one_meant_only_if_all_that_is_known_of_it_agrees() {
    let some = |text: &str| Some(text.to_owned());
    for (serial, wwn, got_serial, got_wwn, same) in [
        (some("A"), None, Some("A"), None, true),
        (some("A"), None, Some("A"), Some("0x1"), true),
        (some("A"), None, Some("B"), None, false),
        (some("A"), None, None, None, false),
        (some("A"), None, None, Some("A"), false),
        (None, some("0x1"), None, Some("0x1"), true),
        (None, some("0x1"), Some("A"), Some("0x1"), true),
        (None, some("0x1"), Some("0x1"), None, false),
        (None, some("0x1"), None, Some("0x2"), false),
        (None, some("0xAb"), None, Some("0xaB"), true),
        (some("A"), some("0xAB"), Some("A"), Some("0xab"), true),
        // One of two is not enough.
        (some("A"), some("0x1"), Some("A"), Some("0x1"), true),
        (some("A"), some("0x1"), Some("A"), None, false),
        (some("A"), some("0x1"), None, Some("0x1"), false),
        (some("A"), some("0x1"), Some("A"), Some("0x2"), false),
        (some("A"), some("0x1"), Some("B"), Some("0x1"), false),
        // Nothing names nothing, not everything.
        (None, None, None, None, false),
        (None, None, Some("A"), Some("0x1"), false),
        (None, None, Some("A"), None, false),
        (None, None, None, Some("0x1"), false),
        // No part of a name is the name.
        (some("A"), None, Some("A1"), None, false),
        (some("A1"), None, Some("A"), None, false),
        (some("A"), None, Some("a"), None, false),
        (some(""), None, Some(""), None, true),
        (some(""), None, Some("A"), None, false),
    ] {
        let meant = DiskIdentity { serial, wwn };
        assert_eq!(
            meant.matches(got_serial, got_wwn),
            same,
            "{meant:?} {got_serial:?} {got_wwn:?}"
        );
    }
}

/// A step's action as programs wrote it when role and layout were text to them.
fn partition_written(role: &str, layout: &str) -> String {
    format!(
        r#"{{"do":"partition","disks":[{{"identity":{{"serial":"S1","wwn":null}},"role":"{role}","size_bytes_min":1073741824,"table_guid":"5bc755e9-c71d-8045-9620-206ea7f94707"}}],"layout":"{layout}","disko_script":null}}"#
    )
}

#[test]
fn roles_and_layouts_are_written_as_they_always_were() {
    for role in DiskRole::ALL {
        for layout in Layout::ALL {
            let written = partition_written(role.as_str(), layout.as_str());
            let action: Action = serde_json::from_str(&written).unwrap();
            let Action::Partition {
                disks,
                layout: read,
                ..
            } = &action
            else {
                panic!("{action:?}");
            };
            assert_eq!((disks[0].role, *read), (*role, *layout));
            assert_eq!(serde_json::to_string(&action).unwrap(), written);
        }
    }
}

#[test]
fn a_role_or_layout_that_is_not_known_is_refused_with_those_that_are() {
    for (role, layout, says) in [
        (
            "swap",
            "ext4",
            "unknown variant `swap`, expected one of `root`, `longhorn`, `data`, `keep`",
        ),
        (
            "Root",
            "ext4",
            "unknown variant `Root`, expected one of `root`, `longhorn`, `data`, `keep`",
        ),
        (
            "root",
            "btrfs",
            "unknown variant `btrfs`, expected one of `ext4`, `zfs`, `zfs-mirror`, `zfs-encrypted`",
        ),
    ] {
        let error = serde_json::from_str::<Action>(&partition_written(role, layout));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn a_disk_is_wiped_by_its_role() {
    let wiped: Vec<&str> = DiskRole::ALL
        .iter()
        .filter(|role| role.is_wiped())
        .map(|role| role.as_str())
        .collect();
    assert_eq!(wiped, ["root", "longhorn"]);
}

#[test]
fn a_member_is_made_by_founding_and_joining_alone() {
    let makes = |action: Action| (action.makes_member(), action.is_of_cluster());
    assert_eq!(makes(Action::FoundCluster), (true, true));
    let role = ClusterRole::Agent;
    let replaces = false;
    assert_eq!(makes(Action::JoinCluster { role, replaces }), (true, true));
    let part = BootstrapPart::Network;
    assert_eq!(makes(Action::Bootstrap { part }), (false, true));
    assert_eq!(makes(Action::NetworkBoot), (false, false));
}
