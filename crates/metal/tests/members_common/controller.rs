//! The controller before the machines of an example, and their secrets.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use undercroft_engine::{NodeFacts, Order, World as _};
use undercroft_journal::Store;
use undercroft_metal::world::{ClusterParts, InstallOptions, MetalWorld, WorldParts};
use undercroft_model::{
    Action, NodeName, Observation, OpId, Outcome, Plan, SystemTarget, Work,
    inventory::{Inventory, parse},
};
use undercroft_planner::plan;
use undercroft_secrets::Vault;
use undercroft_secrets::keys::{Consent, HostKeys, IdentitySource, OperatorKey};
use undercroft_testkit::repository;

use super::machine::{Machine, Spec, System, run};
use super::no_facilities::NoFacilities;

/// How often [`until`] looks.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// Waits until something holds.
pub(crate) async fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// What a machine is in its cluster, by what the Nix library says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    /// `server` or `agent`.
    pub(crate) role: &'a str,
    pub(crate) founds: bool,
    /// Where it joins, if it does.
    pub(crate) server: &'a str,
}

/// The machines of an example that were booted, and the world that works on them.
pub(crate) struct Controller {
    dir: TempDir,
    pub(crate) inventory: Inventory,
    pub(crate) vault: Vault,
    plan: Arc<Plan>,
    machines: BTreeMap<String, Machine>,
    world: MetalWorld,
    outcomes: mpsc::UnboundedReceiver<(OpId, Outcome)>,
    next_op: u64,
    limit: Duration,
}

impl Controller {
    /// The controller of an example's fleet, with new secrets that the fleet's own identity opens. `limit`
    /// is how long a step may take.
    pub(crate) fn of_example(example: &str, limit: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = repository().join(format!("examples/{example}/undercroft.toml"));
        let parsed = parse("undercroft.toml", &fs::read(file).unwrap());
        let mut inventory = parsed.inventory.unwrap();
        inventory.secrets.operators.clear();
        let network = &inventory.network;
        run(&format!(
            "ip link add rack0 type bridge && ip address add {}/{} dev rack0 && ip link set rack0 up",
            network.server_address,
            network.node_cidr.prefix_len()
        ));
        let fleet = inventory.fleet.name.clone();
        let vault = Vault::open(dir.path(), &inventory, identities(&dir))
            .unwrap()
            .agreeing(Consent::Given);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        vault.init(now.as_secs()).unwrap();
        let store = Store::create(&dir.path().join("journal"), &fleet).unwrap();
        let parts = WorldParts {
            facilities: Arc::new(NoFacilities),
            host_keys: host_keys(&dir),
            operator: operator(&dir, &fleet),
            stores: BTreeMap::new(),
            options: InstallOptions::default(),
            cluster: ClusterParts::default(),
            encryption_keys: None,
            progress: Arc::new(|_| ()),
        };
        let (world, outcomes) = MetalWorld::new(parts, &store).unwrap();
        Self {
            plan: Arc::new(the_plan(&inventory)),
            dir,
            inventory,
            vault,
            machines: BTreeMap::new(),
            world,
            outcomes,
            next_op: 0,
            limit,
        }
    }

    /// Boots a machine of the fleet with these files and that system. `join` and `leave` are the shell of
    /// its unit and of its `cluster-leave`, as [`Self::script`] gives them.
    pub(crate) fn boot(
        &mut self,
        machine: &str,
        (join, leave): (String, String),
        files: Vec<(String, String)>,
        system: System,
    ) {
        let host_key = host_keys(&self.dir).private(&name(machine)).unwrap();
        let network = &self.inventory.network;
        let spec = Spec {
            name: machine,
            address: self.address(machine),
            prefix_len: network.node_cidr.prefix_len(),
            controller: network.server_address,
            host_key: host_key.expose_secret(),
            authorized_key: &operator(&self.dir, &self.inventory.fleet.name).authorized_key,
            join,
            leave,
            files,
            system,
        };
        let booted = Machine::boot(&self.dir.path().join(machine), &spec);
        self.machines.insert(machine.to_owned(), booted);
    }

    /// A script with what its module puts before it (nix/modules/kubernetes/bootstrap.nix), and more of its
    /// variables.
    pub(crate) fn script(
        &self,
        machine: &str,
        member: Member<'_>,
        script: &str,
        more: &[(&str, &str)],
    ) -> String {
        let servers = &self.plan.cluster.as_ref().unwrap().servers;
        let others: Vec<String> = servers
            .iter()
            .filter(|(name, _)| name.as_str() != machine)
            .map(|(name, address)| format!("{name}={address}"))
            .collect();
        let (others, address) = (others.join(" "), self.address(machine).to_string());
        // The machine itself says what went wrong before the step's time is over.
        let limit_s = (self.limit / 2).as_secs().to_string();
        let variables = [
            ("NODE", machine),
            ("ROLE", member.role),
            ("FOUNDER", if member.founds { "1" } else { "" }),
            ("OTHERS", &others),
            ("JOIN_LIMIT_S", &limit_s),
            ("SECRETS", "/run/secrets"),
            ("ADDRESS", &address),
            ("SERVER", member.server),
            ("VIP", ""),
            ("VIP_FOUNDING", ""),
            ("PAUSE_S", "0.3"),
        ];
        let mut shell = String::new();
        for (key, value) in variables.iter().chain(more) {
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

    /// The names of the secrets of a file that begin so.
    pub(crate) fn secrets_of(&self, file: &str, prefix: &str) -> Vec<String> {
        let files = self.vault.files().iter();
        files
            .filter(|one| one.path == file)
            .flat_map(|one| &one.secrets)
            .map(|secret| secret.name.clone())
            .filter(|name| name.starts_with(prefix))
            .collect()
    }

    /// A secret in plain text.
    pub(crate) fn secret(&self, name: &str) -> String {
        let secret = self.vault.get(name).unwrap().unwrap();
        secret.expose_secret().to_owned()
    }

    pub(crate) fn address(&self, machine: &str) -> Ipv4Addr {
        self.inventory.nodes[&name(machine)].address
    }

    /// Where a machine's own files of the test lie.
    pub(crate) fn folder(&self, machine: &str) -> std::path::PathBuf {
        self.dir.path().join(machine)
    }

    pub(crate) fn machine(&self, name: &str) -> &Machine {
        &self.machines[name]
    }

    /// The first action of a machine's that a test picks.
    pub(crate) fn action(&self, machine: &str, wanted: impl Fn(&Action) -> bool) -> Action {
        let node = name(machine);
        let mut steps = self.plan.steps.iter();
        let step = steps.find(|step| step.node == node && wanted(&step.action));
        step.unwrap().action.clone()
    }

    /// Starts the first step of a machine that has an action of this kind, with this action.
    pub(crate) fn start(&mut self, machine: &str, action: &Action, work: Work) {
        let mut plan = Plan::clone(&self.plan);
        let (node, verb) = (name(machine), action.verb());
        let step = plan
            .steps
            .iter_mut()
            .find(|step| step.node == node && step.action.verb() == verb)
            .unwrap();
        step.action = action.clone();
        let step = step.id;
        self.next_op += 1;
        let order = Order {
            op: OpId(self.next_op),
            plan: Arc::new(plan),
            step,
            node,
            work,
            attempt: 1,
            timeout_ms: u64::try_from(self.limit.as_millis()).unwrap(),
            facts: NodeFacts::default().into(),
            members: Vec::new(),
        };
        self.world.start(order);
    }

    /// What a step came to.
    pub(crate) async fn ended(&mut self) -> Outcome {
        let ended =
            tokio::time::timeout(self.limit + Duration::from_secs(30), self.outcomes.recv());
        let outcome = ended.await.unwrap().unwrap().1;
        // Shown where the test fails for it.
        if let Outcome::Failed { .. } | Outcome::TimedOut = &outcome {
            for (name, machine) in &self.machines {
                println!("==== {name}: {outcome:?}\n{}", machine.logs());
            }
        }
        outcome
    }
}

fn identities(dir: &TempDir) -> IdentitySource {
    IdentitySource {
        state_dir: dir.path().join("state"),
        identity_files: vec![],
        well_known: false,
    }
}

fn host_keys(dir: &TempDir) -> HostKeys {
    HostKeys::open(&dir.path().join("secrets"), &[], identities(dir)).unwrap()
}

fn operator(dir: &TempDir, fleet: &str) -> OperatorKey {
    OperatorKey::ensure(&dir.path().join("state"), fleet).unwrap()
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
