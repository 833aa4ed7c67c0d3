//! `cargo xtask bench`: speed against real peers in the same run, as ratios, and scale.

mod lending;
mod nix;
mod page;
mod program;
mod rack;

use std::path::{Path, PathBuf};

use serde_json::Value;

use program::{example, json};

use crate::{
    packages,
    run::{Failed, Step},
};

/// The sizes of fleet at which scale is shown, in machines.
const SIZES: [u32; 4] = [100, 1_000, 10_000, 100_000];
/// The largest fleet that is parsed: a cluster's pod network within 10.0.0.0/8 has room for some
/// 16,000 machines, and the inventory of a larger one is rightly refused.
const PARSED_MAX: u32 = 10_000;
/// Each size is measured so often, and the least time counts: others use this machine too.
const REPEATS: usize = 2;
/// How many seeds are rehearsed.
const SEEDS: u32 = 1_000;
/// How many entries the journal has that is opened.
const ENTRIES: u32 = 1_000_000;
/// How often it is opened: three threads share two processors, and one run differs from the next by a third.
const JOURNAL_REPEATS: usize = 3;
/// The inventory that is scaled.
const INVENTORY: &str = "examples/basement/undercroft.toml";

/// Runs the benchmarks that are named, or all of them, and writes their tables.
pub(crate) fn run(rest: &[&str]) -> Result<(), Failed> {
    let all = ["scale", "render", "netboot", "rack", "nix", "lending"];
    if rest == ["lending-short"] {
        packages::ensure(packages::Need::Bench)?;
        return lending::try_out();
    }
    if let Some(unknown) = rest.iter().find(|name| !all.contains(name)) {
        return Err(Failed::new(
            "bench",
            format!("no {unknown:?}; there are {}", all.join(", ")),
        ));
    }
    let wanted = |name: &str| rest.is_empty() || rest.contains(&name);
    let tools = packages::ensure(packages::Need::Bench)?;
    // What a row is known by stands in so many of its first cells.
    let mut kept = Vec::new();
    if wanted("scale") {
        kept.extend(page::update("scale", &page::scale(&scale()?), 2)?);
        kept.extend(page::update("seeds", &page::seeds(&seeds()?), 1)?);
        kept.extend(page::update("journal", &page::journal(&journal()?), 1)?);
    }
    if wanted("netboot") {
        kept.extend(page::update(
            "netboot",
            &page::netboot(&netboot(&tools)?),
            1,
        )?);
    }
    if wanted("render") {
        kept.extend(page::update("render", &page::render(&render()?), 2)?);
    }
    if wanted("rack") {
        kept.extend(page::update(
            "rack",
            &page::rack(&rack::measure(&tools)?),
            1,
        )?);
    }
    if wanted("nix") {
        kept.extend(page::update("nix", &nix::table(&nix::measure()?), 1)?);
    }
    if wanted("lending") {
        for (name, table) in lending::tables()? {
            kept.extend(page::update(name, &table, 1)?);
        }
    }
    page::replace("machine", &page::machine())?;
    if kept.is_empty() {
        return Ok(());
    }
    Err(Failed::new(
        "bench",
        format!(
            "the page is written, but these rows are still of an earlier run and marked so, because what \
             they compare with isn't here (the lines with SKIPPED say what): {}. A row that no benchmark \
             makes any more is taken out by hand.",
            kept.join("; ")
        ),
    ))
}

/// Parse, plan and rehearse at each size.
fn scale() -> Result<Vec<Value>, Failed> {
    let program = example("undercroft-sim", "bench_scale")?;
    let mut lines = Vec::new();
    for what in ["parse", "plan", "rehearse", "rehearse-some"] {
        for nodes in SIZES {
            let largest = matches!(what, "parse" | "rehearse-some");
            if largest && nodes > PARSED_MAX {
                continue;
            }
            lines.push(best(&program, &[what, INVENTORY, &nodes.to_string()])?);
        }
    }
    Ok(lines)
}

/// The inventory as it is, rehearsed with many seeds and nearly everything going wrong.
fn seeds() -> Result<Vec<Value>, Failed> {
    let program = example("undercroft-sim", "bench_scale")?;
    let line = best(&program, &["seeds-many", INVENTORY, &SEEDS.to_string()])?;
    Ok(vec![line])
}

/// Opening a real journal and folding it, beside SQLite reading the same rows.
fn journal() -> Result<Vec<Value>, Failed> {
    let program = example("undercroft-journal", "bench_journal")?;
    let entries = ENTRIES.to_string();
    let took = |line: &Value| line.get("ours_ms").and_then(Value::as_f64);
    let mut best: Option<Value> = None;
    for _ in 0..JOURNAL_REPEATS {
        let line = Step::new("measure the journal", &program)
            .args([INVENTORY, &entries])
            .output()?;
        println!("{}", line.trim());
        let line = json(&line)?;
        if best.as_ref().is_none_or(|best| took(&line) < took(best)) {
            best = Some(line);
        }
    }
    Ok(best.into_iter().collect())
}

/// Measures so often, each time in a process of its own, and gives the line with the least time.
fn best(program: &Path, args: &[&str]) -> Result<Value, Failed> {
    let mut best: Option<Value> = None;
    let took = |line: &Value| line.get("milliseconds").and_then(Value::as_f64);
    for _ in 0..REPEATS {
        let line = json(&Step::new("measure", program).args(args).output()?)?;
        if best.as_ref().is_none_or(|best| took(&line) < took(best)) {
            best = Some(line);
        }
    }
    let line = best.ok_or_else(|| Failed::new("bench", "nothing was measured".to_owned()))?;
    println!("{line}");
    Ok(line)
}

/// Our servers against nginx and dnsmasq.
fn netboot(tools: &[PathBuf]) -> Result<Vec<Value>, Failed> {
    let program = example("undercroft-netboot", "bench_netboot")?;
    let output = Step::new("measure netboot", &program)
        .path_first(tools)
        .output()?;
    let mut lines = Vec::new();
    for line in output.lines().filter(|line| line.starts_with('{')) {
        println!("{line}");
        lines.push(json(line)?);
    }
    Ok(lines)
}

/// The tree of manifests, of the inventory as it is and of a large one, against the time that
/// `kubectl kustomize` takes to read and print the same objects.
fn render() -> Result<Vec<Value>, Failed> {
    let program = example("undercroft-render", "bench_render")?;
    let mut lines = Vec::new();
    // No number of nodes means the inventory's own.
    for (nodes, apps) in [(0, 0), (1_000, 100)] {
        let line = Step::new("measure render", &program)
            .args([INVENTORY, &nodes.to_string(), &apps.to_string()])
            .output()?;
        let line = json(&line)?;
        println!("{line}");
        lines.push(line);
    }
    Ok(lines)
}
