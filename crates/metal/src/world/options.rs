//! How to install: what `nixos-anywhere` takes as options, and what a run hands through.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use undercroft_model::{Failure, FailureKind};

/// The most files below an extra-files folder; each is a connection of its own.
const EXTRA_FILES_MAX: usize = 1000;

/// A key for an encrypted disk, as `--disk-encryption-keys PATH FILE` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskKey {
    /// Where the disko script looks for it.
    pub path_on_machine: String,
    /// The file of this machine that holds it.
    pub file: PathBuf,
}

/// A phase of an installation, in nixos-anywhere's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstallPhase {
    /// Start the installer from a Linux that runs on the machine.
    Kexec,
    /// Lay out the disks.
    Disko,
    /// Copy and install the system.
    Install,
    /// Reboot into it.
    Reboot,
}

impl FromStr for InstallPhase {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text {
            "kexec" => Ok(Self::Kexec),
            "disko" => Ok(Self::Disko),
            "install" => Ok(Self::Install),
            "reboot" => Ok(Self::Reboot),
            _ => Err(OptionError::UnknownPhase {
                phase: text.to_owned(),
            }),
        }
    }
}

/// Why options were refused.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// There is no such phase.
    #[error("there is no phase {phase:?}: the phases are kexec, disko, install and reboot")]
    UnknownPhase {
        /// What was given.
        phase: String,
    },
    /// Starting the installer from another Linux isn't there yet.
    #[error(
        "the phase kexec isn't supported yet: a machine that runs another Linux must be booted from the network"
    )]
    KexecUnsupported,
    /// Phases were left out.
    #[error(
        "the phases disko, install and reboot are carried out together; none can be left out yet"
    )]
    PhaseLeftOut,
    /// A path for the machine isn't absolute.
    #[error("{path:?} isn't an absolute path on the machine")]
    BadPath {
        /// The path.
        path: String,
    },
    /// A file of this machine can't be used.
    #[error("{} can't be sent to a machine: {detail}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

/// How to install.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstallOptions {
    /// A folder whose files are put into the new system, at the same paths below `/`. They belong
    /// to root there, whoever owns them here, and keep their modes.
    pub extra_files: Option<PathBuf>,
    /// Keys for encrypted disks, which only the disko script sees.
    pub disk_keys: Vec<DiskKey>,
}

/// A file on its way to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExtraFile {
    pub(super) file: PathBuf,
    pub(super) path_on_machine: String,
    pub(super) mode: u32,
}

impl InstallOptions {
    /// Refuses what can't be done, before any machine is touched. `phases` is empty where the user
    /// has named none.
    ///
    /// # Errors
    /// The first option that can't be done.
    pub fn check(&self, phases: &[InstallPhase]) -> Result<(), OptionError> {
        if phases.contains(&InstallPhase::Kexec) {
            return Err(OptionError::KexecUnsupported);
        }
        let needed = [
            InstallPhase::Disko,
            InstallPhase::Install,
            InstallPhase::Reboot,
        ];
        if !phases.is_empty() && needed.iter().any(|phase| !phases.contains(phase)) {
            return Err(OptionError::PhaseLeftOut);
        }
        for key in &self.disk_keys {
            if !key.path_on_machine.starts_with('/') {
                return Err(OptionError::BadPath {
                    path: key.path_on_machine.clone(),
                });
            }
            std::fs::File::open(&key.file).map_err(|e| bad_file(&key.file, &e))?;
        }
        self.list().map(drop)
    }

    pub(super) fn extra_files(&self) -> Result<Vec<ExtraFile>, Failure> {
        self.list()
            .map_err(|e| Failure::new(FailureKind::Permanent, e.to_string()))
    }

    fn list(&self) -> Result<Vec<ExtraFile>, OptionError> {
        let mut files = Vec::new();
        if let Some(root) = &self.extra_files {
            walk(root, root, &mut files)?;
        }
        Ok(files)
    }
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<ExtraFile>) -> Result<(), OptionError> {
    let mut entries = std::fs::read_dir(dir)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad_file(dir, &e))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let refuse = |detail: &str| OptionError::BadFile {
            path: path.clone(),
            detail: detail.to_owned(),
        };
        let meta = std::fs::symlink_metadata(&path).map_err(|e| bad_file(&path, &e))?;
        if meta.is_dir() {
            walk(root, &path, files)?;
            continue;
        }
        if !meta.is_file() {
            return Err(refuse("it is neither a file nor a folder"));
        }
        let below = path.strip_prefix(root).ok().and_then(Path::to_str);
        let below = below.ok_or_else(|| refuse("its name isn't UTF-8"))?;
        if files.len() >= EXTRA_FILES_MAX {
            return Err(refuse(&format!(
                "there are more than {EXTRA_FILES_MAX} files"
            )));
        }
        files.push(ExtraFile {
            path_on_machine: format!("/{below}"),
            mode: meta.permissions().mode() & 0o777,
            file: path,
        });
    }
    Ok(())
}

fn bad_file(path: &Path, error: &std::io::Error) -> OptionError {
    OptionError::BadFile {
        path: path.to_owned(),
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_files_keep_path_and_mode_and_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("etc/secret");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let options = InstallOptions {
            extra_files: Some(dir.path().to_owned()),
            disk_keys: vec![],
        };
        let files = options.list().unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].path_on_machine, "/etc/secret");
        assert_eq!(files[0].mode, 0o640);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let refused = options.check(&[]).unwrap_err();
        assert!(matches!(refused, OptionError::BadFile { .. }), "{refused}");
    }

    #[test]
    fn phases_that_cannot_be_done_are_refused_before_anything_is() {
        let options = InstallOptions::default();
        let all: Vec<InstallPhase> = ["disko", "install", "reboot"]
            .iter()
            .map(|p| p.parse().unwrap())
            .collect();
        options.check(&all).unwrap();
        assert!(matches!(
            options.check(&all[..2]),
            Err(OptionError::PhaseLeftOut)
        ));
        assert!(matches!(
            options.check(&[InstallPhase::Kexec]),
            Err(OptionError::KexecUnsupported)
        ));
        assert!("wipe".parse::<InstallPhase>().is_err());
    }

    #[test]
    fn a_disk_key_needs_an_absolute_path_and_a_readable_file() {
        let options = |path: &str, file: &str| InstallOptions {
            extra_files: None,
            disk_keys: vec![DiskKey {
                path_on_machine: path.into(),
                file: file.into(),
            }],
        };
        assert!(options("tmp/key", "/dev/null").check(&[]).is_err());
        assert!(options("/tmp/key", "/nowhere/at/all").check(&[]).is_err());
        options("/tmp/key", "/dev/null").check(&[]).unwrap();
    }
}
