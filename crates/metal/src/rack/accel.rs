//! KVM or emulation.
//!
//! `/dev/kvm` may be there and not work: inside some virtual machines the first guest hangs. So
//! KVM is used only after a guest's firmware has said something through it within a time limit.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;
use undercroft_model::System;

use super::RackError;
use super::firmware::{find_qemu, find_uefi};
use super::spec::AcceleratorChoice;
use super::state::{StateDir, host_boot_id, write_file};

/// How long a guest's firmware has to say something under KVM, in milliseconds. It takes well
/// under a second where KVM works.
pub const KVM_PROBE_MS: u64 = 10_000;
/// How long a killed probe is waited for, in milliseconds: one that hangs in the kernel may not
/// end at all, and is left to it.
const KVM_PROBE_END_MS: u64 = 2_000;
/// How much of QEMU's complaint is kept, in bytes.
const PROBE_COMPLAINT_BYTES: u64 = 2048;

/// How machines are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// QEMU's emulation.
    Tcg,
    /// The processor's virtualization, by Linux' KVM.
    Kvm,
}

/// A probe's result, good until the host restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Probe {
    host_boot_id: String,
    works: bool,
    detail: String,
}

/// The host's own system; a machine of another one is always emulated.
pub(crate) fn host_system() -> Option<System> {
    match std::env::consts::ARCH {
        "x86_64" => Some(System::X86_64Linux),
        "aarch64" => Some(System::Aarch64Linux),
        _ => None,
    }
}

/// Decides how machines of the host's system are run, with a probe if it takes one.
pub(crate) async fn choose(
    choice: AcceleratorChoice,
    dir: &StateDir,
) -> Result<Accelerator, RackError> {
    if choice == AcceleratorChoice::Tcg {
        return Ok(Accelerator::Tcg);
    }
    let boot_id = host_boot_id();
    let cached = std::fs::read(dir.accelerator())
        .ok()
        .and_then(|text| serde_json::from_slice::<Probe>(&text).ok())
        .filter(|probe| !boot_id.is_empty() && probe.host_boot_id == boot_id);
    let probe = match cached {
        Some(probe) => probe,
        None => {
            let result = probe_kvm(Duration::from_millis(KVM_PROBE_MS)).await;
            let works = result.is_ok();
            let (Ok(detail) | Err(detail)) = result;
            let probe = Probe {
                host_boot_id: boot_id,
                works,
                detail,
            };
            let text = serde_json::to_vec_pretty(&probe).map_err(|e| RackError::Protocol {
                detail: e.to_string(),
            })?;
            write_file(&dir.accelerator(), &text)?;
            probe
        }
    };
    match (probe.works, choice) {
        (true, _) => Ok(Accelerator::Kvm),
        (false, AcceleratorChoice::Kvm) => Err(RackError::NoKvm {
            detail: probe.detail,
        }),
        (false, _) => Ok(Accelerator::Tcg),
    }
}

/// Runs a guest's firmware under KVM until it says something; what it saw, either way.
async fn probe_kvm(limit: Duration) -> Result<String, String> {
    let device = Path::new("/dev/kvm");
    access(device, Access::READ_OK | Access::WRITE_OK)
        .map_err(|errno| format!("/dev/kvm cannot be opened: {}", std::io::Error::from(errno)))?;
    let system = host_system().ok_or("the host is neither x86_64 nor aarch64")?;
    let qemu = find_qemu(system).map_err(|e| e.to_string())?;
    let mut command = Command::new(&qemu);
    command
        .args([
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-m",
            "64",
            "-nodefaults",
            "-no-user-config",
        ])
        .args(["-display", "none", "-serial", "stdio"]);
    match system {
        System::Aarch64Linux | System::Aarch64Darwin => {
            let firmware = find_uefi(system, &qemu).map_err(|e| e.to_string())?;
            command
                .args(["-machine", "virt,gic-version=host", "-drive"])
                .arg(format!(
                    "if=pflash,unit=0,readonly=on,format={},file={}",
                    firmware.code.format,
                    super::qemu::escaped(&firmware.code.path)
                ));
        }
        // SeaBIOS writes to the serial port when there are no graphics.
        System::X86_64Linux | System::X86_64Darwin => {
            command.args(["-machine", "q35,graphics=off"]);
        }
    }
    speaks(command, limit).await
}

/// Whether a command writes to its standard output within a time limit. It is killed after that.
async fn speaks(mut command: Command, limit: Duration) -> Result<String, String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|e| format!("QEMU cannot be started: {e}"))?;
    let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("QEMU's output cannot be read".into());
    };
    let mut first = [0u8; 1];
    let outcome = timeout(limit, stdout.read(&mut first)).await;
    // The kill fails only if QEMU has ended by itself, which is as good.
    let _ = child.start_kill();
    let ended = timeout(Duration::from_millis(KVM_PROBE_END_MS), child.wait()).await;
    match outcome {
        Ok(Ok(1)) => Ok("a guest's firmware ran".into()),
        Ok(Ok(_)) => {
            let mut complaint = Vec::new();
            let read = stderr.take(PROBE_COMPLAINT_BYTES);
            let mut read = std::pin::pin!(read);
            // Whatever could be read in time is shown; the probe has failed either way.
            let _ = timeout(
                Duration::from_millis(KVM_PROBE_END_MS),
                read.read_to_end(&mut complaint),
            )
            .await;
            Err(format!(
                "QEMU ended at once: {}",
                String::from_utf8_lossy(&complaint).trim()
            ))
        }
        Ok(Err(e)) => Err(format!("QEMU's output cannot be read: {e}")),
        Err(_) if ended.is_err() => Err(format!(
            "a guest's firmware said nothing in {} ms, and QEMU hangs in the kernel",
            limit.as_millis()
        )),
        Err(_) => Err(format!(
            "a guest's firmware said nothing in {} ms",
            limit.as_millis()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_probe_tells_speech_from_silence_and_from_an_end() {
        let long = Duration::from_secs(30);
        assert!(
            speaks(shell("echo SeaBIOS; exec sleep 60"), long)
                .await
                .is_ok()
        );
        let ended = speaks(shell("echo no kvm >&2; exit 1"), long)
            .await
            .unwrap_err();
        assert!(ended.contains("no kvm"), "{ended}");
        let silent = speaks(shell("exec sleep 60"), Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(silent.contains("said nothing in 50 ms"), "{silent}");
    }

    #[tokio::test]
    async fn a_cached_probe_is_used_and_emulation_needs_none() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path()).unwrap();
        assert_eq!(
            choose(AcceleratorChoice::Tcg, &dir).await.unwrap(),
            Accelerator::Tcg
        );
        assert!(!dir.accelerator().exists());
        for works in [true, false] {
            let probe = Probe {
                host_boot_id: host_boot_id(),
                works,
                detail: "cached".into(),
            };
            std::fs::write(dir.accelerator(), serde_json::to_vec(&probe).unwrap()).unwrap();
            let auto = choose(AcceleratorChoice::Auto, &dir).await.unwrap();
            assert_eq!(auto == Accelerator::Kvm, works);
            let asked = choose(AcceleratorChoice::Kvm, &dir).await;
            assert_eq!(asked.is_ok(), works);
        }
    }
}
