//! The world's actions against a real OpenSSH server with a made-up installer behind it: what is
//! sent when, and what each way of failing is called.
//!
//! The server needs port 22, so each test runs in a network namespace of its own; that takes root.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on stops"
)]

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

use age::secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::sync::mpsc;
use undercroft_engine::{NodeFacts, Order, World};
use undercroft_metal::{
    approval, clock,
    journal::Store,
    keys::{HostKeys, IdentitySource, OperatorKey},
    rack::ConsoleIdentity,
    ssh::HostKey,
    world::{InstallOptions, MachineRoom, MetalWorld, Pending, Progress, WorldParts},
};
use undercroft_model::{
    Action, Approval, ApprovalMode, DiskIdentity, Evidence, Failure, FailureKind,
    INSTALLER_REPORT_VERSION, InstallerReport, MacAddr, MachineUuid, NodeName, NodePlan, NodeState,
    OpId, Outcome, PLAN_VERSION, Plan, PlanId, PlanLimits, PlannedDisk, ReportedDisk,
    ReportedFirmware, RetryPolicy, Step, StepId, System, SystemTarget, Work,
};

const LIMIT: Duration = Duration::from_secs(90);
const INSIDE: &str = "UNDERCROFT_TEST_INSIDE";
const TOPLEVEL: &str = "/nix/store/00000000000000000000000000000000-nixos-system-gpu-01";
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

/// Runs a test of this file in a network namespace of its own. True inside of it.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        return true;
    }
    if !rustix::process::getuid().is_root() {
        println!("SKIPPED: an SSH server on port 22 of a namespace needs root");
        return false;
    }
    if !Path::new("/usr/sbin/sshd").exists() {
        println!("SKIPPED: /usr/sbin/sshd is not installed (package openssh-server)");
        return false;
    }
    let inner = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(
        inner.status.success(),
        "{test} failed inside of its namespace:\n{}{}",
        String::from_utf8_lossy(&inner.stdout),
        String::from_utf8_lossy(&inner.stderr)
    );
    false
}

fn keygen(path: &Path) -> HostKey {
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
struct FakeRoom {
    console: Mutex<Option<ConsoleIdentity>>,
    offered: Mutex<Vec<bool>>,
    boots: Mutex<u32>,
}

impl MachineRoom for FakeRoom {
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
struct Bench {
    dir: TempDir,
    sshd: Child,
    room: Arc<FakeRoom>,
    world: MetalWorld,
    outcomes: mpsc::UnboundedReceiver<(OpId, Outcome)>,
    told: Arc<Mutex<Vec<Progress>>>,
    report: InstallerReport,
    final_key: HostKey,
    next_op: u64,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn node() -> NodeName {
    NodeName::new("gpu-01").unwrap()
}

impl Bench {
    fn new() -> Self {
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
        let room = Arc::new(FakeRoom::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let parts = WorldParts {
            room: room.clone(),
            host_keys,
            operator,
            stores: BTreeMap::new(),
            options: InstallOptions::default(),
            progress: Arc::new(move |p| sink.lock().unwrap().push(p)),
        };
        let (world, outcomes) = MetalWorld::new(parts, &store).unwrap();
        Self {
            dir,
            sshd,
            room,
            world,
            outcomes,
            told,
            report,
            final_key,
            next_op: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the programs on the machine were asked, one command a line.
    fn asked(&self) -> String {
        fs::read_to_string(self.path("asked")).unwrap_or_default()
    }

    fn facts(&self) -> NodeFacts {
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
        }
    }

    fn order(&mut self, action: Action, work: Work, facts: NodeFacts) -> Order {
        self.next_op += 1;
        Order {
            op: OpId(self.next_op),
            plan: Arc::new(plan(action)),
            step: StepId(0),
            node: node(),
            work,
            attempt: 1,
            timeout_ms: u64::try_from(LIMIT.as_millis()).unwrap(),
            facts,
        }
    }

    async fn carry_out(&mut self, action: Action, work: Work, facts: NodeFacts) -> Outcome {
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

    async fn act(&mut self, action: Action) -> Outcome {
        let facts = self.facts();
        self.carry_out(action, Work::Act, facts).await
    }
}

fn report(key: &HostKey) -> InstallerReport {
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
fn programs(dir: &Path, report: &InstallerReport) {
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
fn sshd(dir: &Path, authorized_key: &str) -> Child {
    fs::create_dir_all("/run/sshd").unwrap();
    fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
    let at = dir.display();
    fs::write(dir.join("authorized_keys"), authorized_key).unwrap();
    let wrapper = dir.join("wrapper");
    let script = format!(
        "#!/bin/sh\nexec sh -c \"$(printf %s \"$SSH_ORIGINAL_COMMAND\" | sed 's#/undercroft/#{at}/#g; s#/run/undercroft-command#{at}/now#g')\"\n"
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

fn disk(serial: &str) -> PlannedDisk {
    PlannedDisk {
        identity: DiskIdentity {
            serial: Some(serial.into()),
            wwn: None,
        },
        role: "root".into(),
        size_bytes_min: 1 << 30,
        table_guid: MachineUuid([7; 16]),
    }
}

fn plan(action: Action) -> Plan {
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
        macs: vec![MAC],
        uuid: None,
        address: Ipv4Addr::LOCALHOST,
        system: System::X86_64Linux,
        target: Some(SystemTarget {
            toplevel: TOPLEVEL.into(),
            disko_script: None,
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
        nodes: BTreeMap::from([(node(), planned)]),
        steps: vec![step],
    }
}

fn inspect() -> Action {
    Action::Inspect {
        disks: vec![disk("S1")],
        system: System::X86_64Linux,
        memory_mb_min: 1024,
    }
}

fn partition(serial: &str) -> Action {
    Action::Partition {
        disks: vec![disk(serial)],
        layout: "ext4".into(),
        disko_script: None,
    }
}

fn approve() -> Action {
    Action::Approve {
        mode: ApprovalMode::Console,
        expires_ms: 60_000,
    }
}

fn install(bench: &Bench) -> Action {
    Action::Install {
        toplevel: TOPLEVEL.into(),
        host_key_fingerprint: bench.final_key.fingerprint(),
    }
}

fn evidence(outcome: Outcome) -> Evidence {
    match outcome {
        Outcome::Done { evidence } => evidence,
        other => panic!("{other:?}"),
    }
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed { failure } => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_machine_is_booted_approved_by_its_console_and_inspected() {
    if !inside("a_machine_is_booted_approved_by_its_console_and_inspected") {
        return;
    }
    let mut bench = Bench::new();
    // An installer of an earlier boot still reports; it is not what the step waits for.
    let mut earlier = bench.report.clone();
    earlier.boot_id = "an-earlier-boot".into();
    bench.world.reported(&node(), earlier);
    let order = bench.order(Action::NetworkBoot, Work::Act, NodeFacts::default());
    bench.world.start(order);
    let until = Instant::now() + LIMIT;
    while *bench.room.boots.lock().unwrap() == 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(bench.world.reported(&node(), bench.report.clone()));
    assert!(!bench.world.reported(&node(), bench.report.clone()));
    let (_, outcome) = tokio::time::timeout(LIMIT, bench.outcomes.recv())
        .await
        .unwrap()
        .unwrap();
    let Evidence::Seen { report } = evidence(outcome) else {
        panic!("not seen");
    };
    assert_eq!(*report, bench.report);
    assert_eq!(*bench.room.offered.lock().unwrap(), [true]);

    *bench.room.console.lock().unwrap() = Some(ConsoleIdentity {
        fingerprint: report.fingerprint.clone(),
        nonce: report.nonce.clone(),
        boot_id: report.boot_id.clone(),
        address: Ipv4Addr::LOCALHOST.into(),
    });
    let Evidence::Approved { approval } = evidence(bench.act(approve()).await) else {
        panic!("not approved");
    };
    assert_eq!(approval.by, "test console");
    let Evidence::Inspected { disk_paths, .. } = evidence(bench.act(inspect()).await) else {
        panic!("not inspected");
    };
    assert_eq!(disk_paths, ["/dev/vda"]);
}

#[tokio::test]
async fn an_operators_approval_from_another_process_is_picked_up() {
    if !inside("an_operators_approval_from_another_process_is_picked_up") {
        return;
    }
    let mut bench = Bench::new();
    let state = bench.path("state");
    let action = Action::Approve {
        mode: ApprovalMode::Operator,
        expires_ms: 60_000,
    };
    let facts = bench.facts();
    let probed = bench
        .carry_out(action.clone(), Work::Probe, facts.clone())
        .await;
    assert_eq!(probed, Outcome::NotDone);
    let order = bench.order(action.clone(), Work::Act, facts);
    bench.world.start(order);
    let until = Instant::now() + LIMIT;
    let waiting = loop {
        let pending = approval::pending(&state).unwrap();
        if let Some(waiting) = pending.into_iter().next() {
            break waiting;
        }
        assert!(Instant::now() < until, "nothing waits for an approval");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let approve = |fingerprint: &str| {
        approval::approve(&state, &node(), fingerprint, "ada", clock::wall_ms_now())
    };
    assert!(approve("SHA256:another").is_err());
    approve(&waiting.report.fingerprint).unwrap();
    let (_, outcome) = tokio::time::timeout(LIMIT, bench.outcomes.recv())
        .await
        .unwrap()
        .unwrap();
    let Evidence::Approved { approval } = evidence(outcome) else {
        panic!("not approved");
    };
    assert_eq!(approval.by, "operator ada");
    assert_eq!(approval::pending(&state).unwrap(), []);

    // Once the installer is gone, there is nothing left to approve.
    bench.sshd.kill().unwrap();
    bench.sshd.wait().unwrap();
    let mut facts = bench.facts();
    let stranger = keygen(&bench.path("stranger"));
    let report = facts.report.as_mut().unwrap();
    report.host_key = stranger.to_string();
    report.fingerprint = stranger.fingerprint();
    let gone = failure(bench.carry_out(action, Work::Probe, facts).await);
    assert_eq!(gone.kind, FailureKind::Transient, "{gone:?}");
}

#[tokio::test]
async fn a_report_that_the_console_contradicts_is_refused() {
    if !inside("a_report_that_the_console_contradicts_is_refused") {
        return;
    }
    let mut bench = Bench::new();
    let shown = ConsoleIdentity {
        fingerprint: "SHA256:somethingelse".into(),
        nonce: bench.report.nonce.clone(),
        boot_id: bench.report.boot_id.clone(),
        address: Ipv4Addr::LOCALHOST.into(),
    };
    *bench.room.console.lock().unwrap() = Some(shown);
    let refused = failure(bench.act(approve()).await);
    assert_eq!(refused.kind, FailureKind::Refused);
    let both = [bench.report.fingerprint.as_str(), "SHA256:somethingelse"];
    assert!(
        both.iter().all(|f| refused.message.contains(f)),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn a_wrong_serial_is_refused_before_anything_that_writes_is_run() {
    if !inside("a_wrong_serial_is_refused_before_anything_that_writes_is_run") {
        return;
    }
    let mut bench = Bench::new();
    let refused = failure(bench.act(partition("S2")).await);
    assert_eq!(refused.kind, FailureKind::Refused, "{refused:?}");
    assert!(!bench.asked().contains("partition"), "{}", bench.asked());
    let done = evidence(bench.act(partition("S1")).await);
    assert!(matches!(done, Evidence::Partitioned { wiped: true, .. }));
    assert!(
        bench
            .asked()
            .contains("partition --disk S1 --layout ext4 --disk-guid 07070707-")
    );
}

#[tokio::test]
async fn another_boot_and_another_key_than_approved_are_a_lost_precondition() {
    if !inside("another_boot_and_another_key_than_approved_are_a_lost_precondition") {
        return;
    }
    let mut bench = Bench::new();
    let mut facts = bench.facts();
    facts.report.as_mut().unwrap().boot_id = "the-boot-that-was-approved".into();
    let lost = failure(bench.carry_out(partition("S1"), Work::Act, facts).await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost, "{lost:?}");

    let stranger = keygen(&bench.path("stranger"));
    let mut facts = bench.facts();
    let (report, approval) = (
        facts.report.as_mut().unwrap(),
        facts.approval.as_mut().unwrap(),
    );
    report.host_key = stranger.to_string();
    report.fingerprint = stranger.fingerprint();
    approval.fingerprint = stranger.fingerprint();
    let lost = failure(bench.carry_out(partition("S1"), Work::Act, facts).await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost, "{lost:?}");
    assert!(!bench.asked().contains("partition"), "{}", bench.asked());
}

#[tokio::test]
async fn an_installed_machine_that_shows_another_host_key_is_refused() {
    if !inside("an_installed_machine_that_shows_another_host_key_is_refused") {
        return;
    }
    let mut bench = Bench::new();
    let prove = Action::Prove {
        toplevel: TOPLEVEL.into(),
        host_key_fingerprint: bench.final_key.fingerprint(),
    };
    // Without a report of an installer the key that is shown is a stranger's.
    let outcome = bench
        .carry_out(prove.clone(), Work::Act, NodeFacts::default())
        .await;
    let refused = failure(outcome);
    assert_eq!(refused.kind, FailureKind::Refused, "{refused:?}");
    let both = [&bench.final_key.fingerprint(), &bench.report.fingerprint];
    assert!(both.iter().all(|f| refused.message.contains(*f)));
    // With one it is the installer's own, which has not been left.
    let lost = failure(bench.act(prove).await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost, "{lost:?}");
}

#[tokio::test]
async fn no_secret_is_sent_before_the_approval_and_none_is_kept_afterwards() {
    if !inside("no_secret_is_sent_before_the_approval_and_none_is_kept_afterwards") {
        return;
    }
    let mut bench = Bench::new();
    let action = install(&bench);
    let mut facts = bench.facts();
    facts.approval = None;
    let lost = failure(bench.carry_out(action.clone(), Work::Act, facts).await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost);
    let mut facts = bench.facts();
    facts.approval.as_mut().unwrap().fingerprint = "SHA256:another".into();
    failure(bench.carry_out(action.clone(), Work::Act, facts).await);
    assert_eq!(bench.asked(), "");

    let facts = bench.facts();
    let probed = bench.carry_out(action.clone(), Work::Probe, facts).await;
    assert_eq!(probed, Outcome::NotDone);
    let done = evidence(bench.act(action).await);
    assert!(
        matches!(done, Evidence::Installed { default_entry, .. } if default_entry == "nixos-generation-1.conf")
    );

    // The key arrived whole, and is nowhere else: not in the database, not in what was told, not
    // in a command, and not in the outcome.
    let delivered = fs::read_to_string(bench.path("delivered-ssh_host_ed25519_key")).unwrap();
    let private = HostKeys::open(
        &bench.path("secrets"),
        &[],
        IdentitySource {
            state_dir: bench.path("state"),
            identity_files: vec![],
            well_known: false,
        },
    )
    .unwrap()
    .private(&node())
    .unwrap();
    assert_eq!(delivered, private.expose_secret());
    let secret = delivered.lines().nth(3).unwrap().to_owned();
    let told = format!("{:?}", bench.told.lock().unwrap());
    assert!(!told.contains(&secret) && !bench.asked().contains(&secret));
    for file in fs::read_dir(bench.path("state")).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_cancelled_operation_gives_no_outcome_and_the_next_waits_for_its_command() {
    if !inside("a_cancelled_operation_gives_no_outcome_and_the_next_waits_for_its_command") {
        return;
    }
    let mut bench = Bench::new();
    // The command outlives its connection, as on a machine whose network went away.
    let slow = format!(
        "#!/bin/sh\ntrap '' HUP PIPE\ntouch {0}/begun\nsleep 3\ntouch {0}/ended\necho state=created\n",
        bench.dir.path().display()
    );
    fs::write(bench.path("partition"), slow).unwrap();
    let facts = bench.facts();
    let order = bench.order(partition("S1"), Work::Act, facts);
    let op = order.op;
    bench.world.start(order);
    let until = Instant::now() + LIMIT;
    while !bench.path("begun").exists() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.world.cancel(op);
    let done = bench.act(inspect()).await;
    assert!(
        bench.path("ended").exists(),
        "the next command ran beside the one before it"
    );
    assert!(matches!(evidence(done), Evidence::Inspected { .. }));
    assert!(bench.outcomes.try_recv().is_err());
}
