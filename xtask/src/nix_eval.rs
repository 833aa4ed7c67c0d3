//! `cargo xtask nix-eval`: evaluates every configuration of every example to its derivation, with
//! the real module systems of NixOS, Home Manager, nix-darwin, NixOS-WSL, disko and sops-nix.
//!
//! The trees are folders on this machine: nothing is fetched and nothing is built. `nix/tests/eval.nix`
//! says what is done where they are of different ages.

mod asked;
mod evaluate;
mod report;
#[cfg(test)]
mod units;

pub(crate) use asked::USAGE;

use crate::run::Failed;
use asked::{find_trees, parse, trees_folder};
use evaluate::{evaluate_all, module_tests};
use report::report;

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{asked::RELEASES, evaluate::complaint, *};
    use crate::run::{repo_root, which};

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
