//! `cargo xtask nix-eval`: evaluates every configuration of every example to its derivation, with
//! the real module systems of NixOS, Home Manager, nix-darwin, NixOS-WSL, disko and sops-nix.
//!
//! The trees are folders on this machine: nothing is fetched and nothing is built. `nix/tests/eval.nix`
//! says what is done where they are of different ages.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::Instant,
};

use crate::run::{Failed, repo_root, which};

/// The releases that the modules are evaluated as, where none is named.
const RELEASES: [&str; 3] = ["24.11", "25.11", "26.05"];
/// Evaluations at a time. Each takes up to 1 GiB of memory.
const JOBS: usize = 2;

/// The trees: the option that names each, the argument of `nix/tests/eval.nix`, and where it lies
/// in a folder of all trees.
const TREES: [(&str, &str, &[&str]); 7] = [
    ("--nixpkgs", "nixpkgs", &["nixpkgs", "nixcon-infra/nixpkgs"]),
    ("--lib", "nixpkgsLib", &["nixpkgs-lib/lib"]),
    ("--home-manager", "homeManager", &["home-manager"]),
    ("--disko", "disko", &["disko"]),
    ("--darwin", "nixDarwin", &["nix-darwin"]),
    ("--sops-nix", "sopsNix", &["sops-nix"]),
    ("--wsl", "nixosWsl", &["nixos-wsl"]),
];

pub(crate) const USAGE: &str = "\
cargo xtask nix-eval [--nixpkgs PATH --disko PATH --sops-nix PATH]
                     [--lib PATH] [--home-manager PATH] [--darwin PATH] [--wsl PATH]
                     [--release VERSION] [--example NAME] [TARGET…]

Without paths the trees are looked for in the folder that UNDERCROFT_TREES names, else in ../trees.
A TARGET is a node's or PC's name, or the full name of an output.
";

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    trees: BTreeMap<&'static str, PathBuf>,
    releases: Vec<String>,
    examples: Vec<String>,
    targets: Vec<String>,
}

/// One configuration of one example, evaluated as one release.
#[derive(Debug, Clone)]
struct Job {
    example: String,
    release: String,
    target: String,
}

/// What came of it.
struct Evaluated {
    job: Job,
    seconds: f64,
    /// The derivation's path, or the end of what Nix said.
    outcome: Result<String, String>,
}

/// Evaluates what the words ask for, and fails where one evaluation does.
pub(crate) fn run(words: &[&str]) -> Result<(), Failed> {
    let mut asked = parse(words)?;
    let missing = find_trees(&mut asked, &trees_folder());
    if let Some(tree) = ["nixpkgs", "disko", "sopsNix"]
        .into_iter()
        .find(|tree| !asked.trees.contains_key(tree))
    {
        return Err(Failed::new(
            "nix-eval",
            format!(
                "no tree for {tree}; name the missing ones ({})\n\n{USAGE}",
                missing.join(", ")
            ),
        ));
    }
    let evaluated = evaluate_all(&asked)?;
    print!("{}", report(&asked, &evaluated)?);
    let failed = evaluated.iter().filter(|e| e.outcome.is_err()).count();
    if failed > 0 {
        return Err(Failed::new(
            "nix-eval",
            format!("{failed} of {} failed", evaluated.len()),
        ));
    }
    Ok(())
}

fn parse(words: &[&str]) -> Result<Asked, Failed> {
    let mut asked = Asked::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .map(|value| (*value).to_owned())
                .ok_or_else(|| Failed::new("nix-eval", format!("{word} needs a value\n\n{USAGE}")))
        };
        if let Some((_, name, _)) = TREES.iter().find(|(option, _, _)| option == word) {
            let path = std::path::absolute(value()?)
                .map_err(|e| Failed::new("nix-eval", e.to_string()))?;
            asked.trees.insert(name, path);
        } else if *word == "--release" {
            asked.releases.push(value()?);
        } else if *word == "--example" {
            asked.examples.push(value()?);
        } else if word.starts_with('-') {
            return Err(Failed::new(
                "nix-eval",
                format!("no option {word}\n\n{USAGE}"),
            ));
        } else {
            asked.targets.push((*word).to_owned());
        }
    }
    if asked.releases.is_empty() {
        asked.releases = RELEASES.map(str::to_owned).into();
    }
    Ok(asked)
}

fn trees_folder() -> PathBuf {
    std::env::var_os("UNDERCROFT_TREES").map_or_else(|| repo_root().join("../trees"), PathBuf::from)
}

/// Fills in the trees that lie in a folder of trees, and names those that aren't there either.
fn find_trees(asked: &mut Asked, folder: &Path) -> Vec<&'static str> {
    let mut missing = Vec::new();
    for (option, name, places) in TREES {
        if asked.trees.contains_key(name) {
            continue;
        }
        let found = places
            .iter()
            .map(|place| folder.join(place))
            .find(|path| path.is_dir());
        match found.and_then(|path| path.canonicalize().ok()) {
            Some(path) => drop(asked.trees.insert(name, path)),
            None => missing.push(option),
        }
    }
    missing
}

fn examples(asked: &Asked) -> Result<Vec<String>, Failed> {
    if !asked.examples.is_empty() {
        return Ok(asked.examples.clone());
    }
    let folder = repo_root().join("examples");
    let entries = std::fs::read_dir(&folder)
        .map_err(|e| Failed::new("nix-eval", format!("{}: {e}", folder.display())))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("undercroft.toml").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// `nix-instantiate` over an attribute of `nix/tests/eval.nix`. It writes no derivation: the store
/// isn't touched.
fn nix(asked: &Asked, example: &str, release: &str, attribute: &str) -> Command {
    let root = repo_root();
    let mut command = Command::new("nix-instantiate");
    command
        .args(["--eval", "--strict", "--json", "--readonly-mode"])
        .arg(root.join("nix/tests/eval.nix"))
        .args([
            "--argstr", "release", release, "-A", attribute, "--arg", "src",
        ])
        .arg(root.join("examples").join(example))
        .stdin(Stdio::null());
    for (name, path) in &asked.trees {
        command.args(["--arg", name]).arg(path);
    }
    command
}

fn json_of(mut command: Command, what: &str) -> Result<serde_json::Value, Failed> {
    let output = command
        .output()
        .map_err(|e| Failed::new(what, format!("can't start nix-instantiate: {e}")))?;
    if !output.status.success() {
        return Err(Failed::new(
            what,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| Failed::new(what, e.to_string()))
}

fn strings(value: &serde_json::Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Whether a target can be evaluated with the trees that are there.
fn has_trees(asked: &Asked, target: &str, needs: &[&str]) -> bool {
    let lacking = needs.iter().find(|tree| !asked.trees.contains_key(*tree));
    if let Some(tree) = lacking {
        println!("SKIPPED: {target}: no tree for {tree}");
    }
    lacking.is_none()
}

fn evaluate_all(asked: &Asked) -> Result<Vec<Evaluated>, Failed> {
    let mut jobs = Vec::new();
    let mut known = BTreeSet::new();
    for example in examples(asked)? {
        let listed = json_of(nix(asked, &example, "25.11", "names"), &example)?;
        for target in listed.as_object().into_iter().flatten() {
            let (target, needs) = target;
            let needs = strings(needs);
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            let wanted = asked.targets.is_empty()
                || asked.targets.iter().any(|t| {
                    t == target || target.split_once('.').is_some_and(|(_, name)| name == t)
                });
            if !wanted || !has_trees(asked, target, &needs) {
                continue;
            }
            known.insert(target.clone());
            for release in &asked.releases {
                jobs.push(Job {
                    example: example.clone(),
                    release: release.clone(),
                    target: target.clone(),
                });
            }
        }
    }
    if known.is_empty() {
        return Err(Failed::new(
            "nix-eval",
            "no configuration has one of these names",
        ));
    }
    let queue = Mutex::new(jobs.into_iter());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                loop {
                    let job = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some(job) = job else { break };
                    let evaluated = evaluate(asked, job);
                    if let Ok(mut done) = done.lock() {
                        done.push(evaluated);
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by(|a, b| order(&a.job).cmp(&order(&b.job)));
    Ok(done)
}

fn order(job: &Job) -> (&str, &str, &str) {
    (&job.example, &job.target, &job.release)
}

fn evaluate(asked: &Asked, job: Job) -> Evaluated {
    let begun = Instant::now();
    let attribute = format!("targets.{:?}", job.target);
    let output = nix(asked, &job.example, &job.release, &attribute).output();
    let outcome = match output {
        Err(error) => Err(format!("can't start nix-instantiate: {error}")),
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout)
            .trim()
            .trim_matches('"')
            .to_owned()),
        Ok(output) => Err(complaint(&String::from_utf8_lossy(&output.stderr))),
    };
    Evaluated {
        job,
        seconds: begun.elapsed().as_secs_f64(),
        outcome,
    }
}

/// The error in what Nix wrote, without the warnings before it.
fn complaint(stderr: &str) -> String {
    let from = stderr.find("error:").unwrap_or(0);
    stderr.get(from..).unwrap_or(stderr).trim_end().to_owned()
}

/// The table, and what stood in for what the trees lack.
fn report(asked: &Asked, evaluated: &[Evaluated]) -> Result<String, Failed> {
    let mut text = String::from(
        "| example | target | release | seconds | derivation |\n| --- | --- | --- | ---: | --- |\n",
    );
    for one in evaluated {
        let shown = match &one.outcome {
            Ok(path) => path.trim_start_matches("/nix/store/"),
            Err(_) => "FAILED",
        };
        let Job {
            example,
            release,
            target,
        } = &one.job;
        let _ = writeln!(
            text,
            "| {example} | {target} | {release} | {:.1} | {shown} |",
            one.seconds
        );
    }
    for one in evaluated {
        if let Err(error) = &one.outcome {
            let Job {
                example,
                release,
                target,
            } = &one.job;
            let _ = writeln!(text, "\n{example}, {target}, as {release}:\n{error}");
        }
    }
    let _ = writeln!(text, "\ntrees:");
    for (name, path) in &asked.trees {
        let _ = writeln!(text, "  {name}: {}", version(path));
    }
    let mut options: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut packages = BTreeSet::new();
    let example = evaluated
        .first()
        .map_or("basement", |one| one.job.example.as_str());
    for release in &asked.releases {
        let stubs = json_of(nix(asked, example, release, "stubs"), "list the stubs")?;
        for option in strings(&stubs["options"]) {
            options.entry(option).or_default().insert(release);
        }
        packages.extend(strings(&stubs["packages"]));
    }
    let _ = writeln!(
        text,
        "\noptions that stand in for newer ones ({}):",
        options.len()
    );
    for (option, releases) in &options {
        let only = if releases.len() == asked.releases.len() {
            String::new()
        } else {
            format!(
                " (as {})",
                releases.iter().copied().collect::<Vec<_>>().join(", ")
            )
        };
        let _ = writeln!(text, "  {option}{only}");
    }
    let _ = writeln!(
        text,
        "\npackages that stand in for newer ones ({}):",
        packages.len()
    );
    for package in &packages {
        let _ = writeln!(text, "  {package}");
    }
    let failed = evaluated.iter().filter(|e| e.outcome.is_err()).count();
    let _ = writeln!(
        text,
        "\n{} evaluated, {failed} failed",
        evaluated.len() - failed
    );
    Ok(text)
}

/// A tree's version, as far as it says one.
fn version(path: &Path) -> String {
    let read = |file: &Path| std::fs::read_to_string(file).ok();
    let named = [".version", "lib/.version", "VERSION"]
        .iter()
        .find_map(|file| read(&path.join(file)));
    // A note of the commit beside the tree, as `NAME.rev`.
    let commit = path
        .ancestors()
        .take(2)
        .find_map(|folder| read(&folder.with_extension("rev")));
    let known: Vec<String> = [named, commit]
        .into_iter()
        .flatten()
        .map(|text| text.trim().to_owned())
        .collect();
    if known.is_empty() {
        "of no known version".to_owned()
    } else {
        known.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_what_is_asked_for() {
        let asked = parse(&[
            "--release",
            "25.11",
            "--example",
            "rack",
            "--disko",
            "/x",
            "rack-01",
        ])
        .unwrap();
        assert_eq!(asked.releases, ["25.11"]);
        assert_eq!(asked.examples, ["rack"]);
        assert_eq!(asked.targets, ["rack-01"]);
        assert_eq!(asked.trees["disko"], Path::new("/x"));
        assert_eq!(parse(&[]).unwrap().releases, RELEASES);
        assert!(parse(&["--release"]).is_err());
        assert!(parse(&["--relase", "1"]).is_err());
    }

    #[test]
    fn a_complaint_begins_at_the_error() {
        assert_eq!(
            complaint("trace: warning\nerror: no\n  more\n"),
            "error: no\n  more"
        );
        assert_eq!(complaint("killed"), "killed");
    }

    /// Every configuration of every example, as one release; `cargo xtask nix-eval` does the others.
    #[test]
    fn every_configuration_evaluates_where_the_trees_are() {
        let mut asked = parse(&["--release", "25.11"]).unwrap();
        let missing = find_trees(&mut asked, &trees_folder());
        if !missing.is_empty() {
            println!(
                "SKIPPED: no trees of {} in {} (UNDERCROFT_TREES names another folder)",
                missing.join(", "),
                trees_folder().display()
            );
            return;
        }
        if which("nix-instantiate").is_none() {
            println!("SKIPPED: nix-instantiate isn't here (Debian's nix-bin has it)");
            return;
        }
        let evaluated = evaluate_all(&asked).unwrap();
        assert!(
            evaluated.len() > 40,
            "only {} configurations",
            evaluated.len()
        );
        let failed: Vec<String> = evaluated
            .iter()
            .filter_map(|one| {
                let error = one.outcome.as_ref().err()?;
                Some(format!(
                    "{} of {}: {error}",
                    one.job.target, one.job.example
                ))
            })
            .collect();
        assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    }
}
