//! A node's system from a flake.

use std::path::Path;

use super::nix::{Nix, NixStore, built_path};
use super::{SystemError, flake_file};
use crate::parts::{PartsError, Progress};

const OFFLINE_HINT: &str = "read the output above; a flake's inputs need the network once, and \
    `nix flake lock` in its folder says more";

/// Builds `nixosConfigurations.NAME`: the toplevel, and the disko script if it has one.
pub(super) fn build(
    dir: &Path,
    name: &str,
    store: &NixStore,
    progress: Progress<'_>,
) -> Result<(String, Option<String>), SystemError> {
    let dir = std::path::absolute(dir).map_err(PartsError::io("find", dir))?;
    flake_file(&dir).ok_or_else(|| SystemError::NoFlake { dir: dir.clone() })?;
    let flake = dir.display();
    let eval = |attribute: &str, apply: &str| {
        Nix::new("nix")
            .args([
                "eval",
                "--json",
                &format!("{flake}#{attribute}"),
                "--apply",
                apply,
            ])
            .store(store)
            .hint(OFFLINE_HINT)
    };
    // An attribute that doesn't exist would be an error of evaluation that looks like any other.
    let outputs = Nix::new("nix")
        .args(["eval", "--json", "--impure", "--expr"])
        .args([format!(
            "builtins.attrNames ((builtins.getFlake {}).nixosConfigurations or {{ }})",
            nix_string(&flake.to_string())
        )])
        .store(store)
        .hint(OFFLINE_HINT)
        .run(progress)
        .map_err(SystemError::UnreadableFlake)?;
    let known: Vec<String> = serde_json::from_str(&outputs).unwrap_or_default();
    if !known.iter().any(|known| known == name) {
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(" ")
        };
        return Err(SystemError::NotInFlake {
            dir,
            name: name.to_owned(),
            known,
        });
    }
    let base = format!("nixosConfigurations.\"{name}\".config.system.build");
    let has_disko = eval(&base, "build: build ? diskoScript").run(progress)? == "true";
    let mut build = |attribute: &str| {
        progress(&format!("building {attribute} of {name}"));
        let output = Nix::new("nix")
            .args(["build", "--json", "--no-link", "--print-build-logs"])
            .args([format!("{flake}#{base}.{attribute}")])
            .store(store)
            .hint(OFFLINE_HINT)
            .run(progress)?;
        built_path(&output)
    };
    let toplevel = build("toplevel")?;
    let disko_script = if has_disko {
        Some(build("diskoScript")?)
    } else {
        None
    };
    Ok((toplevel, disko_script))
}

/// A string literal of the Nix language.
fn nix_string(text: &str) -> String {
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace("${", "\\${")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_nix_is_only_a_string() {
        assert_eq!(nix_string(r#"/a"b\c${d}"#), r#""/a\"b\\c\${d}""#);
    }
}
