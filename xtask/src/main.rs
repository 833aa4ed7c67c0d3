//! Everything a developer of Undercroft does: `cargo xtask try`, `test`, `ci`, `bench`, `tidy`.

mod bench;
mod dist;
mod mutants;
mod nix_eval;
mod packages;
mod peers;
mod run;
mod sabotage;
mod suite;
mod tidy;
mod timed;
mod trial;

use std::process::ExitCode;

use run::{Failed, Step, repo_root};

const USAGE: &str = "\
cargo xtask try [--keep | --down]  two virtual machines from powered off to running, on this machine
cargo xtask try --lend             a PC that is lent, from its owner's word to a ledger that verifies
cargo xtask test [FILTER]          all tests, the end-to-end ones on the virtual rack too
cargo xtask ci                     formatting, clippy with warnings as errors, then `test`
cargo xtask bench [NAME]           measure against real peers, and write docs/performance.md
cargo xtask dist                   the command as it is released: stripped, its debug information apart
cargo xtask tidy                   the house rules that a program can check
cargo xtask fuzz [SECONDS]         run each fuzz target for so long (60; needs nightly, cargo-fuzz)
cargo xtask mutants [CRATE ...]    whether tests notice changed code, with cargo-mutants (--help)
cargo xtask sabotage               whether the simulation notices that a rule of `steps` is taken away
cargo xtask peers [NAME ...]       build the programs of others that tests need (sops, kube-apiserver)
cargo xtask nix-eval [...]         every configuration of the examples, with real trees of nixpkgs
cargo xtask packages               install the system packages that the above need

`try`, `test` and `bench` install the Debian packages that are missing, and say which.
With UNDERCROFT_NO_INSTALL=1 they name them instead, and what needs them is skipped openly.
`test` and `ci` build the peers that are missing where Go is there, once, under .cache/peers;
with UNDERCROFT_BUILD_PEERS=none they don't.
";

fn main() -> ExitCode {
    let mut given = std::env::args_os().skip(1);
    if given.next().is_some_and(|task| task == timed::TASK) {
        eprintln!(
            "xtask: {}",
            timed::become_binary(&given.collect::<Vec<_>>())
        );
        return ExitCode::FAILURE;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["try", rest @ ..] => trial::run(rest),
        ["test", rest @ ..] => suite::run(rest),
        ["ci"] => ci(),
        ["bench", rest @ ..] => bench::run(rest),
        ["nix-eval", "--help" | "-h"] => {
            print!("{}", nix_eval::USAGE);
            Ok(())
        }
        ["nix-eval", rest @ ..] => nix_eval::run(rest),
        ["sabotage", "--help" | "-h"] => {
            print!("{}", sabotage::USAGE);
            Ok(())
        }
        ["sabotage"] => sabotage::run(),
        ["dist"] => dist::run(),
        ["tidy"] => tidy::run(&repo_root()),
        ["fuzz", rest @ ..] => fuzz(rest),
        ["mutants", "--help" | "-h"] => {
            print!("{}", mutants::USAGE);
            Ok(())
        }
        ["mutants", rest @ ..] => mutants::run(rest),
        ["peers", rest @ ..] => peers::run(rest),
        ["packages"] => packages::ensure(packages::Need::Test).map(drop),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        other => {
            eprintln!("xtask: no such task: {}\n\n{USAGE}", other.join(" "));
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("xtask: {failed}");
            ExitCode::FAILURE
        }
    }
}

/// What a change must pass.
fn ci() -> Result<(), Failed> {
    Step::new("formatting", "cargo")
        .args(["fmt", "--all", "--check"])
        .run()?;
    // Packages come first: the SQLite that is compiled in needs a C compiler.
    packages::ensure(packages::Need::Test)?;
    Step::new("clippy", "cargo")
        .args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])
        .run()?;
    suite::run(&[])
}

/// Runs each fuzz target for a while; a crash is a failure.
fn fuzz(rest: &[&str]) -> Result<(), Failed> {
    let seconds = match rest {
        [] => 60,
        [text] => text
            .parse::<u32>()
            .map_err(|_| Failed::new("fuzz", "SECONDS is a number"))?,
        _ => return Err(Failed::new("fuzz", "takes at most SECONDS")),
    };
    let listed = Step::new("list the fuzz targets", "cargo")
        .args(["fuzz", "list"])
        .output()?;
    for target in listed.lines() {
        Step::new(&format!("fuzz {target}"), "cargo")
            .args([
                "+nightly",
                "fuzz",
                "run",
                target,
                "--",
                "-rss_limit_mb=2048",
            ])
            .args([format!("-max_total_time={seconds}")])
            .run()?;
    }
    Ok(())
}
