//! Measures parsing, planning or rehearsing a fleet of a given size, once, in this process, and
//! prints a line of JSON: `bench_scale (parse|plan|rehearse) INVENTORY NODES`.
//!
//! Each size runs in a process of its own, so that the peak of its memory is its own.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a measurement reads files, arguments and a clock, and prints; the library doesn't"
)]

use std::{error::Error, time::Instant};

use serde_json::json;
use undercroft_model::{
    Observation, SystemTarget,
    inventory::{Inventory, parse, print, scale_to},
};
use undercroft_planner::plan;
use undercroft_sim::{RehearseOptions, rehearse};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, file, nodes] = arguments.as_slice() else {
        return Err("usage: bench_scale (parse|plan|rehearse) INVENTORY NODES".into());
    };
    let nodes: usize = nodes.parse()?;
    let small = parse(file, &std::fs::read(file)?);
    let small = small.inventory.ok_or("the inventory has errors")?;
    let inventory = scale_to(&small, nodes)?;
    let before_kib = memory_kib("VmRSS:").unwrap_or(0);
    let (milliseconds, detail) = match what.as_str() {
        "parse" => {
            let text = print(&inventory);
            let begun = Instant::now();
            let parsed = parse("undercroft.toml", text.as_bytes());
            let taken = begun.elapsed();
            let whole = parsed.inventory.is_some_and(|i| i.nodes.len() == nodes);
            if !whole {
                return Err("the printed inventory doesn't parse".into());
            }
            (taken.as_secs_f64() * 1e3, json!({ "bytes": text.len() }))
        }
        "plan" => {
            let observation = never_seen(&inventory);
            let begun = Instant::now();
            let (plan, _) = plan(&inventory, &observation, None);
            let taken = begun.elapsed();
            if plan.nodes.len() != nodes {
                return Err(format!("only {} of {nodes} are planned", plan.nodes.len()).into());
            }
            (
                taken.as_secs_f64() * 1e3,
                json!({ "steps": plan.steps.len() }),
            )
        }
        "rehearse" => {
            let begun = Instant::now();
            let rehearsal = rehearse(&inventory, &RehearseOptions::default())?;
            let taken = begun.elapsed();
            if let Some(violation) = rehearsal.violation {
                return Err(violation.to_string().into());
            }
            (
                taken.as_secs_f64() * 1e3,
                json!({ "records": rehearsal.entries, "digest": rehearsal.digest }),
            )
        }
        other => return Err(format!("nothing is called {other:?}").into()),
    };
    let peak_kib = memory_kib("VmHWM:").unwrap_or(0);
    let line = json!({
        "name": what,
        "nodes": nodes,
        "milliseconds": milliseconds,
        "peak_kib": peak_kib,
        "added_kib": peak_kib.saturating_sub(before_kib),
        "detail": detail,
    });
    println!("{line}");
    Ok(())
}

/// A fleet of which nothing is known but what was built for it.
fn never_seen(inventory: &Inventory) -> Observation {
    let mut observation = Observation::default();
    for (name, node) in &inventory.nodes {
        let target = SystemTarget {
            toplevel: format!("/nix/store/{:032}-nixos-system-{name}", 0),
            disko_script: None,
            disko_devices: None,
            system: node.system,
            closure_bytes: Some(2 << 30),
        };
        observation.targets.insert(name.clone(), Ok(target));
        observation
            .host_keys
            .insert(name.clone(), format!("SHA256:{name}"));
    }
    observation
}

/// A value of `/proc/self/status`, in KiB.
fn memory_kib(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
