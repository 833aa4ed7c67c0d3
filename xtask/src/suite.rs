//! `cargo xtask test`: every test, with an honest count at the end.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    time::SystemTime,
};

use crate::{
    packages, peers,
    run::{Failed, Step, repo_root},
    tidy, timed,
};

/// Runs every test of the workspace. Test binaries run one after another, and the rack's tests one
/// at a time, so that virtual machines don't starve each other of the cores.
pub(crate) fn run(filter: &[&str]) -> Result<(), Failed> {
    let tools = packages::ensure(packages::Need::Test)?;
    // Go and Rust both have stretches in which they leave a core idle.
    let peers = std::thread::scope(|scope| {
        let peers = scope.spawn(peers::for_tests);
        Step::new("build the tests", "cargo")
            .args([
                "test",
                "--workspace",
                "--all-targets",
                "--no-run",
                "--quiet",
            ])
            .run()?;
        peers
            .join()
            .map_err(|_| Failed::new("test", "building the peers panicked"))
    })?;
    let runner = timed::runner()?;
    // Passing tests' output is asked for so that a test that skipped itself can be counted.
    let mut child = Step::new("test", "cargo")
        .args(["test", "--workspace", "--no-fail-fast", "--"])
        .args(filter.iter().copied())
        .args(["--show-output"])
        .path_first(&tools)
        .envs(runner)
        .env("UNDERCROFT_PEERS", peers)
        .env("UNDERCROFT_SEEDS_FROM", seeds_from())
        .spawn_piped()?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|e| Failed::new("test", format!("can't read: {e}")))?;
            if tally.take(&line) {
                println!("{line}");
            }
        }
    }
    let status = child
        .wait()
        .map_err(|e| Failed::new("test", e.to_string()))?;
    tidy::run(&repo_root())?;
    let slowest = timed::slowest(&tally.times);
    if !slowest.is_empty() {
        println!("\nthe slowest tests:\n{}", slowest.trim_end());
    }
    println!("\n{}", tally.summary());
    if status.success() && tally.failed == 0 {
        Ok(())
    } else {
        Err(Failed::new(
            "test",
            format!("cargo test ended with {status}"),
        ))
    }
}

/// The first of the seeds with which the simulation is tried: another each day, so that in the long run
/// many are, and the same for a day, so that what has failed fails again. Who wants those of another
/// day sets the variable.
fn seeds_from() -> String {
    let set = std::env::var("UNDERCROFT_SEEDS_FROM").ok();
    let from = set.unwrap_or_else(|| {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        seeds_of_day(since.as_secs() / SECONDS_A_DAY).to_string()
    });
    println!("The simulation's seeds begin at {from}: UNDERCROFT_SEEDS_FROM={from} repeats them.");
    from
}

const SECONDS_A_DAY: u64 = 24 * 3600;
/// Seeds between the starts of two days: more than one day's tests use, so that no two days try the
/// same.
const SEEDS_A_DAY: u64 = 10_000;

fn seeds_of_day(day: u64) -> u64 {
    day.saturating_mul(SEEDS_A_DAY)
}

/// Reads what libtest prints.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: BTreeSet<String>,
    times: Vec<(String, f64)>,
    in_successes: bool,
    current: String,
}

impl Tally {
    /// Takes a line, and says whether a person wants to see it.
    fn take(&mut self, line: &str) -> bool {
        if let Some((name, seconds)) = timed::seconds(line) {
            self.times.push((name.to_owned(), seconds));
        }
        if line.starts_with("running ") || line == "failures:" {
            self.in_successes = false;
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            for (count, word) in counts(rest) {
                match word {
                    "passed" => self.passed += count,
                    "failed" => self.failed += count,
                    "ignored" => self.ignored += count,
                    _ => {}
                }
            }
            return true;
        }
        if line == "successes:" {
            self.in_successes = true;
        }
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|l| l.strip_suffix(" stdout ----"))
        {
            name.clone_into(&mut self.current);
        }
        if self.in_successes {
            if let Some(reason) = line.strip_prefix("SKIPPED: ") {
                let skipped = format!("{}: {reason}", self.current);
                println!("skipped {skipped}");
                self.skipped.insert(skipped);
            }
            return false;
        }
        true
    }

    fn summary(&self) -> String {
        let names: BTreeSet<&str> = self
            .skipped
            .iter()
            .filter_map(|s| s.split_once(": ").map(|(name, _)| name))
            .collect();
        let skipped = names.len() as u64;
        let mut text = String::new();
        for line in &self.skipped {
            text.push_str(&format!("skipped {line}\n"));
        }
        text.push_str(&format!(
            "{} passed, {} failed, {} skipped",
            self.passed.saturating_sub(skipped),
            self.failed,
            skipped + self.ignored
        ));
        text
    }
}

/// The pairs of a count and its word in `ok. 3 passed; 0 failed; …`.
fn counts(text: &str) -> impl Iterator<Item = (u64, &str)> {
    text.split(['.', ';']).filter_map(|part| {
        let (count, word) = part.trim().split_once(' ')?;
        Some((count.parse().ok()?, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_has_seeds_of_its_own() {
        assert_eq!(seeds_of_day(20_783), 207_830_000);
        assert!(seeds_of_day(20_784) - seeds_of_day(20_783) >= 1_000);
    }

    #[test]
    fn a_skipped_test_is_counted_as_skipped_and_not_as_passed() {
        let output = "\
running 3 tests
test a ... ok
test b ... ok
test c ... FAILED

successes:

---- b stdout ----
SKIPPED: no QEMU here
more

successes:
    a
    b

failures:

---- c stdout ----
SKIPPED: is no excuse for a failure

failures:
    c

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s
";
        let mut tally = Tally::default();
        let shown: Vec<&str> = output.lines().filter(|line| tally.take(line)).collect();
        assert_eq!(
            tally.summary(),
            "skipped b: no QEMU here\n1 passed, 1 failed, 1 skipped",
            "{tally:?}"
        );
        assert!(shown.contains(&"---- c stdout ----") && !shown.contains(&"more"));
    }
}
