//! `cargo xtask nix-eval`: evaluates every configuration of every example to its derivation, with
//! the real module systems of NixOS, Home Manager, nix-darwin, NixOS-WSL, disko and sops-nix.
//!
//! The trees are folders on this machine: nothing is fetched and nothing is built. `nix/tests/eval.nix`
//! says what is done where they are of different ages.

mod evaluate;
mod report;
#[cfg(test)]
mod units;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::run::{Failed, repo_root};
use evaluate::{evaluate_all, module_tests};
use report::report;

/// The releases that the modules are evaluated as, where none is named.
const RELEASES: [&str; 3] = ["24.11", "25.11", "26.05"];

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
    let mut failed = evaluated.iter().filter(|e| e.outcome.is_err()).count();
    if asked.targets.is_empty() && asked.examples.is_empty() {
        for release in &asked.releases {
            let (count, failures) = module_tests(&asked, release)?;
            println!(
                "tests of the modules as {release}: {count}, {} failed",
                failures.len()
            );
            failures.iter().for_each(|failure| println!("{failure}"));
            failed += failures.len();
        }
    }
    if failed > 0 {
        return Err(Failed::new("nix-eval", format!("{failed} failed")));
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

#[cfg(test)]
mod tests {
    use super::{evaluate::complaint, *};
    use crate::run::which;

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
        let (count, failures) = module_tests(&asked, "25.11").unwrap();
        assert!(count > 0);
        assert!(failures.is_empty(), "{}", failures.join("\n\n"));

        // What the rack's machine of the test rack_generations runs.
        let units = evaluate::units(&asked, "25.11").unwrap();
        let units = format!("{units:#}\n");
        let path = repo_root().join("nix/tests/golden/units.json");
        if std::env::var_os("UNDERCROFT_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &units).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            units,
            "if the change is meant: UNDERCROFT_WRITE_GOLDEN=1 cargo test -p xtask nix_eval"
        );
    }
}
