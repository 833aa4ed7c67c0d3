//! What a Raspberry Pi's boot ROM fetches: the firmware that the operator has put into the
//! repository, and around it what leads to the installer.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use undercroft_model::{
    System,
    inventory::{Firmware, Inventory},
};

use undercroft_build::debian::{PartsError, write_atomically};
use undercroft_build::installer::InstallerImage;
use undercroft_folder::confined::{Confined, ConfinedError, FileKind};

/// The folder of the repository that the firmware lies in.
pub(crate) const PI_FIRMWARE: &str = "netboot/pi";
/// The most files of the firmware: a whole one, with every overlay, has some 350.
const FILES_MAX: usize = 1000;
/// The largest file of it, in bytes: start4.elf has 2 MB, an image of UEFI firmware some 2 MB.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How deep folders may lie in it: `overlays/` is one.
const DEPTH_MAX: usize = 4;
/// The names of the installer among the firmware's files.
const KERNEL: &str = "kernel8.img";
const INITRD: &str = "initrd";
const CONFIG: &str = "config.txt";
/// What the boot ROM is told, where the firmware's folder has no `config.txt` of its own.
///
/// Source: the Raspberry Pi documentation, "config.txt", boot options.
const CONFIG_TXT: &str = "\
# Written by Undercroft; netboot/pi/config.txt in the repository replaces it.
arm_64bit=1
enable_uart=1
kernel=kernel8.img
initramfs initrd followkernel
# The Pi 5 starts nothing that doesn't say it is for a Pi 5, as a general kernel doesn't.
os_check=0
";

/// The files of a Raspberry Pi, and what there is to say about them.
#[derive(Debug, Default)]
pub(crate) struct PiFiles {
    /// By the name that the boot ROM asks for; empty where a Pi can't be started.
    pub(crate) files: BTreeMap<String, PathBuf>,
    /// What is missing.
    pub(crate) lacks: Option<String>,
}

/// Collects the files. What comes out of the repository is copied below the cache folder, so that
/// nothing else than what was looked at is served.
pub(crate) fn pi_files(
    inventory: &Inventory,
    repository: &Path,
    cache_dir: &Path,
    images: &BTreeMap<System, InstallerImage>,
) -> Result<PiFiles, PiError> {
    let is_pi = |firmware: Firmware| firmware == Firmware::Rpi;
    if !inventory.nodes.values().any(|node| is_pi(node.firmware)) {
        return Ok(PiFiles::default());
    }
    let lacks = |what: &str| PiFiles {
        files: BTreeMap::new(),
        lacks: Some(format!(
            "Raspberry Pis get nothing to boot: {what}; docs/classes/pi.md says which files go into {PI_FIRMWARE}"
        )),
    };
    let Some(image) = images.get(&System::Aarch64Linux) else {
        return Ok(lacks("there is no installer for aarch64-linux"));
    };
    let folder = std::path::absolute(cache_dir)
        .map_err(PartsError::io("find", cache_dir))?
        .join("pi");
    undercroft_build::debian::remove_dir(&folder)?;
    let mut files = BTreeMap::new();
    copy(&Confined::new(repository), "", &folder, &mut files, 0)?;
    // A Pi 4's boot ROM loads start4.elf; a Pi 5's has that in its EEPROM, and takes the board's
    // device tree.
    let of_pi4 = files.contains_key("start4.elf") && files.contains_key("fixup4.dat");
    let of_pi5 = files.keys().any(|name| name.starts_with("bcm2712"));
    if !of_pi4 && !of_pi5 {
        return Ok(lacks(
            "neither start4.elf and fixup4.dat (Pi 4) nor a device tree bcm2712… (Pi 5) is there",
        ));
    }
    if !files.contains_key(CONFIG) {
        fs::create_dir_all(&folder).map_err(PartsError::io("make the folder", &folder))?;
        let config = folder.join(CONFIG);
        write_atomically(&config, CONFIG_TXT.as_bytes())?;
        files.insert(CONFIG.to_owned(), config);
    }
    for (name, path) in [(KERNEL, &image.kernel), (INITRD, &image.initrd)] {
        files.entry(name.to_owned()).or_insert_with(|| path.clone());
    }
    Ok(PiFiles { files, lacks: None })
}

/// Copies the files of a folder below the firmware's, and of the folders in it.
fn copy(
    repository: &Confined,
    below: &str,
    to: &Path,
    files: &mut BTreeMap<String, PathBuf>,
    depth: usize,
) -> Result<(), PiError> {
    let folder = format!("{PI_FIRMWARE}/{below}");
    let folder = folder.trim_end_matches('/');
    if depth > DEPTH_MAX || repository.kind(folder)?.is_none() {
        return Ok(());
    }
    let made = to.join(below);
    fs::create_dir_all(&made).map_err(PartsError::io("make the folder", &made))?;
    for entry in repository.list(folder)? {
        let Some(name) = entry.name.to_str().filter(|name| is_plain(name)) else {
            continue;
        };
        let below = if below.is_empty() {
            name.to_owned()
        } else {
            format!("{below}/{name}")
        };
        match entry.kind {
            FileKind::Folder => copy(repository, &below, to, files, depth + 1)?,
            _ if files.len() >= FILES_MAX => return Err(PiError::TooMany),
            _ => {
                // A link, or anything else that is no file, is refused by name here.
                let Some(file) = repository.open(format!("{PI_FIRMWARE}/{below}"))? else {
                    continue;
                };
                let target = to.join(&below);
                let mut content = Vec::new();
                file.take(FILE_BYTES_MAX + 1)
                    .read_to_end(&mut content)
                    .map_err(PartsError::io("read", &target))?;
                if content.len() as u64 > FILE_BYTES_MAX {
                    return Err(PiError::TooLarge { name: below });
                }
                fs::write(&target, content).map_err(PartsError::io("write", &target))?;
                files.insert(below, target);
            }
        }
    }
    Ok(())
}

/// Whether a name can stand in a path of TFTP, and isn't hidden.
fn is_plain(name: &str) -> bool {
    !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._+".contains(&b))
}

/// Why the Raspberry Pi's files can't be served.
#[derive(Debug, thiserror::Error)]
pub enum PiError {
    /// Something of the repository can't be read, or may not be.
    #[error(transparent)]
    Confined(#[from] ConfinedError),
    /// A file can't be written.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// There are too many.
    #[error("{PI_FIRMWARE} has more than {FILES_MAX} files")]
    TooMany,
    /// One is too large.
    #[error("{PI_FIRMWARE}/{name} has more than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// Its name below the folder.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_build::debian::Arch;

    fn inventory(firmware: &str) -> Inventory {
        let text = format!(
            "[fleet]\nname = \"cellar\"\n[network]\nnode_cidr = \"10.20.0.0/24\"\n\
             server_address = \"10.20.0.2\"\n[classes.pi4]\nkind = \"{firmware}\"\nlayout = \"ext4\"\n\
             [nodes.pi-01]\nclass = \"pi4\"\nmacs = [\"dc:a6:32:00:00:01\"]\naddress = \"10.20.0.11\"\n\
             disks = [{{ serial = \"0x2acee729\" }}]\n"
        );
        let parsed = undercroft_model::inventory::parse("undercroft.toml", text.as_bytes());
        parsed
            .inventory
            .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
    }

    fn collected(repository: &Path, kind: &str) -> Result<PiFiles, PiError> {
        let image = InstallerImage {
            kernel: repository.join("kernel"),
            initrd: repository.join("initrd"),
            arch: Arch::Aarch64,
            digest: String::new(),
            parameters: Vec::new(),
        };
        let images = BTreeMap::from([(System::Aarch64Linux, image)]);
        let cache = repository.join("cache");
        pi_files(&inventory(kind), repository, &cache, &images)
    }

    #[test]
    fn a_pi_gets_its_firmware_and_the_installer_or_a_reason() {
        let repository = tempfile::tempdir().unwrap();
        let firmware = repository.path().join(PI_FIRMWARE);
        assert!(
            collected(repository.path(), "plain")
                .unwrap()
                .lacks
                .is_none()
        );
        let none = collected(repository.path(), "pi").unwrap();
        assert!(none.files.is_empty() && none.lacks.unwrap().contains(PI_FIRMWARE));
        fs::create_dir_all(firmware.join("overlays")).unwrap();
        for name in [
            "start4.elf",
            "fixup4.dat",
            "overlays/disable-bt.dtbo",
            ".hidden",
        ] {
            fs::write(firmware.join(name), name).unwrap();
        }
        let found = collected(repository.path(), "pi").unwrap();
        let names: Vec<&str> = found.files.keys().map(String::as_str).collect();
        let all = [
            "config.txt",
            "fixup4.dat",
            "initrd",
            "kernel8.img",
            "overlays/disable-bt.dtbo",
            "start4.elf",
        ];
        assert_eq!(names, all);
        let text = fs::read_to_string(&found.files["overlays/disable-bt.dtbo"]).unwrap();
        assert_eq!(text, "overlays/disable-bt.dtbo");
        let config = fs::read_to_string(&found.files["config.txt"]).unwrap();
        assert!(config.contains("kernel=kernel8.img\ninitramfs initrd followkernel\n"));
        // What the operator has written counts.
        fs::write(firmware.join("config.txt"), "kernel=mine\n").unwrap();
        let found = collected(repository.path(), "pi").unwrap();
        let config = fs::read_to_string(&found.files["config.txt"]).unwrap();
        assert_eq!(config, "kernel=mine\n");
    }

    #[test]
    fn a_link_among_the_firmware_is_not_served() {
        let repository = tempfile::tempdir().unwrap();
        let firmware = repository.path().join(PI_FIRMWARE);
        fs::create_dir_all(&firmware).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", firmware.join("start4.elf")).unwrap();
        assert!(collected(repository.path(), "pi").is_err());
    }
}
