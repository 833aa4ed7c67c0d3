//! KVM or emulation.
//!
//! `/dev/kvm` may be there and not work: inside some virtual machines the first guest hangs, and on
//! others (a KVM that is itself emulated) one firmware runs and the next gives KVM an instruction that it
//! doesn't know. So KVM is used only after every firmware that the rack's machines may have has said
//! something through it within a time limit.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};
use tokio::time::timeout;
use undercroft_model::System;

use super::RackError;
use super::firmware::{find_qemu, find_uefi};
use super::qemu;
use super::spec::AcceleratorChoice;
use super::state::{StateDir, host_boot_id, write_file};

/// How long each firmware has to say something under KVM, in milliseconds. It takes a second or two
/// where KVM works.
pub const KVM_PROBE_MS: u64 = 10_000;
/// How long a killed probe is waited for, in milliseconds: one that hangs in the kernel may not
/// end at all, and is left to it.
const KVM_PROBE_END_MS: u64 = 2_000;
/// How much of QEMU's complaint is kept, in bytes.
const PROBE_COMPLAINT_BYTES: usize = 2048;

/// How machines are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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

/// Runs each firmware that a machine of the host's system may have under KVM until it says something;
/// what was seen, either way.
async fn probe_kvm(limit: Duration) -> Result<String, String> {
    let device = Path::new("/dev/kvm");
    access(device, Access::READ_OK | Access::WRITE_OK)
        .map_err(|errno| format!("/dev/kvm cannot be opened: {}", std::io::Error::from(errno)))?;
    let system = host_system().ok_or("the host is neither x86_64 nor aarch64")?;
    let qemu = find_qemu(system).map_err(|e| e.to_string())?;
    let mut ran = Vec::new();
    // SeaBIOS writes to the serial port when there are no graphics.
    if system == System::X86_64Linux {
        let mut command = guest(&qemu);
        command.args(["-machine", "q35,graphics=off"]);
        speaks(command, limit)
            .await
            .map_err(|e| format!("BIOS: {e}"))?;
        ran.push("BIOS");
    }
    // Without UEFI firmware here no UEFI machine is launched, under KVM or without.
    if let Ok(firmware) = find_uefi(system, &qemu) {
        let mut command = guest(&qemu);
        let machine = match system {
            System::Aarch64Linux | System::Aarch64Darwin => "virt,gic-version=host",
            System::X86_64Linux | System::X86_64Darwin => "q35",
        };
        command.args(["-machine", machine, "-drive"]).arg(format!(
            "if=pflash,unit=0,readonly=on,format={},file={}",
            firmware.code.format,
            qemu::escaped(&firmware.code.path)
        ));
        speaks(command, limit)
            .await
            .map_err(|e| format!("UEFI: {e}"))?;
        ran.push("UEFI");
    }
    match ran.as_slice() {
        [] => Err("there is no firmware to try it with".into()),
        ran => Ok(format!("a guest's firmware ran ({})", ran.join(", "))),
    }
}

/// A guest with nothing but memory and a serial port.
fn guest(qemu: &Path) -> Command {
    let mut command = Command::new(qemu);
    command
        .args(["-accel", "kvm", "-cpu", "host", "-m", "128"])
        .args(["-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-serial", "stdio"]);
    command
}

/// Whether a command writes to its standard output within a time limit, before KVM gives up on it. It is
/// killed after that.
async fn speaks(mut command: Command, limit: Duration) -> Result<(), String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|e| format!("QEMU cannot be started: {e}"))?;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("QEMU's output cannot be read".into());
    };
    let mut complaint = Vec::new();
    let mut first = [0u8; 1];
    let heard = timeout(limit, async {
        tokio::select! {
            read = stdout.read(&mut first) => Some(read),
            () = gives_up(&mut stderr, &mut complaint) => None,
        }
    })
    .await;
    // The kill fails only if QEMU has ended by itself, which is as good.
    let _ = child.start_kill();
    let end = Duration::from_millis(KVM_PROBE_END_MS);
    let ended = timeout(end, child.wait()).await;
    // Whatever else could be read in time is shown; the verdict stands.
    let mut rest = stderr.take(PROBE_COMPLAINT_BYTES as u64);
    let _ = timeout(end, rest.read_to_end(&mut complaint)).await;
    let complaint = String::from_utf8_lossy(&complaint);
    match heard {
        Ok(Some(Ok(1))) => Ok(()),
        Ok(Some(Ok(_))) => Err(format!("QEMU ended at once: {}", complaint.trim())),
        Ok(Some(Err(e))) => Err(format!("QEMU's output cannot be read: {e}")),
        Ok(None) => Err(format!("KVM gave up: {}", complaint.trim())),
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

/// Returns once QEMU has said that KVM can't go on with the guest, which it then leaves paused
/// (`kvm_handle_internal_error` in QEMU's `accel/kvm/kvm-all.c`).
async fn gives_up(stderr: &mut ChildStderr, complaint: &mut Vec<u8>) {
    let mut piece = [0u8; 256];
    // An end without those words leaves the verdict to the standard output, or to the time limit.
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        let room = PROBE_COMPLAINT_BYTES.saturating_sub(complaint.len());
        complaint.extend(piece.iter().take(read.min(room)));
        if String::from_utf8_lossy(complaint).contains("KVM internal error") {
            return;
        }
    }
    std::future::pending::<()>().await;
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
        let given_up = "echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60";
        let given_up = speaks(shell(given_up), long).await.unwrap_err();
        assert!(
            given_up.contains("KVM gave up: KVM internal error"),
            "{given_up}"
        );
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
