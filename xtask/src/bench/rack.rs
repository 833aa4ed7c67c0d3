//! One machine, and three in parallel, from power-on to proved up.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::run::{Failed, Step, cache_dir, repo_root};

/// The machines of each run, all of examples/rack.
const RUNS: [&[&str]; 2] = [&["rack-01"], &["rack-01", "rack-02", "rack-03"]];

/// Brings the machines up, each run on a fresh rack, and returns a line a run.
pub(crate) fn measure(tools: &[PathBuf]) -> Result<Vec<Value>, Failed> {
    Step::new("build undercroft", "cargo")
        .args(["build", "--quiet", "--release", "--package", "undercroft"])
        .run()?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repo_root().join("target"), PathBuf::from);
    let undercroft = target.join("release/undercroft");
    RUNS.iter()
        .map(|machines| one_run(&undercroft, machines, tools))
        .collect()
}

fn one_run(undercroft: &Path, machines: &[&str], tools: &[PathBuf]) -> Result<Value, Failed> {
    let folder = cache_dir().join("bench-rack");
    let command = |words: &[&str]| {
        Step::new(&format!("rack of {}", machines.len()), undercroft)
            .args(["-C"])
            .args([&folder])
            .args(words)
            .env("UNDERCROFT_CACHE_DIR", cache_dir())
            .path_first(tools)
    };
    let io = |e: std::io::Error| Failed::new("bench", format!("{}: {e}", folder.display()));
    if folder.exists() {
        command(&["rack", "down"]).run()?;
        std::fs::remove_dir_all(&folder).map_err(io)?;
    }
    std::fs::create_dir_all(&folder).map_err(io)?;
    std::fs::copy(
        repo_root().join("examples/rack/undercroft.toml"),
        folder.join("undercroft.toml"),
    )
    .map_err(io)?;
    command(&["rack", "up"]).run()?;
    let only = machines.join(",");
    let up = command(&["up", "--yes", "--only", &only]).run();
    let events = up.and_then(|()| command(&["events", "--json"]).output());
    command(&["rack", "down"]).run()?;
    let records: Vec<Value> = events?
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let line = timing(&records, machines.len())?;
    println!("{line}");
    Ok(line)
}

/// The times that the journal shows, the longest machine's where there are several.
fn timing(records: &[Value], machines: usize) -> Result<Value, Failed> {
    let missing = |what: &str| Failed::new("bench", format!("the journal has no {what}"));
    let text = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let at = |record: &Value| record.get("wall_ms").and_then(Value::as_u64).unwrap_or(0);
    let plan = records
        .iter()
        .find(|r| text(r, "record") == "plan-accepted")
        .and_then(|r| r.get("plan"))
        .ok_or_else(|| missing("plan"))?;
    let steps = plan
        .get("steps")
        .and_then(Value::as_array)
        .ok_or_else(|| missing("steps"))?;
    let verb = |record: &Value| {
        let index = record.get("step").and_then(Value::as_u64)?;
        let step = steps.get(usize::try_from(index).ok()?)?;
        Some(step.get("action")?.get("do")?.as_str()?.to_owned())
    };
    // For each operation its start, its end and its step; between operations of a machine the time
    // is ours, for nothing runs on it then.
    let mut running = std::collections::BTreeMap::new();
    let mut longest = std::collections::BTreeMap::<String, u64>::new();
    let (mut first, mut last, mut busy) = (u64::MAX, 0_u64, Vec::new());
    for record in records {
        match text(record, "record").as_str() {
            "op-started" => {
                first = first.min(at(record));
                running.insert(record.get("op").and_then(Value::as_u64), at(record));
            }
            "op-ended" => {
                last = last.max(at(record));
                let op = record.get("op").and_then(Value::as_u64);
                if let (Some(from), Some(verb)) = (running.remove(&op), verb(record)) {
                    let entry = longest.entry(verb.clone()).or_default();
                    *entry = (*entry).max(at(record).saturating_sub(from));
                    busy.push((from, at(record), verb));
                }
            }
            _ => {}
        }
    }
    let total_ms = last.saturating_sub(first);
    // Approving, and whatever lies between operations, is ours alone.
    busy.retain(|(_, _, verb)| verb != "approve");
    let ours_ms = total_ms.saturating_sub(covered_ms(busy.iter().map(|(a, b, _)| (*a, *b))));
    let seconds = |verb: &str| {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
        let ms = longest.get(verb).copied().unwrap_or(0) as f64;
        ms / 1e3
    };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
    let (total, ours) = (total_ms as f64, ours_ms as f64);
    Ok(json!({
        "machines": machines,
        "total_s": total / 1e3,
        "network_boot_s": seconds("network-boot"),
        "copy_s": seconds("copy-closure"),
        "install_s": seconds("partition") + seconds("install"),
        "return_s": seconds("reboot") + seconds("prove"),
        "ours_percent": 100.0 * ours / total.max(1.0),
    }))
}

/// How much time the spans cover together.
fn covered_ms(spans: impl Iterator<Item = (u64, u64)>) -> u64 {
    let mut spans: Vec<(u64, u64)> = spans.collect();
    spans.sort_unstable();
    let (mut covered, mut until) = (0, 0);
    for (from, to) in spans {
        covered += to.saturating_sub(from.max(until));
        until = until.max(to);
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_spans_count_once() {
        assert_eq!(
            covered_ms([(5, 9), (0, 4), (3, 6), (20, 21)].into_iter()),
            10
        );
    }
}
