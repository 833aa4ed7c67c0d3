//! The installer in QEMU, with disks of a test's own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use undercroft_build::debian::{Arch, KernelFlavour};
use undercroft_build::installer::cpio::Archive;
use undercroft_build::installer::{InstallerBuilder, InstallerError};

use crate::guest_common::{AGENT, Agent, GUEST, cache_dir, let_there_be};

/// One guest at a time: there are two cores, and each wants both.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Waits until udev has looked at every disk. On a busy host udev was seen to drop who waits.
const SETTLE: &str = "#!/bin/sh
for round in 1 2 3; do udevadm settle --timeout=60 && exit; done
exit 1
";

/// A disk of a guest: QEMU's device with its properties, and its size.
pub(crate) struct Disk {
    pub(crate) device: &'static str,
    pub(crate) size_bytes: u64,
}

/// The installer in QEMU.
pub(crate) struct Guest {
    pub(crate) agent: Agent<UnixStream>,
    qemu: Child,
    _folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Guest {
    /// Boots the installer with these disks, files beside its own and one more archive. `None`, after it said why,
    /// where that can't be done.
    pub(crate) async fn boot(
        disks: &[Disk],
        mut files: Archive,
        more: Option<&Path>,
    ) -> Option<Guest> {
        let turn = ONE_AT_A_TIME.lock().await;
        let image = tokio::task::spawn_blocking(|| {
            InstallerBuilder::Debian {
                cache_dir: cache_dir(),
                kernel: KernelFlavour::Cloud,
            }
            .build(Arch::X86_64, &mut |_| {})
        });
        let image = match image.await.unwrap() {
            Err(InstallerError::Parts(error)) => let_there_be(Err(error))?,
            image => image.unwrap(),
        };
        files.file("test/agent", 0o755, AGENT);
        files.file("test/settle", 0o755, SETTLE);
        files.file("etc/inittab", 0o644, "::once:/test/agent /dev/ttyS0\n");
        let folder = tempfile::tempdir().unwrap();
        let initrd = folder.path().join("initrd");
        let mut content = fs::read(&image.initrd).unwrap();
        // The next archive begins at a multiple of four.
        content.resize(content.len().next_multiple_of(4), 0);
        content.extend(files.write());
        if let Some(more) = more {
            content.resize(content.len().next_multiple_of(4), 0);
            content.extend(fs::read(more).unwrap());
        }
        fs::write(&initrd, content).unwrap();

        let socket = folder.path().join("serial.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args("-accel tcg,thread=multi -machine q35 -smp 2 -m 1536".split(' '))
            .args("-nodefaults -no-user-config -no-reboot -display none".split(' '))
            .args("-device virtio-rng-pci -device virtio-scsi-pci".split(' '))
            .args([
                "-append",
                "console=ttyS0 quiet loglevel=1 panic=10",
                "-kernel",
            ])
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-serial", &format!("unix:{}", socket.display())])
            .stdin(Stdio::null());
        for (index, disk) in disks.iter().enumerate() {
            let file = folder.path().join(format!("disk{index}.img"));
            let image = fs::File::create(&file).unwrap();
            image.set_len(disk.size_bytes).unwrap();
            command.args([
                "-drive",
                &format!(
                    "if=none,id=disk{index},format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file={}",
                    file.display()
                ),
                "-device",
                &format!("{},drive=disk{index}", disk.device),
            ]);
        }
        let qemu = match command.spawn() {
            Ok(qemu) => qemu,
            Err(error) => {
                undercroft_testkit::skip(format!("qemu-system-x86_64 can't be run: {error}"));
                return None;
            }
        };
        let accepted = timeout(GUEST, listener.accept()).await;
        let mut guest = Guest {
            agent: Agent::new(accepted.expect("QEMU connects").unwrap().0),
            qemu,
            _folder: folder,
            _turn: turn,
        };
        guest.agent.ready().await;
        guest.agent.ok("/test/settle").await;
        Some(guest)
    }
}
