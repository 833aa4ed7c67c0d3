//! The installer image from a flake, where nixpkgs is to be had.

use std::path::Path;

use super::image::{InstallerError, InstallerImage, image_digest};
use crate::debian::{Arch, PartsError, Progress};
use crate::system::{Nix, NixStore, built_path, check_for_installers};

pub(super) fn build(
    flake: &str,
    cache_dir: &Path,
    arch: Arch,
    progress: Progress<'_>,
) -> Result<InstallerImage, InstallerError> {
    // Any other reference names something that Nix fetches.
    if Path::new(flake).is_dir() {
        check_for_installers(Path::new(flake))?;
    }
    let store = NixStore::choose(cache_dir)?;
    let link = std::path::absolute(cache_dir)
        .map_err(PartsError::io("find", cache_dir))?
        .join("installer")
        .join(format!("nix-{}", arch.nix_system()));
    if let Some(folder) = link.parent() {
        std::fs::create_dir_all(folder).map_err(PartsError::io("make the folder", folder))?;
    }
    let attribute = format!(
        "{flake}#packages.{}.undercroft-installer",
        arch.nix_system()
    );
    progress(&format!("building {attribute}"));
    let output = Nix::new("nix")
        .args(["build", "--json", "--out-link"])
        .args([&link])
        .args([&attribute])
        .store(&store)
        .hint("this builder needs nixpkgs, from the network or a substituter; the debian builder needs neither")
        .run(progress)?;
    let path = store.physical(&built_path(&output)?);
    let file = |name: &'static str| {
        let file = path.join(name);
        let missing = || InstallerError::NotAnImage {
            path: path.clone(),
            missing: name,
        };
        file.is_file().then_some(file).ok_or_else(missing)
    };
    let (kernel, initrd) = (file("kernel")?, file("initrd")?);
    let parameters = file("kernel-params")?;
    let parameters =
        std::fs::read_to_string(&parameters).map_err(PartsError::io("read", &parameters))?;
    Ok(InstallerImage {
        digest: image_digest(&kernel, &initrd)?,
        kernel,
        initrd,
        arch,
        parameters: parameters.split_whitespace().map(str::to_owned).collect(),
    })
}
