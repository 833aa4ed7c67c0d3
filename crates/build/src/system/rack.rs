//! The rack's system: `nix/rack-system`, fed with the content of Debian's packages.
//!
//! What Nix builds is named by what goes in: the packages' files, the scripts, the node's name
//! and its public keys. The same inputs give the same closure on any machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use undercroft_model::System;

use super::error::SystemError;
use super::nix::{Nix, NixStore, built_path};
use super::node::{NodeSystem, SystemSecrets};
use crate::debian::{
    APPLETS, Arch, Kernel, KernelFlavour, PartSet, Parts, PartsError, Progress, hex, remove_dir,
    write_atomically,
};
use crate::installer::{compress, cpio::Archive, module_files};

/// Changes with the way in which the content is laid out, so that an old one isn't reused.
const RECIPE: u32 = 1;

/// The Nix expression and its scripts, by file name.
const SOURCES: [(&str, &str); 13] = [
    (
        "default.nix",
        include_str!("../../../../nix/rack-system/default.nix"),
    ),
    (
        "build-libraries.sh",
        include_str!("../../../../nix/rack-system/build-libraries.sh"),
    ),
    (
        "build-programs.sh",
        include_str!("../../../../nix/rack-system/build-programs.sh"),
    ),
    (
        "build-etc.sh",
        include_str!("../../../../nix/rack-system/build-etc.sh"),
    ),
    (
        "build-system.sh",
        include_str!("../../../../nix/rack-system/build-system.sh"),
    ),
    (
        "init.sh",
        include_str!("../../../../nix/rack-system/init.sh"),
    ),
    (
        "inittab",
        include_str!("../../../../nix/rack-system/inittab"),
    ),
    (
        "start.sh",
        include_str!("../../../../nix/rack-system/start.sh"),
    ),
    (
        "sshd.sh",
        include_str!("../../../../nix/rack-system/sshd.sh"),
    ),
    (
        "secrets.sh",
        include_str!("../../../../nix/rack-system/secrets.sh"),
    ),
    (
        "activate.sh",
        include_str!("../../../../nix/rack-system/activate.sh"),
    ),
    (
        "dhcp-event.sh",
        include_str!("../../../../nix/rack-system/dhcp-event.sh"),
    ),
    (
        "install-boot.sh",
        include_str!("../../../../nix/rack-system/install-boot.sh"),
    ),
];
const SWITCH: (&str, &str) = (
    "switch-to-configuration.sh",
    include_str!("../../../../nix/rack-system/switch-to-configuration.sh"),
);
const STAGE_1: &str = include_str!("../../../../nix/rack-system/stage-1.sh");

const PACKAGES: [&str; 4] = [
    "busybox-static",
    "dropbear-bin",
    "nix-bin",
    "systemd-boot-efi",
];
/// What the builds run, on the machine that builds.
const BUILD_PACKAGES: [&str; 2] = ["busybox-static", "patchelf"];
/// The programs of each package that the system has.
const PROGRAMS: [(&str, &[&str]); 2] = [
    (
        "dropbear",
        &[
            "usr/sbin/dropbear",
            "usr/bin/dropbearkey",
            "usr/lib/dropbear/dropbearconvert",
        ],
    ),
    ("nix", &["usr/bin/nix"]),
];

pub(super) fn build(
    cache_dir: &Path,
    node: &NodeSystem,
    generation: u32,
    broken: bool,
    store: &NixStore,
    progress: Progress<'_>,
) -> Result<String, SystemError> {
    let parts = stage(cache_dir, node.arch, progress)?;
    progress(&format!("building the system of {} with Nix", node.name));
    let generation = generation.to_string();
    let keys = node.authorized_keys.join("\n");
    let secrets = match &node.secrets {
        Some(secrets) => Some(stage_secrets(cache_dir, secrets)?),
        None => None,
    };
    let output = Nix::new("nix")
        .args([
            "build",
            "--json",
            "--no-link",
            "--impure",
            "--print-build-logs",
            "--file",
        ])
        .args([parts.join("expression/default.nix")])
        .args(["--argstr", "parts"])
        .args([&parts])
        .args([
            "--argstr",
            "name",
            &node.name,
            "--argstr",
            "system",
            node.arch.nix_system(),
        ])
        .args([
            "--argstr",
            "authorizedKeys",
            &keys,
            "--argstr",
            "generation",
            &generation,
        ])
        .args(["--argstr", "broken", if broken { "true" } else { "false" }])
        .args(["--argstr", "secrets"])
        .args([secrets.as_deref().unwrap_or(Path::new(""))])
        .store(store)
        .without_substituters()
        .hint(
            "read the output above; where it speaks of namespaces: building in a store below the \
             cache needs user namespaces (sysctl user.max_user_namespaces) or root",
        )
        .run(progress)?;
    Ok(built_path(&output)?)
}

/// Lays out what the expression takes from the packages. The folder is named by its inputs and
/// appears only when it is whole.
fn stage(cache_dir: &Path, arch: Arch, progress: Progress<'_>) -> Result<PathBuf, SystemError> {
    let host = Arch::host().unwrap_or(Arch::X86_64);
    let parts = Parts::open(cache_dir)?;
    let set = parts.fetch(&PACKAGES, arch, progress)?;
    let tools = parts.fetch(&BUILD_PACKAGES, host, progress)?;
    let (kernel, kernel_set) = parts.kernel(KernelFlavour::Cloud, arch, progress)?;

    let mut hasher = Sha256::new();
    hasher.update(format!(
        "{RECIPE}\n{}\n{}\n{}\n",
        set.digest(),
        tools.digest(),
        kernel_set.digest()
    ));
    for (name, text) in SOURCES.iter().chain([&SWITCH, &("stage-1.sh", STAGE_1)]) {
        hasher.update(name);
        hasher.update(Sha256::digest(text));
    }
    let digest: String = hex(&hasher.finalize()).chars().take(16).collect();
    let base = std::path::absolute(cache_dir)
        .map_err(PartsError::io("find", cache_dir))?
        .join("rack-system");
    let folder = base.join(format!("{}-{digest}", arch.nix_system()));
    if folder.is_dir() {
        return Ok(folder);
    }
    progress(&format!(
        "laying out the rack's system for {arch} from Debian packages"
    ));
    let partial = base.join(format!(
        ".{}-{digest}-{}",
        arch.nix_system(),
        std::process::id()
    ));
    remove_dir(&partial)?;
    let layout = Staged {
        root: partial.clone(),
    };
    layout.expression()?;
    layout.busybox("busybox", &set)?;
    layout.build_tools(&tools)?;
    let loader_name = layout.programs(&set)?;
    layout.kernel(&kernel, &set)?;
    let loader = format!("systemd-boot{}.efi", arch.efi());
    layout.copy(
        &set.file(&format!("usr/lib/systemd/boot/efi/{loader}"))?,
        &format!("loader/{loader}"),
        0o444,
    )?;

    let facts = facts(arch, &set, &kernel.release, &loader_name);
    write_atomically(
        &partial.join("parts.json"),
        format!("{facts:#}\n").as_bytes(),
    )?;
    match fs::rename(&partial, &folder) {
        // Another process made the same folder meanwhile.
        Err(_) if folder.is_dir() => remove_dir(&partial)?,
        renamed => renamed.map_err(PartsError::io("rename", &partial))?,
    }
    Ok(folder)
}

/// What the expression is told of the parts.
fn facts(arch: Arch, set: &PartSet, kernel: &str, loader: &str) -> serde_json::Value {
    let version = |package: &str| {
        let version = set
            .part(package)
            .map_or("unknown", |part| part.version.as_str());
        // Nix allows few characters in a store path's name.
        version.replace([':', '~'], "-")
    };
    json!({
        "versions": {
            "busybox": version("busybox-static"),
            "dropbear": version("dropbear-bin"),
            "nix": version("nix-bin"),
            "loader": version("systemd-boot-efi"),
            "kernel": kernel,
        },
        "loader": loader,
        "efi": arch.efi(),
        "console": System::from(arch).serial_console(),
    })
}

/// Lays out encrypted files and the programs that open them, in a folder that is named by what is
/// in it.
fn stage_secrets(cache_dir: &Path, secrets: &SystemSecrets) -> Result<PathBuf, SystemError> {
    let mut content = Vec::new();
    for program in ["sops", "ssh-to-age"] {
        let path = secrets.programs.join(program);
        let bytes = fs::read(&path).map_err(PartsError::io("read", &path))?;
        content.push((format!("programs/bin/{program}"), 0o555, bytes));
    }
    for path in &secrets.files {
        let bytes = fs::read(path).map_err(PartsError::io("read", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        content.push((format!("files/{name}"), 0o444, bytes));
    }
    let mut hasher = Sha256::new();
    for (name, _, bytes) in &content {
        hasher.update(name);
        hasher.update(Sha256::digest(bytes));
    }
    let digest: String = hex(&hasher.finalize()).chars().take(16).collect();
    let base = std::path::absolute(cache_dir)
        .map_err(PartsError::io("find", cache_dir))?
        .join("rack-system");
    let folder = base.join(format!("secrets-{digest}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    let partial = base.join(format!(".secrets-{digest}-{}", std::process::id()));
    remove_dir(&partial)?;
    let layout = Staged {
        root: partial.clone(),
    };
    for (name, mode, bytes) in &content {
        layout.write(name, bytes, *mode)?;
    }
    match fs::rename(&partial, &folder) {
        // Another process made the same folder meanwhile.
        Err(_) if folder.is_dir() => remove_dir(&partial)?,
        renamed => renamed.map_err(PartsError::io("rename", &partial))?,
    }
    Ok(folder)
}

/// A folder that is being filled.
struct Staged {
    root: PathBuf,
}

impl Staged {
    fn write(&self, path: &str, content: &[u8], mode: u32) -> Result<(), PartsError> {
        let target = self.root.join(path);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(PartsError::io("make the folder", folder))?;
        }
        fs::write(&target, content).map_err(PartsError::io("write", &target))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))
            .map_err(PartsError::io("write", &target))
    }

    fn copy(&self, source: &Path, path: &str, mode: u32) -> Result<(), PartsError> {
        let content = fs::read(source).map_err(PartsError::io("read", source))?;
        self.write(path, &content, mode)
    }

    fn link(&self, path: &str, target: &str) -> Result<(), PartsError> {
        let link = self.root.join(path);
        symlink(target, &link).map_err(PartsError::io("make the link", &link))
    }

    fn expression(&self) -> Result<(), PartsError> {
        for (name, text) in SOURCES.iter().chain([&SWITCH]) {
            self.write(&format!("expression/{name}"), text.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn busybox(&self, folder: &str, set: &PartSet) -> Result<(), PartsError> {
        self.copy(
            &set.file("usr/bin/busybox")?,
            &format!("{folder}/bin/busybox"),
            0o755,
        )?;
        for name in APPLETS {
            self.link(&format!("{folder}/bin/{name}"), "busybox")?;
        }
        Ok(())
    }

    /// busybox and patchelf, with patchelf's own libraries and loader: the builder sees nothing of
    /// the machine that it runs on.
    fn build_tools(&self, tools: &PartSet) -> Result<(), PartsError> {
        self.busybox("build-tools", tools)?;
        let patchelf = tools.file("usr/bin/patchelf")?;
        let linked = tools.link(std::slice::from_ref(&patchelf))?;
        self.copy(&patchelf, "build-tools/libexec/patchelf", 0o755)?;
        for (soname, file) in linked.libraries.iter() {
            self.copy(file, &format!("build-tools/lib/{soname}"), 0o755)?;
        }
        if let Some((_, file)) = &linked.loader {
            self.copy(file, "build-tools/lib/loader", 0o755)?;
        }
        Ok(())
    }

    /// The programs and their libraries; returns the dynamic loader's file name.
    fn programs(&self, set: &PartSet) -> Result<String, PartsError> {
        let mut all = Vec::new();
        for (package, paths) in PROGRAMS {
            for path in paths {
                let file = set.file(path)?;
                let name = path.rsplit('/').next().unwrap_or(path);
                self.copy(&file, &format!("programs/{package}/bin/{name}"), 0o755)?;
                all.push(file);
            }
        }
        for name in [
            "nix-store",
            "nix-env",
            "nix-daemon",
            "nix-build",
            "nix-collect-garbage",
        ] {
            self.link(&format!("programs/nix/bin/{name}"), "nix")?;
        }
        let linked = set.link(&all)?;
        let mut libraries: BTreeMap<String, PathBuf> = linked.libraries;
        libraries.extend(set.name_services()?);
        let mut loader_name = String::new();
        if let Some((path, file)) = linked.loader {
            loader_name = path.rsplit('/').next().unwrap_or_default().to_owned();
            libraries.insert(loader_name.clone(), file);
        }
        for (soname, file) in &libraries {
            self.copy(file, &format!("libraries/{soname}"), 0o755)?;
        }
        Ok(loader_name)
    }

    fn kernel(&self, kernel: &Kernel, set: &PartSet) -> Result<(), SystemError> {
        self.copy(&kernel.image, "kernel/kernel", 0o444)?;
        let always = kernel.always.join("\n") + "\n";
        for (path, content) in module_files(kernel, "modules")? {
            self.write(&path, &content, 0o444)?;
        }
        self.write("modules/modules-always", always.as_bytes(), 0o444)?;

        let mut archive = Archive::new();
        for folder in ["proc", "sys", "dev", "mnt-root"] {
            archive.dir(folder, 0o755);
        }
        archive.char_device("dev/console", 5, 1);
        archive.char_device("dev/null", 1, 3);
        let busybox = set.file("usr/bin/busybox")?;
        let content = fs::read(&busybox).map_err(PartsError::io("read", &busybox))?;
        archive.file("bin/busybox", 0o755, content);
        for name in APPLETS {
            archive.link(&format!("bin/{name}"), "busybox");
        }
        archive.file("init", 0o755, STAGE_1);
        archive.file("etc/modules-always", 0o644, always);
        for (path, content) in module_files(kernel, &format!("lib/modules/{}", kernel.release))? {
            archive.file(&path, 0o644, content);
        }
        let target = self.root.join("initrd/initrd");
        fs::create_dir_all(self.root.join("initrd"))
            .map_err(PartsError::io("make the folder", &target))?;
        compress(&archive.write(), &target)?;
        Ok(())
    }
}
