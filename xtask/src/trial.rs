//! `cargo xtask try`: the main job, on a virtual rack; lending, on this machine.

mod lend;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    packages,
    run::{Failed, Step, cache_dir, repo_root},
};

/// The machines of examples/rack that the trial installs.
const MACHINES: &str = "rack-01,rack-02";

pub(crate) fn run(rest: &[&str]) -> Result<(), Failed> {
    let keep = match rest {
        [] => std::io::stdout().is_terminal(),
        ["--keep"] => true,
        ["--down"] => return down(&binary()?, &folder()),
        ["--lend"] => return lend::run(),
        _ => return Err(Failed::new("try", "takes --keep, --down or --lend")),
    };
    let tools = packages::ensure(packages::Need::Try)?;
    let begun = Instant::now();
    let undercroft = binary()?;
    let folder = prepare(&undercroft)?;
    let command = |name: &str, words: &[&str]| {
        Step::new(name, &undercroft)
            .args(["-C"])
            .args([&folder])
            .args(words)
            .path_first(&tools)
    };
    let tried = command("check the inventory", &["check"])
        .run()
        .and_then(|()| command("start the virtual rack", &["rack", "up"]).run())
        .and_then(|()| {
            command(
                "bring its machines up",
                &["up", "--yes", "--only", MACHINES],
            )
            .interactive()
            .run()
        })
        .and_then(|()| command("look at the fleet", &["status"]).run());
    if tried.is_err() || !keep {
        down(&undercroft, &folder)?;
    }
    tried?;
    eprintln!("\nDone in {:.0} s.", begun.elapsed().as_secs_f64());
    let shown = |words: &str| {
        format!(
            "  {} -C {} {words}",
            relative(&undercroft),
            relative(&folder)
        )
    };
    println!("\nWhat to try next:");
    if keep {
        println!("{}", shown("ssh rack-01"));
        println!(
            "{}",
            shown("plan                 # nothing to do: the fleet is converged")
        );
        println!(
            "{}",
            shown("events               # what happened, record by record")
        );
        println!(
            "{}",
            shown("doctor rack-01        # its boot, packet by packet")
        );
        println!(
            "{}",
            shown("up --yes             # the third machine, an NVMe one")
        );
        println!("  cargo xtask try --down      # end the rack; nothing of it stays behind");
    } else {
        println!("  cargo xtask try --keep      # the same, and the machines stay up to look at");
    }
    println!(
        "  {} rehearse examples/basement --seed 7   # 28 machines, in simulation, with faults",
        relative(&undercroft)
    );
    println!("  docs/first-rack.md          # from here to your own machines");
    Ok(())
}

fn folder() -> PathBuf {
    cache_dir().join("try")
}

/// Builds the command and returns its path.
fn binary() -> Result<PathBuf, Failed> {
    Step::new("build undercroft", "cargo")
        .args(["build", "--quiet", "--package", "undercroft"])
        .run()?;
    Ok(target_dir().join("debug/undercroft"))
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repo_root().join("target"), PathBuf::from)
}

fn down(undercroft: &Path, folder: &Path) -> Result<(), Failed> {
    if !folder.join("undercroft.toml").exists() {
        return Ok(());
    }
    Step::new("end the virtual rack", undercroft)
        .args(["-C"])
        .args([folder])
        .args(["rack", "down"])
        .run()
}

/// A fresh repository from examples/rack; what an earlier trial left is ended and removed.
fn prepare(undercroft: &Path) -> Result<PathBuf, Failed> {
    let folder = folder();
    let failed =
        |error: std::io::Error| Failed::new("try", format!("{}: {error}", folder.display()));
    if folder.exists() {
        down(undercroft, &folder)?;
        std::fs::remove_dir_all(&folder).map_err(failed)?;
    }
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let example = repo_root().join("examples/rack/undercroft.toml");
    std::fs::copy(example, folder.join("undercroft.toml")).map_err(failed)?;
    Ok(folder)
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repo_root())
        .unwrap_or(path)
        .display()
        .to_string()
}
