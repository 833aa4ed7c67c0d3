//! `serve` as a service: what a supervisor is told, the numbers, and the webhook's secret.

use std::{
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::Path,
    time::{Duration, Instant},
};

use super::signals;
use crate::support::{Sandbox, files};

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "T0SECRETB0SECRET";

/// Waits until a supervisor was told that; all that it was told until then.
fn told(socket: &UnixDatagram, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    let mut all: Vec<String> = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{all:?}");
        socket.set_read_timeout(Some(left)).unwrap();
        let Ok(len) = socket.recv(&mut bytes) else {
            continue;
        };
        let text = String::from_utf8(bytes[..len].to_vec()).unwrap();
        all.push(text.clone());
        if wanted(&text) {
            return all;
        }
    }
}

/// The address at which numbers are given, when that is said.
fn numbers_at(sandbox: &Sandbox) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let said = signals::said(sandbox);
        if let Some((_, rest)) = said.split_once("numbers are given at ") {
            return rest.lines().next().unwrap().to_owned();
        }
        assert!(Instant::now() < until, "{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn secret_file(sandbox: &Sandbox, mode: u32) -> String {
    let path = sandbox.dir().join("tmp").join("hook");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

/// The files below a folder that have the webhook's secret in them.
fn with_secret(folder: &Path) -> Vec<String> {
    let mut found = files(folder);
    found.retain(|file| {
        let bytes = std::fs::read(folder.join(file)).unwrap_or_default();
        bytes
            .windows(SECRET.len())
            .any(|window| window == SECRET.as_bytes())
    });
    found
}

#[test]
fn a_supervisor_is_told_from_ready_to_stopping_and_numbers_are_given_meanwhile() {
    let Some(sandbox) = signals::fleet() else {
        return;
    };
    let path = sandbox.dir().join("tmp").join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let hook = secret_file(&sandbox, 0o600);
    // Nobody listens there: notices wait, and hold up nothing.
    let url = "http://127.0.0.1:9/services/{secret}";
    let mut child = signals::command(&sandbox, "serve")
        .args(["--metrics", "127.0.0.1:0", "--webhook", url])
        .args(["--webhook-secret", &hook])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "3000000")
        .spawn()
        .unwrap();
    let began = told(&socket, |text| text == "WATCHDOG=1");
    assert_eq!(began[0], "READY=1", "{began:?}");
    assert!(began[1].starts_with("STATUS="), "{began:?}");
    // It builds, which takes for ever; and tells that it lives.
    signals::nix_of(&sandbox, &mut child);
    told(&socket, |text| text == "WATCHDOG=1");
    told(&socket, |text| text == "WATCHDOG=1");
    let command = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&command).contains(SECRET));
    let text = ureq::get(numbers_at(&sandbox)).call().unwrap();
    let text = text.into_body().read_to_string().unwrap();
    for line in [
        "undercroft_serve_course{course=\"starting\"} 1",
        "undercroft_serve_wedged 0",
        "undercroft_serve_rounds_total{outcome=\"done\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    signals::send("TERM", &child);
    told(&socket, |text| text == "STOPPING=1");
    let status = signals::wait(&mut child, "serve");
    assert_eq!(status.code(), Some(0), "{}", signals::said(&sandbox));
    assert!(!signals::said(&sandbox).contains(SECRET));
    let state = sandbox.dir().join(".undercroft");
    assert_eq!(with_secret(&state), [] as [&str; 0]);
    assert_eq!(with_secret(&sandbox.dir().join("tmp")), ["hook"]);
}

#[test]
fn what_cant_be_told_is_refused_before_anything_is_begun() {
    let Some(sandbox) = signals::fleet() else {
        return;
    };
    let refused = |args: &[&str], environment: Option<(&str, &str)>| {
        let mut command = signals::command(&sandbox, "serve");
        command.args(args).envs(environment);
        let status = command.status().unwrap();
        (status.code(), signals::said(&sandbox))
    };
    let open = secret_file(&sandbox, 0o644);
    let url = "https://hooks.example/{secret}";
    let (code, said) = refused(&["--webhook", url, "--webhook-secret", &open], None);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("can be read by others (mode 0644)"), "{said}");
    assert!(said.contains("chmod 600"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    let (code, said) = refused(&["--webhook", url], None);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("--webhook-secret"), "{said}");
    let socket = Some(("NOTIFY_SOCKET", "vsock:2:1234"));
    let (code, said) = refused(&[], socket);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("neither a path nor an abstract name"),
        "{said}"
    );
}
