//! Measures parsing, planning or rehearsing a fleet of a given size, once, or rehearsing the fleet as it is
//! with a number of seeds, in this process, and prints a line of JSON:
//! `bench_scale (parse|plan|rehearse|rehearse-some|seeds-many) INVENTORY COUNT`.
//!
//! Each size runs in a process of its own, so that the peak of its memory is its own. It has one thread, and
//! what is told is the processor's time that it took, so that it doesn't matter what else runs.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a measurement reads files and arguments, and prints; the library doesn't"
)]

use std::error::Error;

use serde_json::json;
use undercroft_model::{
    Observation, SystemTarget,
    inventory::{Inventory, parse, print, scale_to},
};
use undercroft_planner::plan;
use undercroft_sim::{Faults, RehearseOptions, rehearse};

/// The command's own allocator: what is measured is what people run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, file, count] = arguments.as_slice() else {
        return Err(
            "usage: bench_scale (parse|plan|rehearse|rehearse-some|seeds-many) INVENTORY COUNT"
                .into(),
        );
    };
    let count: usize = count.parse()?;
    let small = parse(file, &std::fs::read(file)?);
    let small = small.inventory.ok_or("the inventory has errors")?;
    let inventory = match what.as_str() {
        "seeds-many" => small,
        _ => scale_to(&small, count)?,
    };
    let before_kib = memory_kib("VmRSS:").unwrap_or(0);
    let (milliseconds, detail) = match what.as_str() {
        "parse" => {
            let text = print(&inventory);
            let begun = cpu_ms()?;
            let parsed = parse("undercroft.toml", text.as_bytes());
            let taken = cpu_ms()? - begun;
            let whole = parsed.inventory.is_some_and(|i| i.nodes.len() == count);
            if !whole {
                return Err("the printed inventory doesn't parse".into());
            }
            (taken, json!({ "bytes": text.len() }))
        }
        "plan" => {
            let observation = never_seen(&inventory);
            let begun = cpu_ms()?;
            let (plan, _) = plan(&inventory, &observation, None);
            let taken = cpu_ms()? - begun;
            if plan.nodes.len() != count {
                return Err(format!("only {} of {count} are planned", plan.nodes.len()).into());
            }
            (taken, json!({ "steps": plan.steps.len() }))
        }
        "rehearse" => rehearsed(&inventory, Faults::None, 1)?,
        "rehearse-some" => rehearsed(&inventory, Faults::Some, 1)?,
        "seeds-many" => rehearsed(&inventory, Faults::Many, u64::try_from(count)?)?,
        other => return Err(format!("nothing is called {other:?}").into()),
    };
    let peak_kib = memory_kib("VmHWM:").unwrap_or(0);
    let line = json!({
        "name": what,
        "count": count,
        "nodes": inventory.nodes.len(),
        "milliseconds": milliseconds,
        "peak_kib": peak_kib,
        "added_kib": peak_kib.saturating_sub(before_kib),
        "detail": detail,
    });
    println!("{line}");
    Ok(())
}

/// Rehearses with so many seeds, from the first on, and gives the time and what came of the last.
fn rehearsed(
    inventory: &Inventory,
    faults: Faults,
    seeds: u64,
) -> Result<(f64, serde_json::Value), Box<dyn Error>> {
    let begun = cpu_ms()?;
    let (mut records, mut digest) = (0, String::new());
    for seed in 1..=seeds {
        let options = RehearseOptions {
            seed,
            faults,
            ..RehearseOptions::default()
        };
        let rehearsal = rehearse(inventory, &options)?;
        if let Some(violation) = rehearsal.violation {
            return Err(format!("seed {seed}: {violation}").into());
        }
        records += rehearsal.entries;
        digest = rehearsal.digest;
    }
    let detail = json!({ "records": records, "digest": digest });
    Ok((cpu_ms()? - begun, detail))
}

/// A fleet of which nothing is known but what was built for it.
fn never_seen(inventory: &Inventory) -> Observation {
    let mut observation = Observation::default();
    for (name, node) in &inventory.nodes {
        let target = SystemTarget {
            toplevel: format!("/nix/store/{:032}-nixos-system-{name}", 0),
            disko_script: None,
            disko_mount_script: None,
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

/// The time that this process has had a processor, in milliseconds: `/proc/self/schedstat` has it in
/// nanoseconds (Linux, Documentation/scheduler/sched-stats.rst). The kernel counts at its ticks and whenever the process
/// lets go of its processor, so it does that first.
fn cpu_ms() -> Result<f64, Box<dyn Error>> {
    std::thread::sleep(std::time::Duration::from_millis(1));
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    let first = stat.split_whitespace().next().ok_or("no schedstat")?;
    Ok(first.parse::<f64>()? / 1e6)
}

/// A value of `/proc/self/status`, in KiB.
fn memory_kib(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
