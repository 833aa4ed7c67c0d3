//! Whatever asks `up` and `serve` to stop, once or twice, they end in order: no program of theirs goes on, and
//! nothing is left that they kept for the moment.

use std::{
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use crate::support::{Sandbox, files};

const PATIENCE: Duration = Duration::from_secs(60);
/// Every signal that is a wish to stop.
const SIGNALS: [&str; 4] = ["INT", "TERM", "HUP", "QUIT"];

/// A fleet whose systems take for ever to build: Nix says who it is, and doesn't end.
pub(crate) fn fleet() -> Option<Sandbox> {
    let sandbox = Sandbox::new();
    let made = sandbox.run(["init", "--template", "metal", "--fleet", "demo"]);
    assert_eq!(made.code, 0, "{}", made.text());
    // Nothing is served before Nix has made what is served; the address is nobody's here.
    let file = sandbox.dir().join("undercroft.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replacen(
        "\nserver_address",
        "\ninterface = \"lo\"\nserver_address",
        1,
    );
    std::fs::write(&file, text).unwrap();
    let seen = sandbox.dir().join("nix-runs");
    sandbox.write(
        "bin/nix",
        &format!(
            "#!/bin/sh\necho $$ >{seen}.new; mv {seen}.new {seen}\nexec sleep 600\n",
            seen = seen.display()
        ),
    );
    let nix = sandbox.dir().join("bin/nix");
    std::fs::set_permissions(nix, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(sandbox.dir().join("tmp")).unwrap();
    let tried = sandbox.run(["up", "--inspect-only", "--only", "nobody"]);
    if tried.err.contains("may not open the port") {
        println!("SKIPPED: this user may not open the ports of DHCP and TFTP");
        return None;
    }
    // Nix is given nothing but what git knows: the keys that the first makes too.
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        let done = git.arg("-C").arg(sandbox.dir()).args(args).status();
        assert!(done.unwrap().success());
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    assert_eq!(command(&sandbox, "up").status().unwrap().code(), Some(1));
    assert!(
        said(&sandbox).contains("git doesn't know"),
        "{}",
        said(&sandbox)
    );
    git(&["add", "-A"]);
    Some(sandbox)
}

pub(crate) fn command(sandbox: &Sandbox, name: &str) -> Command {
    let said = std::fs::File::create(sandbox.dir().join("said")).unwrap();
    // Only those that may wipe a disk ask.
    let yes = ["--yes"].into_iter().filter(|_| name != "plan");
    let mut command = sandbox.command([name].into_iter().chain(yes));
    let path = std::env::var("PATH").unwrap();
    let bin = sandbox.dir().join("bin");
    command
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("TMPDIR", sandbox.dir().join("tmp"))
        .env("UNDERCROFT_CACHE_DIR", sandbox.dir().join("cache"))
        .stdout(said.try_clone().unwrap())
        .stderr(said);
    command
}

pub(crate) fn said(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.dir().join("said")).unwrap()
}

/// Waits until Nix runs; its process id.
pub(crate) fn nix_of(sandbox: &Sandbox, child: &mut Child) -> String {
    let seen = sandbox.dir().join("nix-runs");
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(pid) = std::fs::read_to_string(&seen) {
            std::fs::remove_file(&seen).unwrap();
            return pid.trim().to_owned();
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("it ended with {status}: {}", said(sandbox));
        }
        assert!(Instant::now() < until, "Nix isn't run: {}", said(sandbox));
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn send(signal: &str, child: &Child) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(sent.unwrap().success());
}

pub(crate) fn wait(child: &mut Child, what: &str) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < until, "{what}: it doesn't end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Stops a command by these signals, and looks at what is left.
fn stop(sandbox: &Sandbox, name: &str, signals: &[&str]) {
    let what = format!("{name} {signals:?}");
    let mut child = command(sandbox, name).spawn().unwrap();
    let nix = nix_of(sandbox, &mut child);
    for signal in signals {
        send(signal, &child);
    }
    let status = wait(&mut child, &what);
    let text = said(sandbox);
    assert_eq!(status.signal(), None, "{what}: {text}");
    let well = name == "serve" && signals.len() == 1;
    // Told twice in a moment, it may have ended by the first.
    if signals.len() == 1 || name == "up" {
        assert_eq!(status.code(), Some(i32::from(!well)), "{what}: {text}");
    }
    assert!(text.contains("Stopping."), "{what}: {text}");
    assert!(
        text.contains(&format!("undercroft {name}")),
        "{what}: {text}"
    );
    let until = Instant::now() + PATIENCE;
    while is_alive(&nix) {
        assert!(Instant::now() < until, "{what}: Nix goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(files(&sandbox.dir().join("tmp")), [] as [&str; 0], "{what}");
    let cores = |folder: &Path| files(folder).into_iter().any(|f| f.starts_with("core"));
    assert!(!cores(&sandbox.dir()), "{what}");
    let half = files(&sandbox.dir().join(".undercroft"))
        .into_iter()
        .find(|file| file.starts_with(".undercroft-new-"));
    assert_eq!(half, None, "{what}");
}

#[test]
fn every_wish_to_stop_ends_up_and_serve_in_order() {
    let Some(sandbox) = fleet() else { return };
    for name in ["up", "serve"] {
        for signal in SIGNALS {
            stop(&sandbox, name, &[signal]);
            stop(&sandbox, name, &[signal, signal]);
        }
    }
    stop(&sandbox, "up", &["HUP", "QUIT"]);
    // What was begun is known to nobody as under way, and the next goes on.
    let status = sandbox.run(["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["controller"], serde_json::Value::Null);
}
