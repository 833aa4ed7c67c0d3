//! A crash while secrets are in memory leaves none of them behind.

use std::{
    os::unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{cli::secrets::fleet, support::Sandbox};

const FILE: &str = "secrets/operators.sops.yaml";
const PATIENCE: Duration = Duration::from_secs(60);
/// A user that nobody is: root's processes tell nothing by their owner.
const NOBODY: &str = "65534";

/// The command as a shell would run it that allows core files, as an ordinary user.
fn as_user(sandbox: &Sandbox, args: &[&str]) -> Command {
    let undercroft = sandbox.command([] as [&str; 0]);
    let mut command = sandbox.shell();
    command
        .arg("-c")
        .arg("ulimit -c unlimited; exec \"$@\"")
        .arg("sh");
    if rustix::process::geteuid().is_root() {
        command.args([
            "setpriv",
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
        ]);
    }
    command.arg(undercroft.get_program()).args(args);
    command
}

fn wait_for(path: &Path) -> String {
    let until = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < until, "{} doesn't appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::read_to_string(path).unwrap()
}

fn core_limit(pid: &str) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max core file size"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    words.get(4..6).unwrap().join(" ")
}

/// An editor that says where the plain text is, and lives as long as who has started it.
fn begin(sandbox: &Sandbox) -> (Child, PathBuf) {
    let seen = sandbox.dir().join("seen");
    let _ = std::fs::remove_file(&seen);
    let mut command = as_user(sandbox, &["secrets", "edit", FILE]);
    let child = command
        .env("EDITOR", sandbox.dir().join("editor.sh"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = wait_for(&seen);
    let (plain, editor) = said.trim().split_once(' ').unwrap();
    assert_eq!(core_limit(editor), "0 0", "of the editor");
    (child, PathBuf::from(plain))
}

#[test]
fn a_crash_dumps_nothing_and_the_next_command_wipes_what_is_left() {
    let sandbox = fleet();
    assert_eq!(sandbox.run(["secrets", "init"]).code, 0);
    let dir = sandbox.dir();
    sandbox.write(
        "editor.sh",
        &format!(
            "#!/bin/sh\necho \"$1 $$\" >{seen}.new; mv {seen}.new {seen}\nwhile kill -0 $PPID; do sleep 0.05; done\n",
            seen = dir.join("seen").display(),
        ),
    );
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).status().unwrap();
        assert!(status.success(), "{program} {args:?}");
    };
    let editor = dir.join("editor.sh").display().to_string();
    run("chmod", &["755", &editor]);
    if rustix::process::geteuid().is_root() {
        let root = dir.parent().unwrap().display().to_string();
        run("chown", &["-R", &format!("{NOBODY}:{NOBODY}"), &root]);
        let tried = as_user(&sandbox, &["--version"]).output().unwrap();
        if !tried.status.success() {
            println!("SKIPPED: another user can't run the command from where it was built");
            return;
        }
    }
    let before = std::fs::read(dir.join(FILE)).unwrap();
    for (name, number) in [("ABRT", 6), ("SEGV", 11), ("KILL", 9), ("TRAP", 5)] {
        let (mut child, plain) = begin(&sandbox);
        let pid = child.id().to_string();
        assert_eq!(core_limit(&pid), "0 0");
        // The kernel gives the entries of what can't be dumped to root (proc(5)).
        let owner = std::fs::metadata(format!("/proc/{pid}/environ"))
            .unwrap()
            .uid();
        assert_eq!(owner, 0, "it could be dumped");
        assert!(plain.exists());
        // Rust's own handler takes the first fault that isn't one of its stacks' for a mistake, and
        // leaves the second to the kernel.
        let until = Instant::now() + PATIENCE;
        let status = loop {
            let _ = Command::new("kill").args(["-s", name, &pid]).status();
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "{name} doesn't end it");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(status.signal(), Some(number));
        assert!(!status.core_dumped());
        let left: Vec<String> = crate::support::files(&dir)
            .into_iter()
            .filter(|file| file.contains("core"))
            .collect();
        assert_eq!(left, [] as [&str; 0]);
        // Any command will do.
        let next = as_user(&sandbox, &["completions", "bash"])
            .output()
            .unwrap();
        assert!(next.status.success());
        assert!(!plain.exists(), "{} is still there", plain.display());
    }
    assert_eq!(std::fs::read(dir.join(FILE)).unwrap(), before);
}

#[test]
fn a_command_that_begins_leaves_alone_what_is_in_use() {
    let sandbox = fleet();
    assert_eq!(sandbox.run(["secrets", "init"]).code, 0);
    let go = sandbox.dir().join("go");
    let script = format!(
        "#!/bin/sh\n{} completions bash >/dev/null; test -s \"$1\" && touch {}\n",
        env!("CARGO_BIN_EXE_undercroft"),
        go.display()
    );
    sandbox.write("editor.sh", &script);
    let editor = sandbox.dir().join("editor.sh");
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = sandbox.command(["secrets", "edit", FILE]);
    let ran = sandbox.finish(command.env("EDITOR", &editor));
    assert_eq!(ran.out, "nothing was changed\n", "{}", ran.text());
    assert!(go.exists());
}
