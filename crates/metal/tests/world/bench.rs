//! A made-up installer behind a real SSH server, and what an operation needs around it.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::sync::mpsc;
use undercroft_engine::{NodeFacts, Order, World};
use undercroft_journal::Store;
use undercroft_metal::world::{
    ClusterParts, EncryptionKeySource, Facilities, InstallOptions, MetalWorld, Pending,
    RunProgress, WorldParts,
};
use undercroft_model::{
    Action, Approval, ApprovalMode, DiskIdentity, Evidence, Failure, INSTALLER_REPORT_VERSION,
    InstallerReport, MacAddr, MachineUuid, NodeName, NodePlan, NodeState, OpId, Outcome,
    PLAN_VERSION, Plan, PlanId, PlanLimits, PlannedDisk, ReportedDisk, ReportedFirmware,
    RetryPolicy, Step, StepId, System, SystemTarget, Work,
    inventory::{DiskRole, Layout},
};
use undercroft_rack::ConsoleIdentity;
use undercroft_secrets::keys::{HostKeys, IdentitySource, OperatorKey};
use undercroft_ssh::HostKey;

pub(crate) const LIMIT: Duration = Duration::from_secs(90);
pub(crate) const TOPLEVEL: &str = "/nix/store/00000000000000000000000000000000-nixos-system-gpu-01";
pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

/// Runs a test of this file in a network namespace of its own. True inside of it.
pub(crate) fn inside(test: &str) -> bool {
    crate::namespace_common::inside(test, || None)
}

pub(crate) fn keygen(path: &Path) -> HostKey {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "test", "-t", "ed25519", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
    HostKey::parse(&fs::read_to_string(path.with_extension("pub")).unwrap()).unwrap()
}

/// A machine's surroundings, as the test says.
#[derive(Default)]
pub(crate) struct FakeFacilities {
    pub(crate) console: Mutex<Option<ConsoleIdentity>>,
    pub(crate) offered: Mutex<Vec<bool>>,
    pub(crate) boots: Mutex<u32>,
}

impl Facilities for FakeFacilities {
    fn offer(&self, _: &NodeName, installer: bool) -> Result<(), Failure> {
        self.offered.lock().unwrap().push(installer);
        Ok(())
    }
    fn boot_from_network<'a>(
        &'a self,
        _: &'a NodeName,
    ) -> Pending<'a, Result<Option<String>, Failure>> {
        *self.boots.lock().unwrap() += 1;
        Box::pin(async { Ok(None) })
    }
    fn console_identity<'a>(
        &'a self,
        _: &'a NodeName,
    ) -> Pending<'a, Result<Option<ConsoleIdentity>, Failure>> {
        let shown = self.console.lock().unwrap().clone();
        Box::pin(async { Ok(shown) })
    }
    fn console_name(&self, _: &NodeName) -> String {
        "test console".to_owned()
    }
}

/// A machine that runs an installer, and the controller before it.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) sshd: Child,
    pub(crate) facilities: Arc<FakeFacilities>,
    pub(crate) world: MetalWorld,
    pub(crate) outcomes: mpsc::UnboundedReceiver<(OpId, Outcome)>,
    pub(crate) told: Arc<Mutex<Vec<RunProgress>>>,
    pub(crate) report: InstallerReport,
    pub(crate) final_key: HostKey,
    /// What the plan knows the machine by.
    pub(crate) known: (Vec<MacAddr>, Option<MachineUuid>),
    pub(crate) next_op: u64,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

pub(crate) fn node() -> NodeName {
    NodeName::new("gpu-01").unwrap()
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_disk_keys(None)
    }

    /// A bench whose encrypted disks get their keys from a source.
    pub(crate) fn with_disk_keys(encryption_keys: Option<EncryptionKeySource>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let operator = OperatorKey::ensure(&path("state"), "basement").unwrap();
        let host_keys = HostKeys::open(
            &path("secrets"),
            &[],
            IdentitySource {
                state_dir: path("state"),
                identity_files: vec![],
                well_known: false,
            },
        )
        .unwrap();
        let final_key = host_keys.ensure(&node()).unwrap();
        let installer_key = keygen(&path("host"));
        let report = report(&installer_key);
        programs(dir.path(), &report);
        let sshd = sshd(dir.path(), &operator.authorized_key);

        let store = Store::create(&path("state"), "basement").unwrap();
        let facilities = Arc::new(FakeFacilities::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let parts = WorldParts {
            facilities: facilities.clone(),
            host_keys,
            operator,
            stores: BTreeMap::new(),
            options: InstallOptions::default(),
            cluster: ClusterParts::default(),
            encryption_keys,
            progress: Arc::new(move |p| sink.lock().unwrap().push(p)),
        };
        let (world, outcomes) = MetalWorld::new(parts, &store).unwrap();
        Self {
            dir,
            sshd,
            facilities,
            world,
            outcomes,
            told,
            report,
            final_key,
            known: (vec![MAC], None),
            next_op: 0,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the programs on the machine were asked, one command a line.
    pub(crate) fn asked(&self) -> String {
        fs::read_to_string(self.path("asked")).unwrap_or_default()
    }

    /// What the SSH server wrote of those who connected.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("sshd.log")).unwrap_or_default()
    }

    /// Whether anybody has connected to the machine beside the test itself, which did so once.
    pub(crate) fn was_connected_to(&self) -> bool {
        self.log().matches("Connection from").count() != 1
    }

    pub(crate) fn facts(&self) -> NodeFacts {
        NodeFacts {
            report: Some(self.report.clone()),
            approval: Some(Approval {
                fingerprint: self.report.fingerprint.clone(),
                by: "operator test".into(),
                granted_wall_ms: 0,
                expires_wall_ms: u64::MAX,
            }),
            boot_id: None,
            disk_paths: vec![],
            host_key_fingerprint: None,
            staged_boot_id: None,
            goes_back_to: None,
        }
    }

    pub(crate) fn order(&mut self, action: Action, work: Work, facts: NodeFacts) -> Order {
        self.next_op += 1;
        Order {
            op: OpId(self.next_op),
            plan: Arc::new(plan(action, &self.known)),
            step: StepId(0),
            node: node(),
            work,
            attempt: 1,
            timeout_ms: u64::try_from(LIMIT.as_millis()).unwrap(),
            facts: facts.into(),
            members: Vec::new(),
        }
    }

    pub(crate) async fn carry_out(
        &mut self,
        action: Action,
        work: Work,
        facts: NodeFacts,
    ) -> Outcome {
        let order = self.order(action, work, facts);
        let op = order.op;
        self.world.start(order);
        let (ended, outcome) = tokio::time::timeout(LIMIT, self.outcomes.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ended, op);
        outcome
    }

    pub(crate) async fn act(&mut self, action: Action) -> Outcome {
        let facts = self.facts();
        self.carry_out(action, Work::Act, facts).await
    }
}

pub(crate) fn report(key: &HostKey) -> InstallerReport {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    InstallerReport {
        version: INSTALLER_REPORT_VERSION,
        nonce: "00112233445566778899aabbccddeeff".into(),
        uuid: None,
        macs: vec![MAC],
        address: Ipv4Addr::LOCALHOST,
        boot_id: boot_id.trim().to_owned(),
        host_key: key.to_string(),
        fingerprint: key.fingerprint(),
        system: System::X86_64Linux,
        firmware: ReportedFirmware::Uefi,
        memory_mb: 2048,
        installer: "test".into(),
        token: None,
        disks: vec![ReportedDisk {
            path: "/dev/vda".into(),
            serial: Some("S1".into()),
            wwn: None,
            size_bytes: 3 << 30,
            model: None,
            transport: None,
        }],
    }
}

/// The installer's programs, which write down what they were asked.
pub(crate) fn programs(dir: &Path, report: &InstallerReport) {
    let inspect = serde_json::to_string(report).unwrap();
    fs::write(dir.join("inspect.json"), inspect).unwrap();
    let all = [
        ("inspect", "cat \"$D/inspect.json\""),
        ("partition", "echo state=created"),
        (
            "deliver",
            "[ \"$1\" = --probe ] && exit 10; cat >\"$D/delivered-${1##*/}\"; echo sha256=$(sha256sum <\"$D/delivered-${1##*/}\" | cut -d' ' -f1)",
        ),
        ("install", "echo entry=nixos-generation-1.conf"),
    ];
    for (name, script) in all {
        let path = dir.join(name);
        let text = format!(
            "#!/bin/sh\nD={}\necho \"{name} $*\" >>\"$D/asked\"\n{script}\n",
            dir.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// A server that finds the installer's programs in the test's folder.
pub(crate) fn sshd(dir: &Path, authorized_key: &str) -> Child {
    fs::create_dir_all("/run/sshd").unwrap();
    fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
    let at = dir.display();
    fs::write(dir.join("authorized_keys"), authorized_key).unwrap();
    let wrapper = dir.join("wrapper");
    let script = format!(
        "#!/bin/sh\nPATH={at}/bin:$PATH\nexec sh -c \"$(printf %s \"$SSH_ORIGINAL_COMMAND\" | sed 's#/run/undercroft/#{at}/run/#g; s#/undercroft/#{at}/#g; s#/run/undercroft-command#{at}/now#g; s#/proc/mounts#{at}/mounts#g')\"\n"
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        dir.join("sshd_config"),
        format!(
            "ListenAddress 127.0.0.1:22
HostKey {at}/host
AuthorizedKeysFile {at}/authorized_keys
ForceCommand {at}/wrapper
PidFile none
StrictModes no
UsePAM no
LogLevel VERBOSE
PermitRootLogin yes
"
        ),
    )
    .unwrap();
    let child = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("sshd.log")).unwrap())
        .spawn()
        .unwrap();
    let until = Instant::now() + LIMIT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, 22)).is_err() {
        assert!(Instant::now() < until, "sshd doesn't listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

pub(crate) fn disk(serial: &str) -> PlannedDisk {
    PlannedDisk {
        identity: DiskIdentity {
            serial: Some(serial.into()),
            wwn: None,
        },
        role: DiskRole::Root,
        size_bytes_min: 1 << 30,
        table_guid: MachineUuid([7; 16]),
    }
}

pub(crate) fn plan(action: Action, known: &(Vec<MacAddr>, Option<MachineUuid>)) -> Plan {
    let destroys = match &action {
        Action::Partition { disks, .. } => disks.iter().map(|d| d.identity.clone()).collect(),
        _ => vec![],
    };
    let step = Step {
        id: StepId(0),
        node: node(),
        requires: NodeState::Unknown,
        reaches: NodeState::Seen,
        action,
        after: vec![],
        after_settled: vec![],
        resource: None,
        timeout_ms: 60_000,
        retry: RetryPolicy {
            attempts_max: 1,
            backoff_ms: 1,
            backoff_ms_max: 1,
        },
        destroys,
        delivers_secrets: false,
        probe_first: false,
        restart_from: None,
    };
    let planned = NodePlan {
        macs: known.0.clone(),
        uuid: known.1,
        address: Ipv4Addr::LOCALHOST,
        system: System::X86_64Linux,
        target: Some(SystemTarget {
            toplevel: TOPLEVEL.into(),
            disko_script: None,
            disko_mount_script: None,
            disko_devices: None,
            system: System::X86_64Linux,
            closure_bytes: None,
        }),
        generation: 0,
        steps: vec![StepId(0)],
        not_applicable: BTreeMap::new(),
    };
    Plan {
        id: PlanId("test".into()),
        version: PLAN_VERSION,
        parent: None,
        fleet: "basement".into(),
        inventory_digest: String::new(),
        limits: PlanLimits {
            concurrency: BTreeMap::new(),
            failure_budget: 0,
            node_restarts_max: 0,
        },
        cluster: None,
        wave: None,
        nodes: BTreeMap::from([(node(), planned)]),
        steps: vec![step],
    }
}

pub(crate) fn inspect() -> Action {
    Action::Inspect {
        disks: vec![disk("S1")],
        system: System::X86_64Linux,
        memory_mb_min: 1024,
    }
}

pub(crate) fn partition(serial: &str) -> Action {
    Action::Partition {
        disks: vec![disk(serial)],
        layout: Layout::Ext4,
        disko_script: None,
        disko_mount_script: None,
        disko_devices: None,
    }
}

pub(crate) fn approve() -> Action {
    Action::Approve {
        mode: ApprovalMode::Console,
        expires_ms: 60_000,
    }
}

pub(crate) fn install(bench: &Bench) -> Action {
    Action::Install {
        toplevel: TOPLEVEL.into(),
        host_key_fingerprint: bench.final_key.fingerprint(),
    }
}

pub(crate) fn evidence(outcome: Outcome) -> Evidence {
    match outcome {
        Outcome::Done { evidence } => evidence,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed { failure } => failure,
        other => panic!("{other:?}"),
    }
}
