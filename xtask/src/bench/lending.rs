//! Lending: what an idle PC pays, how long a job takes, and how fast a machine is its owner's again.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::program::{example, json, release};
use crate::run::{Failed, Step, cache_dir, repo_root, which};

/// Where the worker in Node is, with the versions of what it needs.
const NODE: &str = "crates/lending/examples/bench_lending/node";
/// The files that say which.
const LOCKED: [&str; 2] = ["package.json", "package-lock.json"];

/// How much is measured.
struct Amount {
    /// How long idle processes are watched, in seconds.
    idle_s: u32,
    /// Jobs of each kind.
    jobs: u32,
    /// Revocations of each size.
    rounds: u32,
}

/// What stands on the page.
const WHOLE: Amount = Amount {
    idle_s: 300,
    jobs: 200,
    rounds: 200,
};
/// For trying, in a minute.
const SHORT: Amount = Amount {
    idle_s: 20,
    jobs: 20,
    rounds: 5,
};

/// The page's tables, by name.
pub(super) fn tables() -> Result<[(&'static str, String); 3], Failed> {
    let lines = measure(&WHOLE)?;
    Ok(of(&lines))
}

/// Prints what the tables would be of a short try.
pub(super) fn try_out() -> Result<(), Failed> {
    let lines = measure(&SHORT)?;
    for (name, table) in of(&lines) {
        println!("\n{name}\n\n{table}");
    }
    Ok(())
}

fn of(lines: &[Value]) -> [(&'static str, String); 3] {
    [
        ("lending-idle", idle(lines)),
        ("lending-dispatch", dispatch(lines)),
        ("lending-revoke", revoke(lines)),
    ]
}

/// Measures all of it, and gives the lines.
fn measure(amount: &Amount) -> Result<Vec<Value>, Failed> {
    let program = example("undercroft-lending", "bench_lending")?;
    let mut build = Step::new("build undercroft", "cargo").args(["build", "--quiet", "--release"]);
    build = build.args([
        "--package",
        "undercroft",
        "--package",
        "undercroft-jobrun",
        "--bins",
    ]);
    build.run()?;
    let modules = modules()?.unwrap_or_else(|| PathBuf::from("-"));
    let numbers = [amount.idle_s, amount.jobs, amount.rounds].map(|number| number.to_string());
    let output = Step::new("measure lending", &program)
        .args([release().join("undercroft"), modules])
        .args(numbers)
        .output()?;
    let mut lines = Vec::new();
    for line in output.lines() {
        println!("{line}");
        if line.starts_with('{') {
            lines.push(json(line)?);
        }
    }
    Ok(lines)
}

/// The folder with nats.js, by the lock file's digests; `None`, said openly, where there is no Node or it can't be had.
fn modules() -> Result<Option<PathBuf>, Failed> {
    if which("node").is_none() || which("npm").is_none() {
        println!("SKIPPED: the worker in Node: there is no node or no npm here");
        return Ok(None);
    }
    let folder = cache_dir().join("bench-lending-node");
    let source = repo_root().join(NODE);
    let modules = folder.join("node_modules");
    let is_same = |name: &&str| same(&source.join(name), &folder.join(name));
    if LOCKED.iter().all(is_same) && modules.join("nats").is_dir() {
        return Ok(Some(modules));
    }
    let copy = |name: &str| fs::copy(source.join(name), folder.join(name));
    fs::create_dir_all(&folder)
        .and_then(|()| LOCKED.iter().try_for_each(|name| copy(name).map(drop)))
        .map_err(|e| Failed::new("bench lending", format!("{}: {e}", folder.display())))?;
    let installed = Step::new("install nats.js", "npm")
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
        ])
        .args([&folder])
        .run();
    if let Err(error) = installed {
        println!("SKIPPED: the worker in Node: {error}");
        return Ok(None);
    }
    Ok(Some(modules))
}

fn same(one: &Path, other: &Path) -> bool {
    match (fs::read(one), fs::read(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn number(line: &Value, key: &str) -> Option<f64> {
    line.get(key).and_then(Value::as_f64)
}

fn find<'a>(lines: &'a [Value], name: &str, key: &str, is: &str) -> Option<&'a Value> {
    let text = |line: &'a Value, key: &str| line.get(key).and_then(Value::as_str);
    lines
        .iter()
        .find(|line| text(line, "name") == Some(name) && text(line, key) == Some(is))
}

/// A figure, or a dash where there is none.
fn cell(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), show)
}

fn ms(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2} ms"),
        value if value < 1000.0 => format!("{value:.0} ms"),
        value => format!("{:.2} s", value / 1e3),
    }
}

/// How a figure is written.
type Show = fn(f64) -> String;

fn mib(kib: f64) -> String {
    format!("{:.1} MiB", kib / 1024.0)
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn microseconds(us: f64) -> String {
    ms(us / 1e3)
}

/// The table of what an idle PC pays.
fn idle(lines: &[Value]) -> String {
    let of = |name: &str, who: &str, key: &str| {
        find(lines, name, "who", who).and_then(|line| number(line, key))
    };
    let seconds = of("idle", "ours", "seconds").unwrap_or(0.0);
    let jobs = of("after", "ours", "jobs").unwrap_or(0.0);
    let rows: [(&str, String, &str, Show); 7] = [
        ("idle", "memory, resident".to_owned(), "rss_kib", mib),
        ("idle", "of it in no file".to_owned(), "anonymous_kib", mib),
        (
            "after",
            format!("memory, resident, {jobs} jobs later"),
            "rss_kib",
            mib,
        ),
        (
            "after",
            format!("of it in no file, {jobs} jobs later"),
            "anonymous_kib",
            mib,
        ),
        ("idle", format!("wake-ups in {seconds} s"), "wakeups", whole),
        (
            "idle",
            format!("processor's time in {seconds} s"),
            "cpu_us",
            microseconds,
        ),
        ("idle", "threads".to_owned(), "threads", whole),
    ];
    let mut table =
        String::from("| idle | ours | Node, nats.js | share |\n| --- | ---: | ---: | ---: |\n");
    for (name, what, key, show) in rows {
        let (ours, node) = (of(name, "ours", key), of(name, "node", key));
        let share = ours.zip(node).map(|(ours, node)| ours / node);
        let _ = writeln!(
            table,
            "| {what} | {} | {} | {} |",
            cell(ours, show),
            cell(node, show),
            cell(share, |share| format!("{share:.2}")),
        );
    }
    table
}

/// The table of a job's way.
fn dispatch(lines: &[Value]) -> String {
    let mut table = String::from(
        "| what | to its first instruction, p50 | p99 | to its record, p50 | p99 |\n\
         | --- | ---: | ---: | ---: | ---: |\n",
    );
    for (what, name) in [
        ("ours, `process`", "ours"),
        ("Node, nats.js", "node"),
        ("a request over NATS and its answer", "bare"),
    ] {
        let line = find(lines, "dispatch", "what", name);
        let of = |key: &str| cell(line.and_then(|line| number(line, key)), ms);
        let _ = writeln!(
            table,
            "| {what} | {} | {} | {} | {} |",
            of("started_p50_ms"),
            of("started_p99_ms"),
            of("recorded_p50_ms"),
            of("recorded_p99_ms"),
        );
    }
    for (what, name) in [
        ("of it the sandbox, as it starts", "sandbox"),
        ("a bare start of the same program", "bare"),
    ] {
        let line = find(lines, "start", "what", name);
        let of = |key: &str| cell(line.and_then(|line| number(line, key)), ms);
        let _ = writeln!(
            table,
            "| {what} | {} | {} | – | – |",
            of("p50_ms"),
            of("p99_ms")
        );
    }
    table
}

/// The table of revocations.
fn revoke(lines: &[Value]) -> String {
    let mut table = String::from(
        "| hostile processes | revocations | p50 | p90 | p99 | max |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let name = |line: &&Value| line.get("name").and_then(Value::as_str) == Some("revoke");
    for line in lines.iter().filter(name) {
        let of = |key: &str| number(line, key).unwrap_or(0.0);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} |",
            of("processes"),
            of("rounds"),
            ms(of("p50_ms")),
            ms(of("p90_ms")),
            ms(of("p99_ms")),
            ms(of("max_ms")),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let lines = [
            json!({ "name": "idle", "who": "ours", "seconds": 300, "rss_kib": 10240, "anonymous_kib": 2048,
                    "wakeups": 60, "cpu_us": 1500, "threads": 1 }),
            json!({ "name": "dispatch", "what": "bare", "recorded_p50_ms": 0.25, "recorded_p99_ms": 1234.0 }),
            json!({ "name": "revoke", "processes": 400, "rounds": 200, "p50_ms": 40.0, "p90_ms": 50.0,
                    "p99_ms": 60.0, "max_ms": 70.4 }),
        ];
        let idle = idle(&lines);
        assert!(
            idle.contains("| memory, resident | 10.0 MiB | – | – |"),
            "{idle}"
        );
        assert!(
            idle.contains("| wake-ups in 300 s | 60 | – | – |"),
            "{idle}"
        );
        assert!(
            idle.contains("| processor's time in 300 s | 1.50 ms | – | – |"),
            "{idle}"
        );
        let dispatch = dispatch(&lines);
        assert!(
            dispatch.contains("| a request over NATS and its answer | – | – | 0.25 ms | 1.23 s |"),
            "{dispatch}"
        );
        assert!(revoke(&lines).ends_with("| 400 | 200 | 40 ms | 50 ms | 60 ms | 70 ms |\n"));
    }
}
