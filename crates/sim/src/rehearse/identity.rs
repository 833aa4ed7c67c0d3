//! By what a machine is known: by its Ethernet addresses, by its UUID, by both.

use std::fmt::Write as _;

use undercroft_model::{MacAddr, MachineUuid, inventory::parse};

use super::*;

const NODES: u8 = 3;

fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

fn uuid(last: u8) -> MachineUuid {
    MachineUuid([
        0x3f, 0x0c, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, last,
    ])
}

/// A fleet whose inventory says that much of its machines.
fn fleet(by_mac: bool, by_uuid: bool) -> Inventory {
    let mut text = "[fleet]\nname = \"cellar\"\n\
        [network]\nnode_cidr = \"172.16.0.0/12\"\nserver_address = \"172.16.0.1\"\n\
        [classes.plain]\n"
        .to_owned();
    for n in 1..=NODES {
        let mut line = |line: String| writeln!(text, "{line}").unwrap();
        line(format!("[nodes.n{n}]\nclass = \"plain\""));
        line(format!("address = \"172.16.0.{}\"", 10 + n));
        line(format!("disks = [{{ serial = \"S{n}\" }}]"));
        if by_mac {
            line(format!("macs = [\"{}\"]", mac(n)));
        }
        if by_uuid {
            line(format!("uuid = \"{}\"", uuid(n)));
        }
    }
    let parsed = parse("undercroft.toml", text.as_bytes());
    parsed
        .inventory
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

#[test]
fn a_machine_comes_up_by_whatever_it_is_known_by_under_all_faults() {
    for (by_mac, by_uuid) in [(true, false), (false, true), (true, true)] {
        let inventory = fleet(by_mac, by_uuid);
        for faults in Faults::ALL {
            for seed in 1..=20 {
                let options = RehearseOptions {
                    seed,
                    faults,
                    ..RehearseOptions::default()
                };
                let rehearsal = rehearse(&inventory, &options).unwrap();
                let case = format!("MAC {by_mac}, UUID {by_uuid}, {faults} faults, seed {seed}");
                assert_eq!(rehearsal.violation, None, "{case}");
                if faults == Faults::None {
                    assert_eq!(rehearsal.report.up, usize::from(NODES), "{case}");
                }
            }
        }
    }
}

/// The rows of `a_machine_is_inspected_by_whatever_it_is_known_by` in metal's tests, which meets a real SSH server.
#[test]
fn a_machine_that_shows_another_s_identity_is_left_alone() {
    let (own_mac, other_mac) = (vec![mac(1)], vec![mac(99)]);
    let (own, other) = (Some(uuid(1)), Some(uuid(99)));
    for (by_mac, by_uuid, macs, uuid, why) in [
        (true, false, &own_mac, other, None),
        (true, false, &own_mac, None, None),
        (true, false, &other_mac, own, Some("Ethernet")),
        (false, true, &other_mac, own, None),
        (false, true, &own_mac, other, Some("UUID")),
        (false, true, &own_mac, None, Some("UUID")),
        (true, true, &own_mac, own, None),
        (true, true, &own_mac, None, None),
        (true, true, &own_mac, other, Some("UUID")),
        (true, true, &other_mac, own, Some("Ethernet")),
        (true, true, &other_mac, other, Some("UUID")),
    ] {
        let case = format!("known by MAC {by_mac}, UUID {by_uuid}; shows {macs:?} and {uuid:?}");
        let inventory = fleet(by_mac, by_uuid);
        let options = RehearseOptions::default();
        let mut state = RehearsalState::new(&inventory, &options);
        let machine = state.world.machine(0);
        machine.spec.macs.clone_from(macs);
        machine.spec.uuid = uuid;
        let ended = state.run_phases();
        let wiped: BTreeSet<u32> = state.world.wiped.iter().map(|(node, _)| *node).collect();
        let shared = state.shared.borrow();
        let refused: Vec<&str> = shared
            .notable
            .iter()
            .filter_map(|(_, record)| match record {
                Record::Quarantined { node, reason, .. } if node.as_str() == "n1" => {
                    Some(reason.as_str())
                }
                _ => None,
            })
            .collect();
        assert!(wiped.contains(&1) && wiped.contains(&2), "{case}");
        match why {
            None => {
                assert_eq!(ended.err(), None, "{case}");
                assert!(
                    wiped.contains(&0) && refused.is_empty(),
                    "{case}: {refused:?}"
                );
            }
            Some(why) => {
                assert!(!wiped.contains(&0), "{case}");
                assert!(
                    refused.iter().any(|r| r.contains(why)),
                    "{case}: {refused:?}"
                );
            }
        }
    }
}
