//! Finding the repository and its examples, and asking Nix.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// The workspace's folder.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The examples, by name.
pub(crate) fn examples() -> Vec<String> {
    let names: Vec<String> = undercroft_testkit::tracked("examples")
        .iter()
        .filter(|file| file.ends_with("undercroft.toml"))
        .filter_map(|file| Some(file.parent()?.file_name()?.to_str()?.to_owned()))
        .collect();
    assert!(names.contains(&"basement".to_owned()), "{names:?}");
    names
}

/// Whether Nix is here. Where it isn't, the test says so.
pub(crate) fn nix_is_here() -> bool {
    let found = Command::new("nix-instantiate")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        println!("SKIPPED: nix-instantiate isn't here (Debian's nix-bin has it)");
    }
    found
}

/// Evaluates a file of nix/tests, with the folder of an inventory as its `src` if need be.
pub(crate) fn evaluate(file: &str, src: Option<&Path>) -> Value {
    let mut command = Command::new("nix-instantiate");
    command
        .args(["--eval", "--strict", "--json", "--readonly-mode"])
        .arg(repository().join("nix/tests").join(file));
    if let Some(src) = src {
        command.args(["--arg", "src"]).arg(src);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "nix-instantiate failed on {file}, {src:?}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What an expression comes to.
pub(crate) fn asked_of_nix(expression: &str) -> Value {
    let output = Command::new("nix-instantiate")
        .args([
            "--eval",
            "--strict",
            "--json",
            "--readonly-mode",
            "-E",
            expression,
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "nix-instantiate failed on {expression}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The pure half over an example, without what commands have written into its folder here.
pub(crate) fn pure_half(example: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    undercroft_testkit::copy_tracked(&format!("examples/{example}"), folder.path()).unwrap();
    evaluate("golden.nix", Some(folder.path()))
}
