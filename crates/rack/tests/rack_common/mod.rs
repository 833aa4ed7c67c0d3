//! What the tests of the rack share.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is test code, which the lints recognize only inside test functions"
)]

pub(crate) mod efi;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use undercroft_model::{MacAddr, MachineUuid, NodeName, System};
use undercroft_rack as rack;
use undercroft_rack::{
    AcceleratorChoice, Disks, EmulatedBus, MachineStatus, RackClient, RackDisk, RackError,
    RackFirmware, RackNetwork, RackSpec, SupervisorCommand, VirtualMachine,
};

/// The variable that makes a test binary the supervisor.
const SUPERVISOR_VARIABLE: &str = "UNDERCROFT_TEST_RACK_SUPERVISOR";
/// The test of each binary that calls [`be_supervisor`].
const SUPERVISOR_TEST: &str = "rack_supervisor";

/// How long firmware may take to reach what a test waits for: a few seconds on an idle machine.
pub(crate) const FIRMWARE: Duration = Duration::from_secs(90);

/// Runs the supervisor in a test binary that was started for it; a test of that name calls this.
pub(crate) fn be_supervisor() {
    if std::env::var_os(SUPERVISOR_VARIABLE).is_none() {
        return;
    }
    let state_dir = std::env::args_os()
        .next_back()
        .expect("the rack's directory");
    assert!(rack::supervisor_main([state_dir]) == ExitCode::SUCCESS);
}

/// This test binary, as the supervisor.
pub(crate) fn supervisor() -> SupervisorCommand {
    let this = std::env::current_exe().expect("the test binary");
    let args = [
        OsString::from(format!("{SUPERVISOR_VARIABLE}=1")),
        this.into(),
        SUPERVISOR_TEST.into(),
        "--exact".into(),
        "--nocapture".into(),
    ];
    SupervisorCommand {
        program: "/usr/bin/env".into(),
        args: args.into(),
    }
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a name")
}

pub(crate) fn machine(label: &str, last_octet: u8) -> VirtualMachine {
    VirtualMachine {
        name: name(label),
        system: System::X86_64Linux,
        firmware: RackFirmware::Uefi,
        uuid: MachineUuid([last_octet; 16]),
        macs: vec![MacAddr([0x52, 0x54, 0, 0, 0, last_octet])],
        disks: vec![RackDisk {
            bus: EmulatedBus::Virtio,
            serial: format!("UC-{label}"),
            size_bytes: 64 << 20,
        }],
        memory_mb: 256,
        cpus: 1,
    }
}

pub(crate) fn rack_of(machines: Vec<VirtualMachine>) -> RackSpec {
    RackSpec {
        network: RackNetwork {
            bridge: "br0".into(),
            address: [10, 88, 0, 1].into(),
            prefix_len: 24,
        },
        accelerator: AcceleratorChoice::Tcg,
        machines,
    }
}

/// A rack that is ended, by force if need be, when the test ends in whatever way.
pub(crate) struct TestRack {
    pub(crate) client: RackClient,
    pub(crate) dir: tempfile::TempDir,
}

impl TestRack {
    /// Starts a rack; `None`, after it said why, if this machine can't run one.
    pub(crate) async fn start(spec: &RackSpec) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        match rack::up(dir.path(), spec, &supervisor()).await {
            Ok(client) => Some(Self { client, dir }),
            Err(
                error @ (RackError::MissingProgram { .. }
                | RackError::MissingFirmware { .. }
                | RackError::NoTun { .. }
                | RackError::NamespaceRefused { .. }),
            ) => {
                println!("SKIPPED: {error}");
                None
            }
            Err(error) => panic!("the rack does not start: {error}"),
        }
    }

    pub(crate) async fn machine(&self, label: &str) -> MachineStatus {
        self.client
            .machine(&name(label))
            .await
            .expect("the machine's status")
    }

    pub(crate) fn serial(&self, label: &str) -> String {
        let path = self
            .dir
            .path()
            .join("machines")
            .join(label)
            .join("serial.log");
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Waits until the machine has printed a text more often than `seen` times.
    pub(crate) async fn printed(&self, label: &str, text: &str, seen: usize) {
        let deadline = Instant::now() + FIRMWARE;
        while self.serial(label).matches(text).count() <= seen {
            assert!(
                Instant::now() < deadline,
                "{label} did not print {text:?} again after {seen} times; status {:?}; it printed:\n{}",
                self.machine(label).await,
                self.serial(label)
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the machine's status is as asked for.
    pub(crate) async fn until(&self, label: &str, what: &str, is: impl Fn(&MachineStatus) -> bool) {
        let deadline = Instant::now() + FIRMWARE;
        loop {
            let status = self.machine(label).await;
            if is(&status) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{label} is not {what}: {status:?}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the rack in an orderly way.
    pub(crate) async fn end(self) {
        rack::down(self.dir.path(), Disks::Delete)
            .await
            .expect("the rack ends");
        assert!(
            !self.dir.path().exists(),
            "files are left in {}",
            self.dir.path().display()
        );
    }
}

impl Drop for TestRack {
    fn drop(&mut self) {
        // A failed test leaves the rack to this: killing the supervisor ends its namespaces.
        let record = self.dir.path().join("supervisor.json");
        let pid = std::fs::read(record)
            .ok()
            .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
            .and_then(|record| record.get("pid")?.as_i64())
            .and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The ids of processes whose command line names a directory.
pub(crate) fn processes_of(dir: &Path) -> Vec<String> {
    let needle = dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let in_dir = std::fs::read_link(entry.path().join("cwd"))
            .is_ok_and(|cwd| cwd.to_string_lossy().starts_with(&needle));
        let named = std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&needle));
        if pid.bytes().all(|b| b.is_ascii_digit()) && (in_dir || named) {
            found.push(pid);
        }
    }
    found
}
