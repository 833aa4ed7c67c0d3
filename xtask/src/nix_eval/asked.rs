//! What is to be evaluated, and where the trees lie.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::run::{Failed, repo_root};

/// The releases that the modules are evaluated as, where none is named.
pub(super) const RELEASES: [&str; 3] = ["24.11", "25.11", "26.05"];

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
pub(super) struct Asked {
    pub(super) trees: BTreeMap<&'static str, PathBuf>,
    pub(super) releases: Vec<String>,
    pub(super) examples: Vec<String>,
    pub(super) targets: Vec<String>,
}

pub(super) fn parse(words: &[&str]) -> Result<Asked, Failed> {
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

pub(super) fn trees_folder() -> PathBuf {
    std::env::var_os("UNDERCROFT_TREES").map_or_else(|| repo_root().join("../trees"), PathBuf::from)
}

/// Fills in the trees that lie in a folder of trees, and names those that aren't there either.
pub(super) fn find_trees(asked: &mut Asked, folder: &Path) -> Vec<&'static str> {
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
