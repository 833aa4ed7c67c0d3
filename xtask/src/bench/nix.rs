//! The pure half of the Nix library: what a machine more costs to evaluate.

use std::{fmt::Write as _, path::Path, process::Stdio, time::Instant};

use serde_json::{Value, json};

use super::INVENTORY;
use crate::run::{Failed, cache_dir, repo_root};

/// The sizes of fleet, in machines.
const SIZES: [u32; 4] = [1, 10, 100, 1_000];
/// Each size is measured so often, and the least time counts: others use this machine too.
const REPEATS: usize = 3;

/// Evaluates fleets of each size with `nix-instantiate`, all values of all machines.
pub(super) fn measure() -> Result<Vec<Value>, Failed> {
    let template = std::fs::read_to_string(repo_root().join(INVENTORY))
        .map_err(|e| Failed::new("bench nix", format!("{INVENTORY}: {e}")))?;
    let folder = cache_dir().join("bench-nix");
    let mut lines: Vec<Value> = Vec::new();
    for nodes in SIZES {
        write(&folder, &fleet(&template, nodes))?;
        let mut best = f64::INFINITY;
        for _ in 0..REPEATS {
            best = best.min(evaluate(&folder)?);
        }
        let line = json!({ "name": "pure-half", "nodes": nodes, "milliseconds": best });
        println!("{line}");
        lines.push(line);
    }
    Ok(lines)
}

fn write(folder: &Path, text: &str) -> Result<(), Failed> {
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(folder.join("undercroft.toml"), text))
        .map_err(|e| Failed::new("bench nix", format!("{}: {e}", folder.display())))
}

/// The inventory with so many machines in place of its own: a founder, and workers with cards.
fn fleet(template: &str, nodes: u32) -> String {
    let mut text = template
        .split_once("[nodes.")
        .map_or(template, |(before, _)| before)
        .to_owned();
    for index in 0..nodes {
        let (name, class) = match index {
            0 => ("control-01".to_owned(), "control"),
            _ => (format!("gpu-{index:04}"), "gpu-4090"),
        };
        let (high, low) = (index / 250, index % 250 + 1);
        let _ = writeln!(
            text,
            "[nodes.{name}]\nclass = \"{class}\"\nmacs = [\"02:00:00:00:{high:02x}:{low:02x}\"]\n\
             address = \"10.20.{high}.{low}\"\ndisks = [{{ serial = \"R{index}\" }}, \
             {{ serial = \"L{index}\", role = \"longhorn\", size_gb = 3726 }}]"
        );
    }
    text
}

/// Milliseconds for one evaluation, the start of Nix included.
fn evaluate(folder: &Path) -> Result<f64, Failed> {
    let begun = Instant::now();
    let status = std::process::Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--readonly-mode"])
        .arg(repo_root().join("nix/tests/golden.nix"))
        .args(["--arg", "src"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|e| Failed::new("bench nix", format!("can't start nix-instantiate: {e}")))?;
    if !status.success() {
        return Err(Failed::new(
            "bench nix",
            format!("nix-instantiate ended with {status}"),
        ));
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// The table: the time, and what each machine beyond the first adds.
pub(super) fn table(lines: &[Value]) -> String {
    let number = |line: &Value, key: &str| line.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let first = lines
        .first()
        .map_or(0.0, |line| number(line, "milliseconds"));
    let mut table =
        String::from("| machines | time | each further machine |\n| ---: | ---: | ---: |\n");
    for line in lines {
        let nodes = number(line, "nodes");
        let ms = number(line, "milliseconds");
        let each = if nodes > 1.0 {
            format!("{:.2} ms", (ms - first) / (nodes - 1.0))
        } else {
            "–".to_owned()
        };
        let _ = writeln!(table, "| {nodes} | {ms:.0} ms | {each} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_of_any_size_begins_with_the_founder() {
        let text = fleet("[fleet]\n[nodes.x]\n", 3);
        assert_eq!(text.matches("[nodes.").count(), 3);
        assert!(text.starts_with("[fleet]\n[nodes.control-01]"), "{text}");
        assert!(!text.contains("[nodes.x]"));
    }

    #[test]
    fn the_table_tells_the_start_from_what_grows() {
        let lines = [
            json!({ "nodes": 1, "milliseconds": 50.0 }),
            json!({ "nodes": 101, "milliseconds": 100.0 }),
        ];
        assert!(table(&lines).ends_with("| 1 | 50 ms | – |\n| 101 | 100 ms | 0.50 ms |\n"));
    }
}
