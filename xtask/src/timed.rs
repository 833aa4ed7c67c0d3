//! How long each test took: libtest says it where it is asked by a flag that stable compilers keep shut, so cargo runs
//! each test binary through this program, which opens the flag for that one process and for no compiler.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::Path, process::Command};

use crate::run::{Failed, Step, cache_dir};

/// The hidden task that cargo calls, followed by the binary and its arguments.
pub(crate) const TASK: &str = "run-a-test-binary";
/// How many tests are named at the end of a run.
const SLOWEST_SHOWN: usize = 10;
/// The length of the hash at the end of a test binary's name.
const HASH_CHARS: usize = 16;

/// The variable by which cargo is told of this program, and its value; `None` where cargo couldn't read it, and then
/// nothing is measured.
pub(crate) fn runner() -> Result<Option<(String, OsString)>, Failed> {
    let version = Step::new("the compiler's host", "rustc")
        .args(["-vV"])
        .output()?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or_else(|| Failed::new("test", "`rustc -vV` names no host"))?;
    let name = host.to_uppercase().replace('-', "_");
    // Building the tests may have made this program anew, so that the running one has no file any more.
    let folder = cache_dir();
    let program = folder.join("test-runner");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::remove_file(&program).or_else(none_there))
        .and_then(|()| std::fs::copy("/proc/self/exe", &program))
        .map_err(|e| Failed::new("test", format!("{}: {e}", program.display())))?;
    // Cargo takes what is between blanks for words.
    let Some(path) = program
        .to_str()
        .filter(|path| !path.contains(char::is_whitespace))
    else {
        return Ok(None);
    };
    let value = format!("{path} {TASK}");
    Ok(Some((format!("CARGO_TARGET_{name}_RUNNER"), value.into())))
}

fn none_there(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Becomes the test binary; it returns only where that fails.
pub(crate) fn become_binary(words: &[OsString]) -> Failed {
    let Some((binary, arguments)) = words.split_first() else {
        return Failed::new(TASK, "no binary was named");
    };
    let mut command = Command::new(binary);
    command.args(arguments);
    if is_test_binary(Path::new(binary)) && knows_times(Path::new(binary)) {
        command
            .args(["-Zunstable-options", "--report-time"])
            .env("RUSTC_BOOTSTRAP", "1");
    }
    let error = command.exec();
    Failed::new(TASK, format!("{}: {error}", Path::new(binary).display()))
}

/// Whether cargo made it to run tests: a documentation's example, which runs when it is asked for help, has no such
/// name.
fn is_test_binary(binary: &Path) -> bool {
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    let hash = name.rsplit_once('-').map_or("", |(_, hash)| hash);
    hash.len() == HASH_CHARS && hash.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether this is libtest, of a version that measures.
fn knows_times(binary: &Path) -> bool {
    let help = Command::new(binary).arg("--help").output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--report-time"))
}

/// The name and the seconds of a line such as `test a::b ... ok <1.234s>`.
pub(crate) fn seconds(line: &str) -> Option<(&str, f64)> {
    let (name, end) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds = end.rsplit_once(" <")?.1.strip_suffix("s>")?;
    Some((name, seconds.parse().ok()?))
}

/// The slowest tests, slowest first, a line each; empty where no time is known.
pub(crate) fn slowest(times: &[(String, f64)]) -> String {
    let mut times: Vec<_> = times.iter().collect();
    times.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut text = String::new();
    for (name, seconds) in times.iter().take(SLOWEST_SHOWN) {
        text.push_str(&format!("{seconds:>8.1} s  {name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_test_is_read_off_its_line() {
        assert_eq!(seconds("test a::b ... ok <1.25s>"), Some(("a::b", 1.25)));
        assert_eq!(seconds("test c ... FAILED <0.5s>"), Some(("c", 0.5)));
        for line in ["test a ... ok", "test result: ok. 3 passed", "a <1s>"] {
            assert_eq!(seconds(line), None, "{line}");
        }
    }

    #[test]
    fn the_ten_slowest_come_first() {
        let times: Vec<_> = (0..20).map(|n| (format!("t{n}"), f64::from(n))).collect();
        let text = slowest(&times);
        assert_eq!(text.lines().count(), SLOWEST_SHOWN);
        assert!(text.starts_with("    19.0 s  t19\n"), "{text}");
    }

    #[test]
    fn only_a_test_binary_is_asked_what_it_knows() {
        assert!(is_test_binary(Path::new(
            "target/debug/deps/rack_boot-0123456789abcdef"
        )));
        for other in [
            "/tmp/rustdoctest/rust_out",
            "undercroft",
            "a-b",
            "/tmp/x-0123",
        ] {
            assert!(!is_test_binary(Path::new(other)), "{other}");
        }
        let own = std::env::current_exe().unwrap();
        assert!(is_test_binary(&own) && knows_times(&own));
    }
}
