//! The programs that measure: built with optimisation, and what they print.

use std::path::PathBuf;

use serde_json::Value;

use crate::run::{Failed, Step, repo_root};

/// A line of what one has printed.
pub(super) fn json(line: &str) -> Result<Value, Failed> {
    serde_json::from_str(line.trim()).map_err(|e| Failed::new("bench", format!("{e}: {line}")))
}

/// The folder of what is built with optimisation.
pub(super) fn release() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repo_root().join("target"), PathBuf::from);
    target.join("release")
}

/// Builds an example with optimisation and returns its path.
pub(super) fn example(package: &str, name: &str) -> Result<PathBuf, Failed> {
    Step::new(&format!("build {name}"), "cargo")
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            package,
            "--example",
            name,
        ])
        .run()?;
    Ok(release().join("examples").join(name))
}
