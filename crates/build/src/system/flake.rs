//! A node's system from a flake.

use std::path::{Path, PathBuf};

use super::error::SystemError;
use super::nix::{Nix, NixError, NixStore, built_path};
use super::seen::check_for_systems;
use crate::debian::{PartsError, Progress};

const OFFLINE_HINT: &str = "read the output above; a flake's inputs need the network once, and \
    `nix flake lock` in its folder says more";

/// What Nix says of an output that a flake doesn't have (`src/libcmd/installables.cc` of Nix 2.8,
/// `src/libcmd/installable-flake.cc` since).
const NO_ATTRIBUTE: &str = "does not provide attribute";

/// The devices that disko makes anew, as its script names them (`disko.devices.disk.<name>.device`; disko,
/// `lib/types/disk.nix`). A script that another module made has none that could be told.
const DISKO_DEVICES: &str = "config: if config ? disko \
    then map (disk: disk.device) (builtins.attrValues config.disko.devices.disk) else null";

/// What a flake gave for a machine.
#[derive(Debug)]
pub(super) struct Built {
    /// The system.
    pub(super) toplevel: String,
    /// The disko script, if it has one.
    pub(super) disko_script: Option<String>,
    /// Disko's script that mounts alone, if it has one.
    pub(super) disko_mount_script: Option<String>,
    /// The devices that the script makes anew, as it names them; `None` where that can't be told.
    pub(super) disko_devices: Option<Vec<String>>,
}

/// Builds `nixosConfigurations.NAME`: the toplevel, and the disko script if it has one.
pub(super) fn build(
    dir: &Path,
    name: &str,
    store: &NixStore,
    progress: Progress<'_>,
) -> Result<Built, SystemError> {
    let dir = std::path::absolute(dir).map_err(PartsError::io("find", dir))?;
    flake_file(&dir).ok_or_else(|| SystemError::NoFlake { dir: dir.clone() })?;
    let flake = dir.display();
    let eval = |attribute: &str, apply: &str| evaluate(&dir, attribute, apply, store);
    check_for_systems(&dir)?;
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
    // Disko has had both for long (disko, module.nix, `system.build`); another module may bring the first alone.
    let scripts = eval(
        &base,
        "build: [ (build ? diskoScript) (build ? mountScript) ]",
    );
    let scripts: Vec<bool> = serde_json::from_str(&scripts.run(progress)?).unwrap_or_default();
    let [has_disko, has_mount] = scripts.try_into().unwrap_or([false, false]);
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
    if !has_disko {
        return Ok(Built {
            toplevel,
            disko_script: None,
            disko_mount_script: None,
            disko_devices: None,
        });
    }
    let disko_script = Some(build("diskoScript")?);
    let disko_mount_script = match has_mount {
        true => Some(build("mountScript")?),
        false => None,
    };
    Ok(Built {
        toplevel,
        disko_script,
        disko_mount_script,
        disko_devices: disko_devices(&dir, name, store, progress)?,
    })
}

fn evaluate(dir: &Path, attribute: &str, apply: &str, store: &NixStore) -> Nix {
    let installable = format!("{}#{attribute}", dir.display());
    Nix::new("nix")
        .args(["eval", "--json", &installable, "--apply", apply])
        .store(store)
        .hint(OFFLINE_HINT)
}

/// The devices that a machine's disko script makes anew, as it names them; `None` where that can't be told.
pub(super) fn disko_devices(
    dir: &Path,
    name: &str,
    store: &NixStore,
    progress: Progress<'_>,
) -> Result<Option<Vec<String>>, SystemError> {
    let config = format!("nixosConfigurations.\"{name}\".config");
    let devices = evaluate(dir, &config, DISKO_DEVICES, store).run(progress)?;
    Ok(serde_json::from_str(&devices).unwrap_or_default())
}

/// A folder's `flake.nix`, if it has one.
fn flake_file(dir: &Path) -> Option<PathBuf> {
    let file = dir.join("flake.nix");
    file.is_file().then_some(file)
}
