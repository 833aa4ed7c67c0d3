//! Whether the simulation notices when a rule of `steps` is broken: each of some rules is taken away in a copy of the
//! sources, and seeds must break a rule of the checkers' for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::run::{Failed, repo_root};

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
cargo xtask sabotage

Takes one rule of crates/steps away at a time, in a copy of the sources under .cache/sabotage, and runs
seeds of the simulation on it. Each must break the rule that is named; a sabotage that nobody notices is
a hole in the simulation. Takes some minutes: most of it is building the same crates again.
";

/// A rule that is taken away.
struct Sabotage {
    what: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    /// The rule of the checkers' that must be broken by it.
    noticed_as: &'static str,
}

const SABOTAGES: [Sabotage; 11] = [
    Sabotage {
        what: "an approval is good for ever",
        file: "crates/steps/src/approval.rs",
        from: "if approval.is_good_at(wall_ms) {",
        to: "if approval.is_good_at(wall_ms) || wall_ms > 0 {",
        noticed_as: "ContactApproval",
    },
    Sabotage {
        what: "tables that are marked as made are made again",
        file: "crates/steps/src/script/disko.rs",
        from: "(_, None) if made => Laid::Made,",
        to: "(_, None) if made => Laid::Not,",
        noticed_as: "SecondWipe",
    },
    Sabotage {
        what: "tables are named without being marked first",
        file: "crates/steps/src/script/disko.rs",
        from: "                name(&marked, machine)?;\n",
        to: "                let _ = marked;\n",
        noticed_as: "RefusalIsTrue",
    },
    Sabotage {
        what: "what is laid out counts as mounted",
        file: "crates/steps/src/script/disko.rs",
        from: "let mounted = lines.next() == Some(\"mounted\");",
        to: "let mounted = lines.next().is_some();",
        noticed_as: "Liveness",
    },
    Sabotage {
        what: "a machine is up whatever it has booted",
        file: "crates/steps/src/returns.rs",
        from: "Ok(seen) if seen.booted_system == toplevel => {",
        to: "Ok(seen) if !toplevel.is_empty() => {",
        noticed_as: "UpIsTrue",
    },
    Sabotage {
        what: "an installer under another key is somebody else for good",
        file: "crates/steps/src/ask.rs",
        from: "NoAnswer::OtherKey | NoAnswer::Unreachable => FailureKind::PreconditionLost,",
        to: "NoAnswer::OtherKey | NoAnswer::Unreachable => FailureKind::Refused,",
        noticed_as: "RefusalIsTrue",
    },
    Sabotage {
        what: "a store that a power cut has damaged is copied to as it is",
        file: "crates/steps/src/script/copy.rs",
        from: "Answer::CopyFailed(failed) if is_damaged(failed) => {",
        to: "Answer::CopyFailed(failed) if is_damaged(failed) && failed.timed_out => {",
        noticed_as: "Liveness",
    },
    Sabotage {
        what: "members of etcd that learn, or have not started, keep no server out",
        file: "crates/steps/src/cluster/etcd.rs",
        from: "let others = self.members.iter().filter(|m| !m.is_of(node, address));",
        to: "let others = self.members.iter().filter(|m| m.votes() && !m.is_of(node, address));",
        noticed_as: "EtcdQuorum",
    },
    Sabotage {
        what: "a Node of another boot is the machine's",
        file: "crates/steps/src/cluster/node.rs",
        from: "!boot_id.is_empty() && self.boot_id == boot_id",
        to: "!boot_id.is_empty() && !self.boot_id.is_empty()",
        noticed_as: "ReadyIsTrue",
    },
    Sabotage {
        what: "a workload is rolled out before its pods are available",
        file: "crates/steps/src/cluster/health.rs",
        from: "if self.updated < self.wanted || self.available < self.wanted {",
        to: "if self.updated < self.wanted {",
        noticed_as: "ReadyIsTrue",
    },
    Sabotage {
        what: "whoever has joined is the member that it was, etcd's list or not",
        file: "crates/steps/src/cluster/member.rs",
        from: "None if status.joined => return Err(Halt::Failed(removed())),",
        to: "None if status.joined => members.voters(),",
        noticed_as: "ReadyIsTrue",
    },
];

/// The tests that run seeds with faults on a few machines, and lose what a step stands on.
const TESTS: [&str; 5] = [
    "a_sound_world_breaks_no_rule",
    "whatever_a_step_loses_its_machine_comes_back_or_says_why_not",
    "whatever_is_lost_between_two_asks_of_the_clusters_steps_is_mended",
    "a_thousand_seeds_of_the_basement_break_no_rule",
    "a_thousand_seeds_of_kubeadm_break_no_rule",
];

/// Breaks one rule after the other.
pub(crate) fn run() -> Result<(), Failed> {
    let root = repo_root();
    let tree = root.join(".cache/sabotage/tree");
    copy_sources(&root, &tree)?;
    let (well, said) = seeds(&tree)?;
    if !well {
        return Err(Failed::new(
            "sabotage",
            format!("the seeds fail as the sources are:\n{said}"),
        ));
    }
    let mut unnoticed = Vec::new();
    for sabotage in &SABOTAGES {
        let file = tree.join(sabotage.file);
        let whole = fs::read_to_string(&file).map_err(|e| failed(&file, &e))?;
        write(&file, &whole.replacen(sabotage.from, sabotage.to, 1))?;
        let ran = seeds(&tree);
        write(&file, &whole)?;
        let (well, said) = ran?;
        let noticed = !well && said.contains(sabotage.noticed_as);
        let verdict = if noticed {
            sabotage.noticed_as
        } else {
            unnoticed.push(sabotage.what);
            "NOT NOTICED"
        };
        println!("{:<15} {}", verdict, sabotage.what);
        if !noticed && !well {
            println!("{said}");
        }
    }
    match unnoticed.as_slice() {
        [] => Ok(()),
        some => Err(Failed::new(
            "sabotage",
            format!("nobody notices that {}", some.join(", that ")),
        )),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failed {
    Failed::new("sabotage", format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    fs::write(path, text).map_err(|e| failed(path, &e))
}

/// The files that git knows, as they are now; what hasn't changed keeps its time, so that it isn't built again.
fn copy_sources(root: &Path, tree: &Path) -> Result<(), Failed> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .map_err(|e| failed(root, &e))?;
    for name in listed.stdout.split(|byte| *byte == 0) {
        let name = PathBuf::from(String::from_utf8_lossy(name).into_owned());
        let from = root.join(&name);
        // A link, or a file that was taken away.
        if name.as_os_str().is_empty() || !from.is_file() {
            continue;
        }
        let to = tree.join(&name);
        let bytes = fs::read(&from).map_err(|e| failed(&from, &e))?;
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
        }
        fs::write(&to, bytes).map_err(|e| failed(&to, &e))?;
    }
    Ok(())
}

/// Runs the seeds of a tree: whether they break no rule, and what was said.
fn seeds(tree: &Path) -> Result<(bool, String), Failed> {
    let output = Command::new("cargo")
        .args(["test", "--offline", "--package", "undercroft-sim"])
        .args(["--lib", "--test", "seeds", "--no-fail-fast", "--"])
        .args(TESTS)
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", tree.with_file_name("target"))
        .output()
        .map_err(|e| failed(tree, &e))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stderr);
    if said.contains("could not compile") {
        return Err(Failed::new(
            "sabotage",
            format!("it doesn't build:\n{said}"),
        ));
    }
    Ok((output.status.success(), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sabotage_has_its_place() {
        for sabotage in &SABOTAGES {
            let text = fs::read_to_string(repo_root().join(sabotage.file)).unwrap();
            let found = text.matches(sabotage.from).count();
            assert_eq!(found, 1, "{}: {}", sabotage.file, sabotage.from);
        }
    }
}
