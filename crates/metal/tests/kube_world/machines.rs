//! Machines that have a folder each: a real SSH server in front, programs that the test plays
//! behind, and one real API server that all of them mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use secrecy::ExposeSecret;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use undercroft_engine::{NodeFacts, Order, World};
use undercroft_journal::Store;
use undercroft_kube::{Apply, Cluster, Manifest};
use undercroft_metal::{
    observe::{Looking, observe},
    world::{ClusterParts, InstallOptions, MetalWorld, RunProgress, WorldParts},
};
use undercroft_model::{
    Action, ClusterPlan, GitopsSource, MacAddr, NodeName, NodePlan, NodeState, Observation, OpId,
    Outcome, PLAN_VERSION, Plan, PlanId, PlanLimits, RetryPolicy, Step, StepId, System,
    SystemTarget, Work,
    inventory::{Distribution, Inventory},
    view::FleetView,
};
use undercroft_secrets::keys::{HostKeys, IdentitySource, OperatorKey};
use undercroft_testkit::peer;

use crate::kube_common::{ApiServer, Running, free_port};
use crate::no_facilities::NoFacilities;

pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// The founder's address, at which the API listens.
pub(crate) const FOUNDER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The second server's.
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
pub(crate) const MACHINES: [(&str, Ipv4Addr); 3] = [
    ("control-01", FOUNDER),
    ("control-02", SECOND),
    ("gpu-01", Ipv4Addr::new(127, 0, 0, 4)),
];

/// Runs a test of this file in a network namespace of its own. True inside of it.
pub(crate) fn inside(test: &str) -> bool {
    crate::namespace_common::inside(test, || {
        ["etcd", "etcdctl", "kube-apiserver"]
            .iter()
            .any(|p| peer(p).is_err())
            .then_some("there is no kube-apiserver with etcd; `cargo xtask peers` builds them")
    })
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// The machines, the API server, and the controller before them.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) api: ApiServer,
    pub(crate) world: MetalWorld,
    pub(crate) outcomes: mpsc::UnboundedReceiver<(OpId, Outcome)>,
    pub(crate) told: Arc<Mutex<Vec<RunProgress>>>,
    servers: Vec<Running>,
    next_op: u64,
}

impl Site {
    pub(crate) async fn new(parts: ClusterParts) -> Self {
        Self::at_port(parts, free_port()).await
    }

    /// With the API at a port of the founder's.
    pub(crate) async fn at_port(parts: ClusterParts, port: u16) -> Self {
        Self::with_api_at(FOUNDER, parts, port).await
    }

    /// With the API at a server's address and port.
    pub(crate) async fn with_api_at(server: Ipv4Addr, parts: ClusterParts, port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let api = ApiServer::start_at(server, port).await.unwrap();
        let (operator, host_keys) = keys(dir.path());
        fs::create_dir_all("/run/sshd").unwrap();
        let mut servers = Vec::new();
        for (machine, address) in MACHINES {
            host_keys.ensure(&name(machine)).unwrap();
            let private = host_keys.private(&name(machine)).unwrap();
            let key = operator.authorized_key.clone();
            let folder = path(machine);
            servers.push(start_machine(
                &folder,
                address,
                private.expose_secret(),
                &key,
                &api,
            ));
        }
        let store = Store::create(&path("state"), "basement").unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let parts = WorldParts {
            facilities: Arc::new(NoFacilities),
            host_keys,
            operator,
            stores: BTreeMap::new(),
            options: InstallOptions::default(),
            cluster: ClusterParts {
                api_port: Some(api.port),
                ..parts
            },
            encryption_keys: None,
            progress: Arc::new(move |p| sink.lock().unwrap().push(p)),
        };
        let (world, outcomes) = MetalWorld::new(parts, &store).unwrap();
        Self {
            dir,
            api,
            world,
            outcomes,
            told,
            servers,
            next_op: 0,
        }
    }

    /// What a look at all of it shows.
    pub(crate) async fn observe(
        &self,
        inventory: &Inventory,
        view: &FleetView,
        targets: &BTreeMap<NodeName, Result<SystemTarget, String>>,
    ) -> Observation {
        let (operator, host_keys) = keys(self.dir.path());
        let looking = Looking {
            inventory,
            only: None,
            adopt: &BTreeSet::new(),
            view,
            host_keys: &host_keys,
            identity: &operator.private_file,
            targets,
        };
        observe(looking).await.unwrap()
    }

    pub(crate) fn machine(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a step, without waiting for it.
    pub(crate) fn start(&mut self, machine: &str, action: Action, work: Work) {
        self.start_within(machine, action, work, LIMIT);
    }

    /// Starts a step that may take so long.
    pub(crate) fn start_within(
        &mut self,
        machine: &str,
        action: Action,
        work: Work,
        limit: Duration,
    ) {
        self.next_op += 1;
        let order = Order {
            op: OpId(self.next_op),
            plan: Arc::new(plan(machine, action)),
            step: StepId(0),
            node: name(machine),
            work,
            attempt: 1,
            timeout_ms: u64::try_from(limit.as_millis()).unwrap(),
            facts: NodeFacts::default().into(),
            members: Vec::new(),
        };
        self.world.start(order);
    }

    pub(crate) async fn ended(&mut self) -> Outcome {
        let ended = tokio::time::timeout(LIMIT * 2, self.outcomes.recv()).await;
        ended.unwrap().unwrap().1
    }

    pub(crate) async fn probe(&mut self, machine: &str, action: Action) -> Outcome {
        self.start(machine, action, Work::Probe);
        self.ended().await
    }

    /// Waits until a machine's unit was started, as systemd would see it.
    pub(crate) async fn unit_started(&self, machine: &str) {
        let begun = self.machine(machine).join("started");
        let until = Instant::now() + LIMIT;
        while !begun.exists() {
            assert!(Instant::now() < until, "{machine}'s unit was not started");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Plays what a machine's unit does when it succeeds, and its kubelet's first words.
    pub(crate) async fn play_join(&mut self, machine: &str) {
        let folder = self.machine(machine);
        let is_server = machine.starts_with("control");
        if is_server {
            fs::create_dir_all(folder.join("etc/undercroft")).unwrap();
            fs::write(
                folder.join("etc/undercroft/kubeconfig"),
                self.api.kubeconfig(),
            )
            .unwrap();
        }
        if machine == "control-02" {
            self.servers.push(second_etcd(&folder, self.api.etcd_port));
        }
        let boot_id = fs::read_to_string(folder.join("boot_id")).unwrap();
        register(&self.api, machine, boot_id.trim()).await;
        fs::create_dir_all(folder.join("var/lib/undercroft/cluster")).unwrap();
        fs::write(folder.join("var/lib/undercroft/cluster/joined"), "").unwrap();
        fs::write(folder.join("unit"), "active\n").unwrap();
    }
}

/// The controller's key, and the machines' own.
fn keys(dir: &Path) -> (OperatorKey, HostKeys) {
    let operator = OperatorKey::ensure(&dir.join("state"), "basement").unwrap();
    let identities = IdentitySource {
        state_dir: dir.join("state"),
        identity_files: vec![],
        well_known: false,
    };
    let host_keys = HostKeys::open(&dir.join("secrets"), &[], identities).unwrap();
    (operator, host_keys)
}

/// A kubelet's registration.
pub(crate) async fn register(api: &ApiServer, machine: &str, boot_id: &str) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": machine, "labels": { "kubernetes.io/hostname": machine } },
    });
    let node = Manifest::new("kubelet", node).unwrap();
    let cluster = api.cluster();
    Cluster::persist(Instant::now() + LIMIT, || {
        cluster.apply(&node, "", Apply::Always)
    })
    .await
    .unwrap();
    let status = json!({ "nodeInfo": {
        "architecture": "amd64", "bootID": boot_id, "containerRuntimeVersion": "",
        "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "v1.34.4",
        "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
    }});
    api.set_status("v1/Node", None, machine, status).await;
}

/// An etcd of its own, as somebody has one who founds a second cluster. Gives its clients' port.
pub(crate) fn lone_etcd(folder: &Path) -> (Running, u16) {
    let (client, peer_port) = (free_port(), free_port());
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let mut command = Command::new(peer("etcd").unwrap());
    command
        .args(["--unsafe-no-fsync", "--log-level", "warn"])
        .args(["--listen-client-urls", &url(client)])
        .args(["--advertise-client-urls", &url(client)])
        .args(["--listen-peer-urls", &url(peer_port)])
        .args(["--initial-advertise-peer-urls", &url(peer_port)])
        .args(["--initial-cluster", &format!("default={}", url(peer_port))])
        .arg("--data-dir")
        .arg(folder.join("lone-etcd"));
    let etcd = Running::start(&mut command, &folder.join("lone-etcd.log"));
    (etcd, client)
}

/// A second, real member of etcd, as a second server brings one.
fn second_etcd(folder: &Path, first: u16) -> Running {
    let (client, peer_port) = (free_port(), free_port());
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let output = Command::new(peer("etcdctl").unwrap())
        .args(["--endpoints", &url(first), "member", "add", "control-02"])
        .args(["--peer-urls", &url(peer_port)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let initial = text
        .lines()
        .find_map(|line| line.strip_prefix("ETCD_INITIAL_CLUSTER="))
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let mut command = Command::new(peer("etcd").unwrap());
    command
        .args([
            "--name",
            "control-02",
            "--unsafe-no-fsync",
            "--log-level",
            "warn",
        ])
        .args([
            "--listen-client-urls",
            &url(client),
            "--advertise-client-urls",
            &url(client),
        ])
        .args(["--listen-peer-urls", &url(peer_port)])
        .args(["--initial-advertise-peer-urls", &url(peer_port)])
        .args([
            "--initial-cluster",
            &initial,
            "--initial-cluster-state",
            "existing",
        ])
        .arg("--data-dir")
        .arg(folder.join("etcd"));
    Running::start(&mut command, &folder.join("etcd.log"))
}

fn start_machine(
    folder: &Path,
    address: Ipv4Addr,
    host_key: &str,
    authorized_key: &str,
    api: &ApiServer,
) -> Running {
    let at = folder.display();
    for name in ["bin", "run", "system"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    for link in ["booted-system", "current-system"] {
        symlink(folder.join("system"), folder.join("run").join(link)).unwrap();
    }
    let write = |name: &str, text: &str, mode: u32| {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("host", host_key, 0o600);
    write("authorized_keys", authorized_key, 0o600);
    write(
        "boot_id",
        &format!("boot-of-{}\n", folder.file_name().unwrap().display()),
        0o644,
    );
    write("unit", "inactive\n", 0o644);
    // The machine's own paths lie in its folder.
    write(
        "wrapper",
        &format!(
            "#!/bin/sh
export PATH={at}/bin:$PATH
exec sh -c \"$(printf '%s' \"$SSH_ORIGINAL_COMMAND\" | sed 's#/proc/sys/kernel/random/boot_id#{at}/boot_id#g; s#/etc/\\(undercroft\\|rancher\\|kubernetes\\)#{at}/etc/\\1#g; s#/run/\\(undercroft\\|booted-system\\|current-system\\)#{at}/run/\\1#g; s#/var/lib/#{at}/var/lib/#g')\"
"
        ),
        0o755,
    );
    write(
        "bin/systemctl",
        &format!(
            "#!/bin/sh
case \"$*\" in
show*) cat {at}/unit ;;
restart*cluster-join*) echo activating >{at}/unit; touch {at}/started ;;
restart*) echo \"$*\" >>{at}/restarted ;;
esac
"
        ),
        0o755,
    );
    write(
        "bin/etcdctl",
        &format!(
            "#!/bin/sh
unset ETCDCTL_CACERT ETCDCTL_CERT ETCDCTL_KEY
ETCDCTL_ENDPOINTS=http://127.0.0.1:{} exec {} \"$@\"
",
            api.etcd_port,
            peer("etcdctl").unwrap().display()
        ),
        0o755,
    );
    write(
        "sshd_config",
        &format!(
            "ListenAddress {address}:22
HostKey {at}/host
AuthorizedKeysFile {at}/authorized_keys
ForceCommand {at}/wrapper
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
"
        ),
        0o644,
    );
    let mut command = Command::new("/usr/sbin/sshd");
    command
        .args(["-D", "-e", "-f"])
        .arg(folder.join("sshd_config"));
    let sshd = Running::start(&mut command, &folder.join("sshd.log"));
    let until = Instant::now() + LIMIT;
    while TcpStream::connect((address, 22)).is_err() {
        assert!(Instant::now() < until, "sshd doesn't listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    sshd
}

fn plan(machine: &str, action: Action) -> Plan {
    let address = MACHINES.iter().find(|(n, _)| *n == machine).unwrap().1;
    let step = Step {
        id: StepId(0),
        node: name(machine),
        requires: NodeState::Up,
        reaches: NodeState::Joined,
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
        destroys: vec![],
        delivers_secrets: false,
        probe_first: false,
        restart_from: None,
    };
    let planned = NodePlan {
        macs: vec![MacAddr([0x52, 0x54, 0, 0, 0, 1])],
        uuid: None,
        address,
        system: System::X86_64Linux,
        target: None,
        generation: 0,
        steps: vec![StepId(0)],
        not_applicable: BTreeMap::new(),
    };
    let servers = MACHINES.iter().filter(|(n, _)| n.starts_with("control"));
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
        cluster: Some(ClusterPlan {
            distribution: Distribution::K3s,
            version: None,
            founder: name("control-01"),
            servers: servers.map(|(n, a)| (name(n), *a)).collect(),
            members: BTreeSet::new(),
            gitops: Some(GitopsSource {
                repository: "https://example.org/fleet.git".into(),
                revision: "main".into(),
                path: "gitops".into(),
            }),
        }),
        wave: None,
        nodes: BTreeMap::from([(name(machine), planned)]),
        steps: vec![step],
    }
}
