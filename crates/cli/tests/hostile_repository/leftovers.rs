//! Commands that are killed, and disks that are full: what is there is whole, what was left behind is
//! known and goes, and git never sees any of it.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use undercroft_folder::confined::is_leftover_name;

use crate::{Victim, has_git};

/// How often a command is killed, at moments spread over the time that it takes.
const KILLS: u32 = 40;

/// Names of temporary files anywhere in a repository.
fn leftovers(victim: &Victim) -> Vec<String> {
    let files = victim.picture(&victim.dir()).into_keys();
    files
        .filter(|path| path.file_name().is_some_and(is_leftover_name))
        .map(|path| path.display().to_string())
        .collect()
}

/// Private keys are never where git would take them.
fn nothing_private_is_staged(victim: &Victim) {
    victim.git(&["add", "-A"]);
    let staged = victim.git(&["ls-files"]);
    for file in staged.lines() {
        assert!(!file.contains(".undercroft/"), "{staged}");
        let name = Path::new(file).file_name().unwrap_or(OsStr::new(""));
        assert!(!is_leftover_name(name), "{staged}");
        let text = fs::read_to_string(victim.dir().join(file)).unwrap();
        assert!(!text.contains("AGE-SECRET-KEY-"), "{file}");
    }
    victim.git(&["rm", "-q", "-r", "-f", "--cached", "."]);
}

/// How long a command takes from its start, at most.
fn takes(words: &[&str]) -> Duration {
    let victim = Victim::new();
    let begun = Instant::now();
    let ran = victim.run(words);
    assert_eq!(ran.code, 0, "{}", ran.text());
    begun.elapsed()
}

#[test]
fn a_command_that_is_killed_at_any_moment_leaves_whole_files_and_can_be_given_again() {
    if !has_git() {
        return;
    }
    for words in [
        ["secrets", "init", "--yes"].as_slice(),
        &["render"],
        &["init", "new"],
    ] {
        let whole = takes(words);
        let mut victim = Victim::new();
        victim.git(&["init", "-q"]);
        for kill in 0..KILLS {
            // Some kills find all of the work before them, others some of it done.
            if kill % 8 == 0 {
                victim = Victim::new();
                victim.git(&["init", "-q"]);
            }
            let mut child = victim.command(words).spawn().unwrap();
            std::thread::sleep(whole * kill / KILLS);
            child.kill().unwrap();
            let status = child.wait().unwrap();
            assert!(status.success() || status.signal() == Some(9) || words[0] == "init");
            nothing_private_is_staged(&victim);
            for (path, (_, _, bytes)) in victim.picture(&victim.dir()) {
                let leftover = path.file_name().is_some_and(is_leftover_name);
                if path.is_file() && !leftover && !path.starts_with(victim.dir().join(".git")) {
                    assert!(!bytes.is_empty(), "{} is empty", path.display());
                }
            }
        }
        if words[0] != "init" {
            let again = victim.run(words);
            assert_eq!(again.code, 0, "{}", again.text());
        }
        assert_eq!(leftovers(&victim), Vec::<String>::new());
        if words[0] == "secrets" {
            let checked = victim.run(&["secrets", "check"]);
            assert_eq!(checked.code, 0, "{}", checked.text());
        }
    }
}

/// A disk that is full: no file may have a byte, and the writer is killed for it or told.
#[test]
fn where_nothing_can_be_written_nothing_is_half_there() {
    if !has_git() {
        return;
    }
    for (told, words) in [
        (true, ["secrets", "init", "--yes"].as_slice()),
        (false, &["secrets", "init", "--yes"]),
        (true, &["render"]),
        (false, &["render"]),
        (true, &["init", "new"]),
        (false, &["init", "new"]),
    ] {
        let victim = Victim::new();
        victim.git(&["init", "-q"]);
        let command = victim.command(words);
        let mut full = Command::new("sh");
        full.arg("-c")
            .arg(if told {
                "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""
            } else {
                "ulimit -f 0; exec \"$0\" \"$@\""
            })
            .arg0("sh")
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(victim.dir())
            .env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                full.env(name, value);
            }
        }
        let output = full.output().unwrap();
        assert!(!output.status.success(), "{words:?}: {output:?}");
        nothing_private_is_staged(&victim);
        for (path, (_, _, bytes)) in victim.picture(&victim.dir()) {
            let leftover = path.file_name().is_some_and(is_leftover_name);
            if path.is_file() && !leftover && !path.starts_with(victim.dir().join(".git")) {
                assert!(!bytes.is_empty(), "{} is empty", path.display());
            }
        }
        let again = victim.run(words);
        assert_eq!(again.code, 0, "{}", again.text());
    }
}

/// What earlier versions left, and what this one leaves where a file system can't do better.
#[test]
fn leftovers_are_no_findings_and_go_with_the_next_command_that_writes() {
    if !has_git() {
        return;
    }
    let victim = Victim::in_use();
    victim.git(&["init", "-q"]);
    let left = [
        "secrets/.new-Ab12Cd",
        "secrets/.tmpAb12Cd",
        "secrets/.undercroft-new-0123456789abcdef",
        "secrets/host-keys/.new-Ab12Cd",
        ".undercroft/.new-Ab12Cd",
        ".undercroft/ssh/.new-Ab12Cd",
        ".new-Ab12Cd",
    ];
    for name in left {
        victim.write(name, "half of somethi");
    }
    let checked = victim.run(&["secrets", "check"]);
    assert_eq!(checked.code, 0, "{}", checked.text());
    let beside = |names: Vec<String>| {
        let mut names = names;
        names.retain(|name| !name.contains("/.undercroft/"));
        names.len()
    };
    assert_eq!(
        beside(leftovers(&victim)),
        left.len() - 2,
        "a check takes nothing away from the repository"
    );
    let ran = victim.run(&["secrets", "init"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert_eq!(leftovers(&victim), Vec::<String>::new());
    for name in ["gitops/.tmpAb12Cd", "gitops/applications/.tmpAb12Cd"] {
        victim.write(name, "half of somethi");
    }
    assert_eq!(victim.run(&["render"]).code, 0);
    assert_eq!(leftovers(&victim), Vec::<String>::new());
    // One that somebody committed is no leftover: it is kept, and said to be in plain text.
    victim.write("secrets/.new-Ab12Cd", "password: hunter2\n");
    victim.git(&["add", "-f", "secrets/.new-Ab12Cd"]);
    assert_eq!(victim.run(&["secrets", "init"]).code, 0);
    assert!(victim.dir().join("secrets/.new-Ab12Cd").exists());
    let checked = victim.run(&["secrets", "check"]);
    assert_eq!(checked.code, 65, "{}", checked.text());
    assert!(checked.text().contains(".new-Ab12Cd"), "{}", checked.text());
}
