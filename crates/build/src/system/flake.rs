//! A node's system from a flake.

use std::path::Path;

use super::nix::{Nix, NixError, NixStore, built_path};
use super::seen::READ_FOR_SYSTEMS;
use super::{SystemError, check_seen, flake_file};
use crate::debian::{PartsError, Progress};

const OFFLINE_HINT: &str = "read the output above; a flake's inputs need the network once, and \
    `nix flake lock` in its folder says more";

/// What Nix says of an output that a flake doesn't have (`src/libcmd/installables.cc` of Nix 2.8,
/// `src/libcmd/installable-flake.cc` since).
const NO_ATTRIBUTE: &str = "does not provide attribute";

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
    check_seen(&dir, READ_FOR_SYSTEMS)?;
    let listed = eval("nixosConfigurations", "builtins.attrNames").run(progress);
    let outputs = match listed {
        Err(NixError::Failed { output, .. }) if output.contains(NO_ATTRIBUTE) => "[]".to_owned(),
        listed => listed.map_err(SystemError::UnreadableFlake)?,
    };
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
