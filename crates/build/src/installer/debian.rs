//! The installer image, made from Debian's packages.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::assets::{DISK_LINKS, INIT, INITTAB, programs, system_release};
use super::cpio::Archive;
use super::image::{INSTALLER_NAME, InstallerError, InstallerImage, image_digest};
use crate::debian::{
    APPLETS, Arch, Kernel, KernelFlavour, Parts, PartsError, Progress, hex, write_atomically,
};

/// Changes with the way in which an image is put together, so that an old one isn't reused.
const RECIPE: u32 = 3;
/// zstd's level: above it the image hardly shrinks, and making it takes long.
const ZSTD_LEVEL: &str = "-12";

const PACKAGES: [&str; 9] = [
    "busybox-static",
    "dropbear-bin",
    "nix-bin",
    "gdisk",
    "dosfstools",
    "e2fsprogs",
    "efibootmgr",
    "util-linux",
    "udev",
];

/// The programs of the packages, at their paths in the image.
const PROGRAMS: [&str; 14] = [
    "usr/sbin/dropbear",
    "usr/bin/dropbearkey",
    "usr/bin/nix",
    "usr/sbin/sgdisk",
    "usr/sbin/mkfs.vfat",
    "usr/sbin/fsck.vfat",
    "usr/sbin/mkfs.ext4",
    "usr/sbin/e2fsck",
    "usr/bin/efibootmgr",
    "usr/sbin/blkid",
    "usr/sbin/wipefs",
    "usr/bin/udevadm",
    "usr/lib/udev/ata_id",
    "usr/lib/udev/scsi_id",
];

/// udev's own rules that are in the image: those that name disks and their partitions. Loading
/// drivers and naming network cards is left to the image's own programs.
const RULES: [&str; 2] = ["60-block.rules", "60-persistent-storage.rules"];

pub(super) fn build(
    cache_dir: &Path,
    flavour: KernelFlavour,
    arch: Arch,
    progress: Progress<'_>,
) -> Result<InstallerImage, InstallerError> {
    let parts = Parts::open(cache_dir)?;
    let set = parts.fetch(&PACKAGES, arch, progress)?;
    let (kernel, kernel_set) = parts.kernel(flavour, arch, progress)?;

    let inputs = inputs_digest(&[&set.digest(), &kernel_set.digest()]);
    let folder = std::path::absolute(cache_dir)
        .map_err(PartsError::io("find", cache_dir))?
        .join("installer")
        .join(format!("{}-{inputs}", arch.nix_system()));
    let record = folder.join("image.json");
    if let Some(image) = read_record(&record) {
        return Ok(image);
    }
    progress(&format!(
        "making the installer image for {arch} from Debian packages"
    ));
    fs::create_dir_all(&folder).map_err(PartsError::io("make the folder", &folder))?;

    let archive = assemble(&set, &kernel)?;
    let initrd = folder.join("initrd");
    compress(&archive.write(), &initrd)?;
    let image_kernel = folder.join("kernel");
    let content = fs::read(&kernel.image).map_err(PartsError::io("read", &kernel.image))?;
    write_atomically(&image_kernel, &content)?;
    let image = InstallerImage {
        digest: image_digest(&image_kernel, &initrd)?,
        kernel: image_kernel,
        initrd,
        arch,
        // A kernel that dies reboots, so that the machine comes back to its netboot.
        parameters: vec!["quiet".to_owned(), "panic=10".to_owned()],
    };
    // Written last: a folder without it is one that was left half done.
    write_atomically(
        &record,
        &serde_json::to_vec_pretty(&image).unwrap_or_default(),
    )?;
    Ok(image)
}

fn read_record(record: &Path) -> Option<InstallerImage> {
    let image: InstallerImage = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
    (image.kernel.is_file() && image.initrd.is_file()).then_some(image)
}

fn inputs_digest(packages: &[&str]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("{RECIPE} {INSTALLER_NAME} {ZSTD_LEVEL}\n"));
    for text in [INIT, INITTAB, DISK_LINKS, system_release()]
        .into_iter()
        .chain(programs().map(|(_, p)| p))
    {
        hasher.update(Sha256::digest(text));
    }
    for package in packages {
        hasher.update(package);
    }
    for name in PROGRAMS.iter().chain(&RULES).chain(&APPLETS) {
        hasher.update(name);
    }
    hex(&hasher.finalize()).chars().take(16).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, PartsError> {
    fs::read(path).map_err(PartsError::io("read", path))
}

fn assemble(set: &crate::debian::PartSet, kernel: &Kernel) -> Result<Archive, PartsError> {
    let mut archive = Archive::new();
    for (path, permissions) in [
        ("proc", 0o555),
        ("sys", 0o555),
        ("dev", 0o755),
        ("run", 0o755),
    ] {
        archive.dir(path, permissions);
    }
    archive.dir("tmp", 0o1777);
    archive.dir("root", 0o700);
    archive.dir("mnt", 0o755);
    archive.dir("nix/store", 0o755);
    archive.dir("var/empty", 0o755);
    // The kernel opens it for /init before anything is mounted.
    archive.char_device("dev/console", 5, 1);
    archive.char_device("dev/null", 1, 3);

    let mut programs_here: Vec<PathBuf> = Vec::new();
    for path in PROGRAMS {
        let file = set.file(path)?;
        archive.file(path, 0o755, read(&file)?);
        programs_here.push(file);
    }
    for name in ["nix-store", "nix-env", "nix-daemon"] {
        archive.link(&format!("usr/bin/{name}"), "nix");
    }
    for name in ["fsck.ext4", "fsck.ext3"] {
        archive.link(&format!("usr/sbin/{name}"), "e2fsck");
    }
    // udev's daemon is told by its name. Debian's older releases look for its parts in /lib.
    archive.link("usr/lib/systemd/systemd-udevd", "/usr/bin/udevadm");
    archive.link("lib/udev", "/usr/lib/udev");
    for name in RULES {
        let path = format!("usr/lib/udev/rules.d/{name}");
        archive.file(&path, 0o644, read(&set.file(&path)?)?);
    }
    archive.file(
        "usr/lib/udev/rules.d/90-undercroft.rules",
        0o644,
        DISK_LINKS,
    );
    archive.file("bin/busybox", 0o755, read(&set.file("usr/bin/busybox")?)?);
    let taken: BTreeSet<&str> = PROGRAMS
        .iter()
        .filter_map(|p| p.rsplit('/').next())
        .collect();
    for name in APPLETS.iter().filter(|name| !taken.contains(*name)) {
        archive.link(&format!("bin/{name}"), "busybox");
    }
    archive.link("sbin/init", "/bin/busybox");
    archive.link("sbin/reboot", "/bin/busybox");
    archive.link("sbin/modprobe", "/bin/busybox");

    let linked = set.link(&programs_here)?;
    let libraries = format!("usr/lib/{}", set.arch().triplet());
    for (soname, file) in &linked.libraries {
        archive.file(&format!("{libraries}/{soname}"), 0o755, read(file)?);
    }
    for (soname, file) in set.name_services()? {
        archive.file(&format!("{libraries}/{soname}"), 0o755, read(&file)?);
    }
    if let Some((path, file)) = &linked.loader {
        archive.file(path, 0o755, read(file)?);
    }

    let modules = format!("lib/modules/{}", kernel.release);
    for (name, content) in module_files(kernel, &modules)? {
        archive.file(&name, 0o644, content);
    }
    archive.file("etc/modules-always", 0o644, kernel.always.join("\n") + "\n");

    for (name, text) in programs() {
        let permissions = if name == "lib.sh" { 0o644 } else { 0o755 };
        archive.file(&format!("undercroft/{name}"), permissions, text);
    }
    archive.file("init", 0o755, INIT);
    for (name, text) in [
        ("inittab", INITTAB),
        ("os-release", system_release()),
        ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("group", "root:x:0:\n"),
        // No password is valid: only keys open this machine.
        ("shadow", "root:*:19000::::::\n"),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        ),
        ("hosts", "127.0.0.1 localhost\n"),
        (
            "nix/nix.conf",
            "build-users-group =\nexperimental-features = nix-command flakes\nsubstituters =\nsandbox = false\n",
        ),
    ] {
        archive.file(&format!("etc/{name}"), 0o644, text);
    }
    archive.file(
        "etc/undercroft-installer",
        0o644,
        format!("{INSTALLER_NAME} (debian)\n"),
    );
    archive.link("etc/mtab", "/proc/mounts");
    Ok(archive)
}

/// The modules and what `modprobe` reads about them; see modules.dep(5) and depmod(8).
pub(crate) fn module_files(
    kernel: &Kernel,
    folder: &str,
) -> Result<Vec<(String, Vec<u8>)>, PartsError> {
    let mut files = Vec::new();
    let mut dependencies = String::new();
    let mut aliases = String::new();
    for (index, module) in kernel.modules.iter().enumerate() {
        files.push((
            format!("{folder}/{}.ko", module.name),
            crate::debian::read_module(&module.file)?,
        ));
        // modules.dep lists everything that a module needs, the farthest last: so walk back.
        let mut needed: Vec<&str> = Vec::new();
        let mut open: BTreeSet<&str> = module.needs.iter().map(String::as_str).collect();
        for earlier in kernel.modules.iter().take(index).rev() {
            if open.contains(earlier.name.as_str()) {
                needed.push(&earlier.name);
                open.extend(earlier.needs.iter().map(String::as_str));
            }
        }
        let needed: String = needed.iter().map(|name| format!(" {name}.ko")).collect();
        dependencies.push_str(&format!("{}.ko:{needed}\n", module.name));
        for alias in &module.aliases {
            aliases.push_str(&format!("alias {alias} {}\n", module.name));
        }
    }
    files.push((format!("{folder}/modules.dep"), dependencies.into_bytes()));
    files.push((format!("{folder}/modules.alias"), aliases.into_bytes()));
    Ok(files)
}

/// Compresses to a file, under a temporary name first.
pub(crate) fn compress(content: &[u8], target: &Path) -> Result<(), InstallerError> {
    let partial = target.with_extension("partial");
    let out = fs::File::create(&partial).map_err(PartsError::io("make", &partial))?;
    let mut zstd = Command::new("zstd");
    zstd.args([ZSTD_LEVEL, "--threads=0", "--quiet", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(Stdio::piped());
    undercroft_process::trace::started(&zstd);
    let mut child = zstd.spawn().map_err(|_| PartsError::NoProgram {
        program: "zstd".to_owned(),
        purpose: "compress the installer image",
        hint: "install the package zstd",
    })?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(content),
        None => Ok(()),
    };
    let output = child
        .wait_with_output()
        .map_err(|error| InstallerError::Compress(error.to_string()))?;
    if !output.status.success() || written.is_err() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(InstallerError::Compress(format!(
            "zstd ended with {}: {said}",
            output.status
        )));
    }
    Ok(fs::rename(&partial, target).map_err(PartsError::io("rename", &partial))?)
}
