//! The machines of examples/kubeadm, their secrets, and the controller before them.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use undercroft_engine::{NodeFacts, Order, World as _};
use undercroft_journal::Store;
use undercroft_metal::world::{
    ClusterParts, Facilities, InstallOptions, MetalWorld, Pending, WorldParts,
};
use undercroft_model::{
    Action, Failure, NodeName, Observation, OpId, Outcome, Plan, SystemTarget, Work,
    inventory::{Inventory, parse},
};
use undercroft_planner::plan;
use undercroft_rack::ConsoleIdentity;
use undercroft_secrets::Vault;
use undercroft_secrets::keys::{Consent, HostKeys, IdentitySource, OperatorKey};
use undercroft_testkit::repository;

use crate::{
    documents::{of_the_example, text},
    machine::{Machine, Spec, run},
};

/// How long founding or joining may take; it takes half a minute on two busy cores.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);
/// The machines that take part.
pub(crate) const MACHINES: [&str; 3] = ["head-01", "head-02", "h100-01"];

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// The example's inventory, whose secrets the fleet's own identity opens.
pub(crate) fn inventory() -> Inventory {
    let file = repository().join("examples/kubeadm/undercroft.toml");
    let text = fs::read_to_string(file).unwrap();
    let operators = text
        .lines()
        .find(|line| line.starts_with("operators = "))
        .unwrap();
    let parsed = parse("undercroft.toml", text.replace(operators, "").as_bytes());
    parsed.inventory.unwrap()
}

struct NoRoom;

impl Facilities for NoRoom {
    fn offer(&self, _: &NodeName, _: bool) -> Result<(), Failure> {
        Ok(())
    }
    fn boot_from_network<'a>(
        &'a self,
        _: &'a NodeName,
    ) -> Pending<'a, Result<Option<String>, Failure>> {
        Box::pin(async { Ok(None) })
    }
    fn console_identity<'a>(
        &'a self,
        _: &'a NodeName,
    ) -> Pending<'a, Result<Option<ConsoleIdentity>, Failure>> {
        Box::pin(async { Ok(None) })
    }
    fn console_name(&self, _: &NodeName) -> String {
        "none".to_owned()
    }
}

pub(crate) struct Fleet {
    dir: TempDir,
    pub(crate) inventory: Inventory,
    pub(crate) vault: Vault,
    plan: Arc<Plan>,
    machines: BTreeMap<String, Machine>,
    documents: BTreeMap<String, Value>,
    world: MetalWorld,
    outcomes: mpsc::UnboundedReceiver<(OpId, Outcome)>,
    next_op: u64,
}

impl Fleet {
    /// Boots the machines, each with the secrets that are its own.
    pub(crate) fn boot() -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(
            "ip link add rack0 type bridge && ip address add 10.44.0.2/24 dev rack0 && ip link set rack0 up",
        );
        let inventory = inventory();
        let identities = IdentitySource {
            state_dir: dir.path().join("state"),
            identity_files: vec![],
            well_known: false,
        };
        let vault = Vault::open(dir.path(), &inventory, identities.clone())
            .unwrap()
            .agreeing(Consent::Given);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        vault.init(now.as_secs()).unwrap();
        let operator = OperatorKey::ensure(&dir.path().join("state"), "hall-4").unwrap();
        let host_keys =
            || HostKeys::open(&dir.path().join("secrets"), &[], identities.clone()).unwrap();
        let store = Store::create(&dir.path().join("journal"), "hall-4").unwrap();
        let parts = WorldParts {
            room: Arc::new(NoRoom),
            host_keys: host_keys(),
            operator,
            stores: BTreeMap::new(),
            options: InstallOptions::default(),
            cluster: ClusterParts::default(),
            encryption_keys: None,
            progress: Arc::new(|_| ()),
        };
        let (world, outcomes) = MetalWorld::new(parts, &store).unwrap();
        let mut fleet = Self {
            plan: Arc::new(the_plan(&inventory)),
            inventory,
            vault,
            machines: BTreeMap::new(),
            documents: of_the_example(),
            world,
            outcomes,
            next_op: 0,
            dir,
        };
        for machine in MACHINES {
            fleet.boot_machine(machine);
        }
        fleet
    }

    fn boot_machine(&mut self, machine: &str) {
        let document = &self.documents[machine];
        let address = self.inventory.nodes[&name(machine)].address;
        let state = self.dir.path().join("state");
        let operator = OperatorKey::ensure(&state, "hall-4").unwrap();
        let identities = IdentitySource {
            state_dir: state,
            identity_files: vec![],
            well_known: false,
        };
        let host_keys = HostKeys::open(&self.dir.path().join("secrets"), &[], identities).unwrap();
        let host_key = host_keys.private(&name(machine)).unwrap();
        let spec = Spec {
            name: machine,
            address,
            host_key: host_key.expose_secret(),
            authorized_key: &operator.authorized_key,
            join: self.script(machine, "cluster-join-kubeadm"),
            leave: self.script(machine, "cluster-leave-kubeadm"),
            files: self.files(document),
        };
        let folder = self.dir.path().join(machine);
        let machine = Machine::boot(&folder, &spec);
        self.machines.insert(spec.name.to_owned(), machine);
    }

    /// A script with what its module puts before it (nix/modules/kubernetes/bootstrap.nix).
    fn script(&self, machine: &str, script: &str) -> String {
        let document = &self.documents[machine];
        let founder = document["founder"] == true;
        let others: Vec<String> = self
            .plan
            .cluster
            .as_ref()
            .unwrap()
            .servers
            .iter()
            .filter(|(name, _)| name.as_str() != machine)
            .map(|(name, address)| format!("{name}={address}"))
            .collect();
        let server = match text(document, "role") {
            _ if founder => String::new(),
            "agent" => text(document, "serverUrl").to_owned(),
            _ => format!("https://{}:6443", text(document, "founderAddress")),
        };
        let mut shell = String::new();
        for (key, value) in [
            ("NODE", machine),
            ("ROLE", text(document, "role")),
            ("FOUNDER", if founder { "1" } else { "" }),
            ("OTHERS", &others.join(" ")),
            ("JOIN_LIMIT_S", "120"),
            ("SECRETS", "/run/secrets"),
            ("ADDRESS", text(document, "address")),
            ("SERVER", &server),
            ("VIP", ""),
            ("VIP_FOUNDING", ""),
            ("PAUSE_S", "0.3"),
        ] {
            shell.push_str(&format!(
                "export UNDERCROFT_{key}=\"${{UNDERCROFT_{key}:-{value}}}\"\n"
            ));
        }
        for part in ["cluster-lib", script] {
            let file = repository().join(format!("nix/modules/scripts/{part}.sh"));
            shell.push_str(&fs::read_to_string(file).unwrap());
        }
        shell
    }

    /// What the machine's system has in its files: those of kubeadm, and the secrets that
    /// nix/modules/secrets.nix wants for it.
    fn files(&self, document: &Value) -> Vec<(String, String)> {
        let hosts = format!(
            "127.0.0.1 localhost\n127.0.0.2 {}\n10.44.0.11 api.hall-4.example\n",
            text(document, "name")
        );
        let mut files = vec![
            ("etc/hosts".to_owned(), hosts),
            (
                "etc/undercroft/kubeadm/join.json".to_owned(),
                text(document, "join").to_owned(),
            ),
        ];
        let mut wanted = vec!["kubeadm/ca_cert_hash".to_owned()];
        if text(document, "role") == "server" {
            files.push((
                "etc/undercroft/kubeadm/init.yaml".to_owned(),
                text(document, "init").to_owned(),
            ));
            let servers = self.vault.files().iter();
            let servers = servers.filter(|file| file.path == "servers.sops.yaml");
            wanted.extend(
                servers
                    .flat_map(|file| &file.secrets)
                    .map(|secret| secret.name.clone())
                    .filter(|name| name.starts_with("kubeadm/")),
            );
        }
        for secret in wanted {
            let value = self.secret(&secret);
            files.push((format!("run/secrets/{secret}"), value));
        }
        files
    }

    /// A secret in plain text.
    pub(crate) fn secret(&self, name: &str) -> String {
        let secret = self.vault.get(name).unwrap().unwrap();
        secret.expose_secret().to_owned()
    }

    pub(crate) fn machine(&self, name: &str) -> &Machine {
        &self.machines[name]
    }

    /// Starts a step of the plan.
    fn start(&mut self, machine: &str, wanted: impl Fn(&Action) -> bool, work: Work) {
        let step = self
            .plan
            .steps
            .iter()
            .find(|step| step.node == name(machine) && wanted(&step.action))
            .unwrap()
            .id;
        self.next_op += 1;
        let order = Order {
            op: OpId(self.next_op),
            plan: Arc::clone(&self.plan),
            step,
            node: name(machine),
            work,
            attempt: 1,
            timeout_ms: u64::try_from(LIMIT.as_millis()).unwrap(),
            facts: NodeFacts::default(),
        };
        self.world.start(order);
    }

    /// Carries a step of the plan out, or probes it.
    pub(crate) async fn carry_out(
        &mut self,
        machine: &str,
        wanted: impl Fn(&Action) -> bool,
        work: Work,
    ) -> Outcome {
        self.start(machine, wanted, work);
        let ended = tokio::time::timeout(LIMIT + Duration::from_secs(30), self.outcomes.recv());
        let outcome = ended.await.unwrap().unwrap().1;
        // Shown where the test fails for it.
        if let Outcome::Failed { .. } | Outcome::TimedOut = &outcome {
            for (name, machine) in &self.machines {
                println!("==== {name}\n{}", machine.logs());
            }
        }
        outcome
    }
}

/// The plan for the whole fleet, none of which has been looked at.
fn the_plan(inventory: &Inventory) -> Plan {
    let mut observation = Observation::default();
    for (name, node) in &inventory.nodes {
        let target = SystemTarget {
            toplevel: format!("/nix/store/0c0vdzlgl5n8kbzvxjmmdhdnjgcl7c6x-{name}"),
            disko_script: None,
            disko_mount_script: None,
            disko_devices: None,
            system: node.system,
            closure_bytes: None,
        };
        observation.targets.insert(name.clone(), Ok(target));
        let key = format!("SHA256:key-of-{name}");
        observation.host_keys.insert(name.clone(), key);
    }
    plan(inventory, &observation, None).0
}

/// Waits until something holds.
pub(crate) async fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
