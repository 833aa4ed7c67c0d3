//! `cargo xtask mutants`: whether the tests of a crate notice when its code is wrong.
//!
//! cargo-mutants changes one place of a crate after the other and runs the crate's own tests each time.
//! Of the changes that build, a floor of them must be caught. All of a crate's changes take hours, so
//! that a sample can be asked for: every n-th of them, the first by a seed, so that the sample is spread
//! over the whole crate and the same each time.

use std::{fs, path::Path};

use crate::run::{Failed, Step, cache_dir};

/// The version that is installed where it is missing. Figures of other versions can't be compared: each
/// makes other changes.
const VERSION: &str = "27.0.0";
/// The crates whose tests are held to the floor.
const CRATES: [&str; 5] = ["model", "planner", "engine", "sops", "netboot"];
/// How many of 100 changes that build must be caught.
const FLOOR_PERCENT: usize = 85;
/// The longest that the tests of one change may take, in seconds: several times what the slowest of the
/// crates needs on two busy cores. One that runs into it counts as caught.
const TEST_TIMEOUT_S: &str = "300";

pub(crate) const USAGE: &str = "\
cargo xtask mutants [CRATE ...] [--sample N [--seed S]] [--in-diff FILE]

Changes model, planner, engine, sops and netboot (or the crates that are named) in one place after the
other with cargo-mutants, and runs the crate's own tests each time. Fails where less than 85 % of the
changes that build are caught.

--sample N      some N changes of each crate, spread over it; without it all of them, for hours
--seed S        which ones (0)
--in-diff FILE  only changes in lines that this diff touches
";

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    crates: Vec<String>,
    sample: Option<usize>,
    seed: usize,
    in_diff: Option<String>,
}

pub(crate) fn run(words: &[&str]) -> Result<(), Failed> {
    let asked = asked(words)?;
    let tool = ensure()?;
    let mut tallies = Vec::new();
    for name in &asked.crates {
        tallies.push((name.clone(), one(&tool, name, &asked)?));
    }
    println!(
        "\n{:10} {:>7} {:>7} {:>9} {:>7} {:>9}  caught",
        "crate", "changes", "caught", "timed out", "missed", "unviable"
    );
    for (name, tally) in &tallies {
        println!("{name:10} {tally}");
    }
    let below: Vec<&str> = tallies
        .iter()
        .filter(|(_, tally)| !tally.holds())
        .map(|(name, _)| name.as_str())
        .collect();
    if below.is_empty() {
        return Ok(());
    }
    Err(Failed::new(
        "mutants",
        format!(
            "below the floor of {FLOOR_PERCENT} %: {}; what was missed is in .cache/mutants/CRATE/mutants.out/missed.txt",
            below.join(", ")
        ),
    ))
}

fn asked(words: &[&str]) -> Result<Asked, Failed> {
    let usage = |why: &str| Failed::new("mutants", format!("{why}\n\n{USAGE}"));
    let mut asked = Asked::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| usage(&format!("{word} needs a value")))
        };
        let number = |text: &str| {
            text.parse()
                .map_err(|_| usage(&format!("{text} is no number")))
        };
        match *word {
            "--sample" => {
                let sample = number(value()?)?;
                if sample == 0 {
                    return Err(usage("a sample of none says nothing"));
                }
                asked.sample = Some(sample);
            }
            "--seed" => asked.seed = number(value()?)?,
            "--in-diff" => asked.in_diff = Some((*value()?).to_owned()),
            name if CRATES.contains(&name) => asked.crates.push(name.to_owned()),
            other => {
                return Err(usage(&format!(
                    "{other} is neither a crate of these nor an option"
                )));
            }
        }
    }
    if asked.crates.is_empty() {
        asked.crates = CRATES.map(str::to_owned).to_vec();
    }
    Ok(asked)
}

/// The program, installed where it is missing.
fn ensure() -> Result<String, Failed> {
    let root = cache_dir().join("tools");
    let program = root.join("bin/cargo-mutants");
    let shown = program.to_string_lossy().into_owned();
    let there = program.is_file()
        && Step::new("cargo-mutants", &program)
            .args(["mutants", "--version"])
            .output()?
            .contains(VERSION);
    if !there {
        Step::new("install cargo-mutants", "cargo")
            .args(["install", "--locked", "--root"])
            .args([&root])
            .args([format!("cargo-mutants@{VERSION}")])
            .run()?;
    }
    Ok(shown)
}

fn one(tool: &str, name: &str, asked: &Asked) -> Result<Tally, Failed> {
    let package = format!("undercroft-{name}");
    let of_it = |step: Step| {
        let step = step.args(["mutants", "--package", &package]);
        match &asked.in_diff {
            Some(file) => step.args(["--in-diff", file]),
            None => step,
        }
    };
    let listed = of_it(Step::new("list the changes", tool))
        .args(["--list"])
        .output()?;
    let all = listed.lines().filter(|line| !line.is_empty()).count();
    let out = cache_dir().join("mutants").join(name);
    fs::create_dir_all(&out)
        .map_err(|e| Failed::new("mutants", format!("can't make {}: {e}", out.display())))?;
    // What the crates stand on is built once, and not anew for each of them.
    let target = cache_dir().join("mutants/target");
    let mut step = of_it(Step::new(&format!("{name}: {all} changes"), tool))
        .env("CARGO_TARGET_DIR", target)
        .args(quick(name))
        // What git ignores is no part of the crates, and may be large.
        .args(["--gitignore", "true"])
        .args([
            "--jobs",
            "1",
            "--no-times",
            "--timeout",
            TEST_TIMEOUT_S,
            "--output",
        ])
        .args([&out]);
    if let Some(shard) = asked
        .sample
        .and_then(|sample| shard(all, sample, asked.seed))
    {
        step = step.args(["--sharding", "round-robin", "--shard", &shard]);
    }
    // It ends with an error where something was missed, too: what it has written says what.
    let ended = step.run();
    let tally = Tally::read(all, &out.join("mutants.out"));
    match (ended, tally.tried()) {
        (Err(failed), 0) if all > 0 => Err(failed),
        _ => Ok(tally),
    }
}

/// What has the changed crate built quickly. Most of the time goes into compiling it anew for each change:
/// its own optimisation and debug information cost more than they save. Only the model's tests read so
/// many inventories that they need some of it.
fn quick(name: &str) -> Vec<String> {
    let level = if name == "model" { 1 } else { 0 };
    let package = format!("profile.dev.package.undercroft-{name}.opt-level={level}");
    [
        package.as_str(),
        "profile.dev.debug=false",
        "profile.test.debug=false",
    ]
    .map(|setting| format!("--cargo-arg=--config={setting}"))
    .into()
}

/// Every n-th of the changes, so that about as many as asked for are left. `None`: all.
fn shard(all: usize, sample: usize, seed: usize) -> Option<String> {
    let shards = all / sample;
    (shards > 1).then(|| format!("{}/{shards}", seed % shards))
}

/// What became of the changes of one crate.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    all: usize,
    caught: usize,
    timed_out: usize,
    missed: usize,
    unviable: usize,
}

impl Tally {
    fn read(all: usize, folder: &Path) -> Self {
        let lines = |name: &str| {
            let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
            text.lines().filter(|line| !line.is_empty()).count()
        };
        Self {
            all,
            caught: lines("caught.txt"),
            timed_out: lines("timeout.txt"),
            missed: lines("missed.txt"),
            unviable: lines("unviable.txt"),
        }
    }

    fn tried(&self) -> usize {
        self.noticed() + self.missed + self.unviable
    }

    /// What never ends is noticed, too.
    fn noticed(&self) -> usize {
        self.caught + self.timed_out
    }

    fn viable(&self) -> usize {
        self.noticed() + self.missed
    }

    fn holds(&self) -> bool {
        self.noticed() * 100 >= self.viable() * FLOOR_PERCENT
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>7} {:>7} {:>9} {:>7} {:>9}",
            self.all, self.caught, self.timed_out, self.missed, self.unviable
        )?;
        match (self.noticed() * 1000).checked_div(self.viable()) {
            Some(permille) => write!(
                f,
                "  {}.{} % of {}",
                permille / 10,
                permille % 10,
                self.viable()
            ),
            None => write!(f, "  nothing was changed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_every_nth_change() {
        assert_eq!(shard(1000, 100, 0).as_deref(), Some("0/10"));
        assert_eq!(shard(1000, 100, 13).as_deref(), Some("3/10"));
        assert_eq!(shard(1099, 100, 3).as_deref(), Some("3/10"));
        assert_eq!(shard(150, 100, 3), None, "all of them");
        assert_eq!(shard(0, 100, 3), None);
    }

    #[test]
    fn the_floor_is_of_what_builds() {
        let tally = |caught, timed_out, missed| Tally {
            all: 500,
            caught,
            timed_out,
            missed,
            unviable: 40,
        };
        assert!(tally(85, 0, 15).holds() && tally(80, 5, 15).holds());
        assert!(!tally(84, 0, 16).holds());
        assert!(
            tally(0, 0, 0).holds(),
            "a diff may touch nothing of a crate"
        );
        let shown = tally(84, 1, 15).to_string();
        assert!(shown.ends_with("85.0 % of 100"), "{shown}");
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let read = asked(&["sops", "--sample", "100", "--seed", "7"]).unwrap();
        assert_eq!(
            (read.crates, read.sample, read.seed),
            (vec!["sops".to_owned()], Some(100), 7)
        );
        assert_eq!(asked(&[]).unwrap().crates, CRATES);
        for bad in [
            &["render"][..],
            &["--sample"],
            &["--sample", "0"],
            &["--seed", "x"],
        ] {
            assert!(asked(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_the_program_has_written_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("caught.txt"), "a\nb\n").unwrap();
        fs::write(folder.path().join("missed.txt"), "c\n").unwrap();
        let tally = Tally::read(9, folder.path());
        assert_eq!(
            (tally.all, tally.caught, tally.missed, tally.tried()),
            (9, 2, 1, 3)
        );
    }
}
