//! Running Nix over each configuration.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::Mutex,
    time::Instant,
};

use serde_json::Value;

use super::asked::Asked;
use crate::run::{Failed, repo_root};

/// Evaluations at a time. Each takes up to 1 GiB of memory.
const JOBS: usize = 2;

/// One configuration of one example, evaluated as one release.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) example: String,
    pub(super) release: String,
    pub(super) target: String,
}

/// What came of it.
pub(super) struct Evaluated {
    pub(super) job: Job,
    pub(super) seconds: f64,
    /// The derivation's path, or the end of what Nix said.
    pub(super) outcome: Result<String, String>,
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

/// `nix-instantiate` over a file of `nix/tests`, with the trees. It writes no derivation: the store
/// isn't touched.
fn with_trees(asked: &Asked, file: &str, release: &str) -> Command {
    let mut command = Command::new("nix-instantiate");
    command
        .args(["--eval", "--strict", "--json", "--readonly-mode"])
        .arg(repo_root().join("nix/tests").join(file))
        .args(["--argstr", "release", release])
        .stdin(Stdio::null());
    for (name, path) in &asked.trees {
        command.args(["--arg", name]).arg(path);
    }
    command
}

/// The same over an attribute of `nix/tests/eval.nix`, for an example.
pub(super) fn nix(asked: &Asked, example: &str, release: &str, attribute: &str) -> Command {
    let mut command = with_trees(asked, "eval.nix", release);
    command
        .args(["-A", attribute, "--arg", "src"])
        .arg(repo_root().join("examples").join(example));
    command
}

/// The tests of the modules, `nix/tests/modules`: how many there are, and what each that fails
/// says.
pub(super) fn module_tests(asked: &Asked, release: &str) -> Result<(u64, Vec<String>), Failed> {
    let what = format!("the modules' tests as {release}");
    let result = json_of(with_trees(asked, "modules", release), &what)?;
    let failed = result.get("failed").and_then(Value::as_array);
    let failed = failed.into_iter().flatten();
    let failed = failed
        .map(|test| {
            let part = |key| test.get(key).unwrap_or(&Value::Null);
            format!(
                "as {release}: {}\n  expected: {}\n  actual:   {}",
                part("name"),
                part("expected"),
                part("actual")
            )
        })
        .collect();
    let count = result.get("count").and_then(Value::as_u64);
    Ok((count.unwrap_or(0), failed))
}

/// The units of the boot and the health as NixOS writes them, `nix/tests/units.nix`.
#[cfg(test)]
pub(super) fn units(asked: &Asked, release: &str) -> Result<Value, Failed> {
    json_of(with_trees(asked, "units.nix", release), "the units")
}

/// The controller's unit as NixOS writes it, `nix/tests/controller.nix`.
#[cfg(test)]
pub(super) fn controller_unit(asked: &Asked, release: &str) -> Result<Value, Failed> {
    json_of(
        with_trees(asked, "controller.nix", release),
        "the controller's unit",
    )
}

pub(super) fn json_of(mut command: Command, what: &str) -> Result<Value, Failed> {
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

pub(super) fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
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

pub(super) fn evaluate_all(asked: &Asked) -> Result<Vec<Evaluated>, Failed> {
    let mut jobs = Vec::new();
    let mut known = BTreeSet::new();
    for example in examples(asked)? {
        let listed = json_of(nix(asked, &example, "25.11", "names"), &example)?;
        for target in listed.as_object().into_iter().flatten() {
            let (target, needs) = target;
            let needs = strings(Some(needs));
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
pub(super) fn complaint(stderr: &str) -> String {
    let from = stderr.find("error:").unwrap_or(0);
    stderr.get(from..).unwrap_or(stderr).trim_end().to_owned()
}
