//! A machine's files: its disks and its firmware's variables.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::RackError;
use super::super::firmware::{UefiFirmware, find_qemu, find_uefi};
use super::super::spec::{RackFirmware, VirtualMachine};
use super::super::state::{MachineDir, create_private_dir};

/// How much of the host's disk must be free when a machine is made, in bytes: less than this
/// doesn't hold an installer's log and a small closure.
pub const HOST_FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// The unit in which blank parts of an image are left out, in bytes.
const SPARSE_BYTES: usize = 64 * 1024;

/// Finds the QEMU and the firmware that run a machine.
pub(crate) fn programs(
    machine: &VirtualMachine,
) -> Result<(PathBuf, Option<UefiFirmware>), RackError> {
    let qemu = find_qemu(machine.system)?;
    let uefi = match machine.firmware {
        RackFirmware::Uefi => Some(find_uefi(machine.system, &qemu)?),
        RackFirmware::Bios => None,
    };
    Ok((qemu, uefi))
}

/// Makes a machine's folder with its disks and variables; what is there already is kept.
pub(crate) fn prepare(machine: &VirtualMachine, dir: &MachineDir) -> Result<(), RackError> {
    create_private_dir(dir.root())?;
    check_free(dir.root())?;
    for (index, disk) in machine.disks.iter().enumerate() {
        make_disk(&dir.disk(index), disk.size_bytes)?;
    }
    if let (_, Some(uefi)) = programs(machine)?
        && !dir.nvram().exists()
    {
        let partial = dir.nvram().with_extension("partial");
        copy_sparse(&uefi.vars.path, &partial)
            .and_then(|()| std::fs::rename(&partial, dir.nvram()))
            .map_err(|e| RackError::io("create", dir.nvram(), e))?;
    }
    Ok(())
}

fn check_free(dir: &Path) -> Result<(), RackError> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| RackError::io("look at", dir, e.into()))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes >= HOST_FREE_BYTES_MIN {
        return Ok(());
    }
    Err(RackError::refused(
        format!(
            "only {} MiB are free where {} lies",
            free_bytes / (1024 * 1024),
            dir.display()
        ),
        "The rack's disks are sparse files that grow as machines write; free some space or give \
         the rack another directory.",
    ))
}

fn make_disk(path: &Path, size_bytes: u64) -> Result<(), RackError> {
    let failed = |e| RackError::io("create", path, e);
    match path.metadata() {
        Ok(found) if found.len() == size_bytes => Ok(()),
        Ok(found) => Err(RackError::refused(
            format!(
                "the disk {} has {} bytes, and the description says {size_bytes}",
                path.display(),
                found.len()
            ),
            "A disk of a rack keeps its size: remove the machine, or delete the rack's disks \
             with `undercroft rack down --delete`.",
        )),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Renamed when it has its size, so that an interrupted start leaves no short disk.
            let partial = path.with_extension("partial");
            create(&partial)
                .and_then(|file| file.set_len(size_bytes))
                .and_then(|()| std::fs::rename(&partial, path))
                .map_err(failed)
        }
        Err(e) => Err(failed(e)),
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Copies an image and leaves out its blank parts: AAVMF's variables are 64 MiB of zeros.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let target = create(to)?;
    target.set_len(source.metadata()?.len())?;
    let mut buffer = vec![0; SPARSE_BYTES];
    let mut at = 0u64;
    loop {
        let read = source.read(&mut buffer)?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
            return Ok(());
        };
        if piece.iter().any(|byte| *byte != 0) {
            target.write_all_at(piece, at)?;
        }
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn disks_are_sparse_private_and_keep_their_size() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("disk0.img");
        make_disk(&path, 1 << 30).unwrap();
        let found = path.metadata().unwrap();
        assert_eq!((found.len(), found.mode() & 0o777), (1 << 30, 0o600));
        assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
        make_disk(&path, 1 << 30).unwrap();
        let error = make_disk(&path, 1 << 29).unwrap_err();
        assert!(error.to_string().contains("1073741824"), "{error}");
    }

    #[test]
    fn a_sparse_copy_is_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("a"), temp.path().join("b"));
        let mut bytes = vec![0; 5 * SPARSE_BYTES + 17];
        bytes[3 * SPARSE_BYTES + 5] = 7;
        std::fs::write(&from, &bytes).unwrap();
        copy_sparse(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), bytes);
    }
}
