//! What is shown of the evaluations: a table, and what stood in for what the trees lack.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use super::{
    asked::Asked,
    evaluate::{Evaluated, Job, json_of, nix, strings},
};
use crate::run::Failed;

/// The table, and what stood in for what the trees lack.
pub(super) fn report(asked: &Asked, evaluated: &[Evaluated]) -> Result<String, Failed> {
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
        for option in strings(stubs.get("options")) {
            options.entry(option).or_default().insert(release);
        }
        packages.extend(strings(stubs.get("packages")));
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
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    if known.is_empty() {
        "of no known version".to_owned()
    } else {
        known.join(", ")
    }
}
