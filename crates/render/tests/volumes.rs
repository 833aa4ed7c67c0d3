//! The volumes that the tree asks for have a place on the disks that the inventory has, with all their
//! replicas: each on another machine. That sums suffice says nothing of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use undercroft_model::inventory::{Inventory, parse};
use undercroft_render::{Context, yaml};

/// Longhorn keeps so many replicas of NATS' volumes, since NATS keeps its own three copies.
const SINGLE: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Volume {
    gib: u32,
    replicas: u32,
}

fn template(partition_gb: Option<&str>) -> Inventory {
    let text = include_str!("../../cli/templates/cluster.toml").replace("@FLEET@", "demo");
    let text = match partition_gb {
        Some(gb) => text.replace("partition_gb = 200 }", &format!("partition_gb = {gb} }}")),
        None => text,
    };
    let parsed = parse("undercroft.toml", text.as_bytes());
    parsed.inventory.expect("the template is good")
}

/// All sizes that a tree asks for: `size` and `storage` with a number of GiB.
fn sizes(value: &Value, out: &mut Vec<u32>) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                let gib = value.as_str().and_then(|text| text.strip_suffix("Gi"));
                match gib.filter(|_| key == "size" || key == "storage") {
                    Some(gib) => out.push(gib.parse().unwrap()),
                    None => sizes(value, out),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| sizes(value, out)),
        _ => {}
    }
}

fn volumes(inventory: &Inventory) -> Vec<Volume> {
    let lock = support::lock_for(inventory);
    let cx = Context::new(inventory, &lock);
    let mut all = Vec::new();
    for (path, text) in support::tree(inventory, false).files {
        if !path.ends_with("values.yaml") {
            continue;
        }
        let mut found = Vec::new();
        sizes(&yaml::parse(&text).unwrap(), &mut found);
        for gib in found {
            if path.contains("/nats/") {
                let servers = cx.cluster_nodes().count().min(3);
                all.extend((0..servers).map(|_| Volume {
                    gib,
                    replicas: SINGLE,
                }));
            } else {
                let replicas = cx.longhorn_replicas();
                all.push(Volume { gib, replicas });
            }
        }
    }
    all.sort();
    all.reverse();
    all
}

/// What Longhorn may use of each machine, in GiB, by the annotation that it reads and the partition's size.
fn room(inventory: &Inventory) -> Vec<u32> {
    let mut room = BTreeMap::new();
    for (name, node) in &inventory.nodes {
        let Some(longhorn) = &node.longhorn else {
            continue;
        };
        let size = longhorn.partition_gb.expect("the template has partitions");
        let annotation = inventory
            .node_annotations(name)
            .remove(undercroft_model::inventory::LONGHORN_DISK_ANNOTATION)
            .unwrap();
        let disks: Value = serde_json::from_str(&annotation).unwrap();
        let reserved: u64 = disks
            .as_array()
            .unwrap()
            .iter()
            .map(|disk| disk["storageReserved"].as_u64().unwrap())
            .sum();
        let reserved = u32::try_from(reserved >> 30).unwrap();
        room.insert(name.clone(), size - reserved);
    }
    room.into_values().collect()
}

/// Whether there is a placement: every choice of machines for every volume is tried.
fn fits(volumes: &[Volume], room: &mut Vec<u32>) -> bool {
    let Some((volume, rest)) = volumes.split_first() else {
        return true;
    };
    let machines = u32::try_from(room.len()).unwrap();
    for chosen in 0_u32..1 << machines {
        if chosen.count_ones() != volume.replicas {
            continue;
        }
        let on = |at: usize| chosen & (1 << at) != 0;
        if (0..room.len()).any(|at| on(at) && room[at] < volume.gib) {
            continue;
        }
        let taken = |room: &mut Vec<u32>, back: bool| {
            for at in (0..room.len()).filter(|at| on(*at)) {
                room[at] = if back {
                    room[at] + volume.gib
                } else {
                    room[at] - volume.gib
                };
            }
        };
        taken(room, false);
        let fit = fits(rest, room);
        taken(room, true);
        if fit {
            return true;
        }
    }
    false
}

#[test]
fn the_clusters_template_has_room_for_its_own_volumes() {
    let inventory = template(None);
    let volumes = volumes(&inventory);
    // Prometheus, Loki, Grafana, Alertmanager, and NATS' three.
    assert_eq!(volumes.len(), 7, "{volumes:?}");
    assert_eq!(
        volumes[0],
        Volume {
            gib: 50,
            replicas: 3
        }
    );
    assert!(fits(&volumes, &mut room(&inventory)));
    // Also where the machine with the card takes none.
    let mut servers = room(&inventory);
    servers.truncate(3);
    assert!(fits(&volumes, &mut servers), "{servers:?}");
}

#[test]
fn the_search_finds_what_has_no_placement_though_the_sum_suffices() {
    let inventory = template(Some("100"));
    let mut room = vec![90, 90, 90, 180];
    let volumes = volumes(&inventory);
    let needed: u32 = volumes
        .iter()
        .map(|volume| volume.gib * volume.replicas)
        .sum();
    assert!(needed < room.iter().sum());
    assert!(!fits(&volumes, &mut room));
}
