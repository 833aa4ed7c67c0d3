//! Tests that need addresses and ports of their own run in a network namespace of their own.

use std::{path::Path, process::Command};

/// Set in the process that runs inside of the namespace.
const INSIDE: &str = "UNDERCROFT_TEST_INSIDE";

/// Runs a test in a network namespace of its own. True inside of it. Outside it skips openly where
/// root or an SSH server is missing, or what `missing` names.
pub(crate) fn inside(test: &str, missing: impl FnOnce() -> Option<&'static str>) -> bool {
    inside_with(test, missing, |_| {})
}

/// The same, with more for the process inside.
pub(crate) fn inside_with(
    test: &str,
    missing: impl FnOnce() -> Option<&'static str>,
    more: impl FnOnce(&mut Command),
) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        return true;
    }
    let skip = if !rustix::process::getuid().is_root() {
        Some("an SSH server on port 22 of a namespace needs root")
    } else if !Path::new("/usr/sbin/sshd").exists() {
        Some("/usr/sbin/sshd is not installed (package openssh-server)")
    } else {
        missing()
    };
    if let Some(skip) = skip {
        println!("SKIPPED: {skip}");
        return false;
    }
    let mut inner = Command::new("unshare");
    inner
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1");
    more(&mut inner);
    let inner = inner.output().unwrap();
    assert!(
        inner.status.success(),
        "{test} failed inside of its namespace:\n{}{}",
        String::from_utf8_lossy(&inner.stdout),
        String::from_utf8_lossy(&inner.stderr)
    );
    false
}
