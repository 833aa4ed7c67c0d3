//! The machines of examples/basement, their secrets, and the controller before them.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use undercroft_engine::{NodeFacts, Order, World as _};
use undercroft_journal::Store;
use undercroft_kube::{API_PORT, Access, Cluster};
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

use crate::machine::{Machine, Spec, run};

/// How long founding or joining may take; it takes a minute on two busy cores.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
/// The machines that take part.
pub(crate) const MACHINES: [&str; 4] = ["control-01", "control-02", "control-03", "gpu-01"];

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// The example's inventory, whose secrets the fleet's own identity opens.
fn inventory() -> Inventory {
    let file = repository().join("examples/basement/undercroft.toml");
    let parsed = parse("undercroft.toml", &fs::read(file).unwrap());
    let mut inventory = parsed.inventory.unwrap();
    inventory.secrets.operators.clear();
    inventory
}

/// What the Nix library makes of each machine of the example, evaluated now.
fn evaluated() -> Value {
    let repository = repository().canonicalize().unwrap();
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--readonly-mode"])
        .arg(repository.join("nix/tests/golden.nix"))
        .args(["-A", "nodes", "--arg", "src"])
        .arg(repository.join("examples/basement"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nix-instantiate: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
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
    inventory: Inventory,
    vault: Vault,
    plan: Arc<Plan>,
    machines: BTreeMap<String, Machine>,
    evaluated: Value,
    world: MetalWorld,
    outcomes: mpsc::UnboundedReceiver<(OpId, Outcome)>,
    next_op: u64,
}

impl Fleet {
    /// Boots the machines, each with the secrets that are its own.
    pub(crate) fn boot() -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(
            "ip link add rack0 type bridge && ip address add 10.20.0.2/22 dev rack0 && ip link set rack0 up",
        );
        let inventory = inventory();
        let identities = identities(dir.path());
        let vault = Vault::open(dir.path(), &inventory, identities.clone())
            .unwrap()
            .agreeing(Consent::Given);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        vault.init(now.as_secs()).unwrap();
        let store = Store::create(&dir.path().join("journal"), "basement").unwrap();
        let parts = WorldParts {
            room: Arc::new(NoRoom),
            host_keys: HostKeys::open(&dir.path().join("secrets"), &[], identities).unwrap(),
            operator: operator(dir.path()),
            stores: BTreeMap::new(),
            options: InstallOptions::default(),
            cluster: ClusterParts::default(),
            encryption_keys: None,
            progress: Arc::new(|_| {}),
        };
        let (world, outcomes) = MetalWorld::new(parts, &store).unwrap();
        let mut fleet = Self {
            plan: Arc::new(the_plan(&inventory)),
            inventory,
            vault,
            machines: BTreeMap::new(),
            evaluated: evaluated(),
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
        let dir = self.dir.path();
        let host_keys = HostKeys::open(&dir.join("secrets"), &[], identities(dir)).unwrap();
        let host_key = host_keys.private(&name(machine)).unwrap();
        let spec = Spec {
            name: machine,
            address: self.address(machine),
            host_key: host_key.expose_secret(),
            authorized_key: &operator(dir).authorized_key,
            join: self.script(machine, "cluster-join-k3s"),
            leave: self.script(machine, "cluster-leave-k3s"),
            k3s: self.words(machine),
            server: self.server(machine),
            // The API's name, which a DNS server has in a real fleet.
            hosts: format!("{} k8s.basement.example", self.address("control-01")),
            secrets: self.secrets(machine),
        };
        let booted = Machine::boot(&dir.join(machine), &spec);
        self.machines.insert(machine.to_owned(), booted);
    }

    /// A setting of the cluster's that the machine was given.
    fn setting(&self, machine: &str, key: &str) -> &Value {
        &self.evaluated[machine]["settings"]["kubernetes"][key]
    }

    fn is_agent(&self, machine: &str) -> bool {
        self.setting(machine, "role") == "agent"
    }

    fn is_founder(&self, machine: &str) -> bool {
        self.setting(machine, "founder") == true
    }

    /// Where the machine joins, as nix/modules/kubernetes/bootstrap.nix has it.
    fn server(&self, machine: &str) -> String {
        let url = self.setting(machine, "serverUrl").as_str();
        match url {
            _ if self.is_founder(machine) => String::new(),
            Some(url) if self.is_agent(machine) => url.to_owned(),
            _ => {
                let address = self.setting(machine, "founderAddress");
                format!("https://{}:{API_PORT}", address.as_str().unwrap())
            }
        }
    }

    /// The words of k3s' unit: those of nixpkgs' module, and the flags of
    /// nix/modules/kubernetes/k3s.nix. No kubelet comes up here: servers have none, and an agent's
    /// finds no container runtime.
    pub(crate) fn words(&self, machine: &str) -> Vec<String> {
        let flags = self.evaluated[machine]["derived"]["k3sFlags"].as_array();
        let flags = flags
            .unwrap()
            .iter()
            .map(|f| f.as_str().unwrap().to_owned());
        let mut words: Vec<String> = Vec::new();
        if self.is_agent(machine) {
            words.extend(["agent", "--server", "@SERVER@"].map(str::to_owned));
            words.extend(["--token-file", "/run/secrets/k3s/agent_token"].map(str::to_owned));
            words.extend(flags);
            words.push("--container-runtime-endpoint=unix:///run/no-runtime.sock".to_owned());
            return words;
        }
        words.push("server".to_owned());
        if !self.is_founder(machine) {
            words.extend(["--server", "@SERVER@"].map(str::to_owned));
        }
        words.extend(["--token-file", "/run/secrets/k3s/server_token"].map(str::to_owned));
        if self.is_founder(machine) {
            words.push("--cluster-init".to_owned());
        }
        words.extend(flags);
        words.push("--agent-token-file=/run/secrets/k3s/agent_token".to_owned());
        words.push("--disable-agent".to_owned());
        words
    }

    /// A script with what its module puts before it (nix/modules/kubernetes/bootstrap.nix).
    fn script(&self, machine: &str, script: &str) -> String {
        let servers = &self.plan.cluster.as_ref().unwrap().servers;
        let others: Vec<String> = servers
            .iter()
            .filter(|(name, _)| name.as_str() != machine)
            .map(|(name, address)| format!("{name}={address}"))
            .collect();
        let (role, token) = if self.is_agent(machine) {
            ("agent", "agent_token")
        } else {
            ("server", "server_token")
        };
        let limit_s = LIMIT.as_secs().saturating_sub(60).to_string();
        let mut shell = String::new();
        for (key, value) in [
            ("NODE", machine),
            ("ROLE", role),
            ("FOUNDER", if self.is_founder(machine) { "1" } else { "" }),
            ("OTHERS", &others.join(" ")),
            ("JOIN_LIMIT_S", &limit_s),
            ("SECRETS", "/run/secrets"),
            ("ADDRESS", &self.address(machine).to_string()),
            ("SERVER", &self.server(machine)),
            ("TOKEN_FILE", &format!("/run/secrets/k3s/{token}")),
            ("VIP", ""),
            ("VIP_FOUNDING", ""),
            ("PAUSE_S", "0.5"),
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

    /// The secrets of k3s that the machine can open, as sops-nix installs them.
    fn secrets(&self, machine: &str) -> Vec<(String, String)> {
        let mine = ["agents.sops.yaml", "servers.sops.yaml"];
        let mine = if self.is_agent(machine) {
            &mine[..1]
        } else {
            &mine[..]
        };
        let files = self.vault.files().iter();
        files
            .filter(|file| mine.contains(&file.path.as_str()))
            .flat_map(|file| &file.secrets)
            .filter(|secret| secret.name.starts_with("k3s/"))
            .map(|secret| (secret.name.clone(), self.secret(&secret.name)))
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

    pub(crate) fn machine(&self, name: &str) -> &Machine {
        &self.machines[name]
    }

    /// Starts the first step of a machine that has an action of this kind.
    pub(crate) fn start(&mut self, machine: &str, action: &Action, work: Work) {
        let mut plan = Plan::clone(&self.plan);
        let verb = action.verb();
        let step = plan
            .steps
            .iter_mut()
            .find(|step| step.node == name(machine) && step.action.verb() == verb)
            .unwrap();
        step.action = action.clone();
        let step = step.id;
        self.next_op += 1;
        let order = Order {
            op: OpId(self.next_op),
            plan: Arc::new(plan),
            step,
            node: name(machine),
            work,
            attempt: 1,
            timeout_ms: u64::try_from(LIMIT.as_millis()).unwrap(),
            facts: NodeFacts::default(),
        };
        self.world.start(order);
    }

    /// What a step came to.
    pub(crate) async fn ended(&mut self, machine: &str) -> Outcome {
        let ended = tokio::time::timeout(LIMIT + Duration::from_secs(30), self.outcomes.recv());
        let outcome = ended.await.unwrap().unwrap().1;
        if let Outcome::Failed { .. } | Outcome::TimedOut = &outcome {
            println!("{machine}: {outcome:?}\n{}", self.machine(machine).logs());
        }
        outcome
    }

    /// Founds or joins, with the machine's kubelet played where it has none.
    pub(crate) async fn bring_in(&mut self, machine: &str, action: &Action) -> Outcome {
        self.start(machine, action, Work::Act);
        self.play_kubelet(machine).await;
        self.ended(machine).await
    }

    pub(crate) async fn probe(&mut self, machine: &str, action: &Action) -> Outcome {
        self.start(machine, action, Work::Probe);
        self.ended(machine).await
    }

    /// A client with the credentials that k3s wrote for a server's administrator.
    pub(crate) fn api(&self, server: &str) -> Option<Cluster> {
        let kubeconfig = self.machine(server).run("cat /etc/undercroft/kubeconfig");
        let text = String::from_utf8(kubeconfig.stdout).unwrap();
        let access = Access::of_kubeconfig(&SecretString::from(text)).ok()?;
        let address = IpAddr::V4(self.address(server));
        Some(Cluster::at(&access, address, API_PORT).unwrap())
    }

    /// Waits until a server's API is ready.
    pub(crate) async fn api_is_ready(&self, server: &str) -> Cluster {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(api) = self.api(server)
                && api.ready().await.is_ok()
            {
                return api;
            }
            let logs = || self.machine(server).logs();
            assert!(
                Instant::now() < until,
                "{server}'s API isn't ready: {}",
                logs()
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// What a kubelet does first: it registers its node in the boot that it is in. A server's
    /// kubelet has its credentials from k3s by then, an agent's gets them from a server.
    async fn play_kubelet(&self, machine: &str) {
        let credentials = "/var/lib/rancher/k3s/agent/kubelet.kubeconfig";
        let it = self.machine(machine);
        if self.is_agent(machine) {
            until(LIMIT, "an agent with credentials", || {
                it.run(&format!("test -s {credentials}")).status.success()
            })
            .await;
        } else {
            self.api_is_ready(machine).await;
            it.says(&format!(
                "mkdir -p $(dirname {credentials}) && cp /etc/undercroft/kubeconfig {credentials}"
            ));
        }
        let version = self.api_is_ready("control-01").await.version().await;
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": machine, "labels": { "kubernetes.io/hostname": machine } },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": self.address(machine) }],
                "nodeInfo": {
                    "architecture": "amd64", "bootID": format!("boot-of-{machine}"),
                    "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
                    "kubeletVersion": version.unwrap(), "machineID": "",
                    "operatingSystem": "linux", "osImage": "", "systemUUID": "",
                },
            },
        });
        until(LIMIT, "a node that is registered", || {
            let create = format!(
                "k3s kubectl --kubeconfig {credentials} create -f - <<'NODE'\n{node}\nNODE"
            );
            let created = it.run(&create);
            let errors = String::from_utf8_lossy(&created.stderr);
            created.status.success() || errors.contains("AlreadyExists")
        })
        .await;
    }
}

fn identities(dir: &Path) -> IdentitySource {
    IdentitySource {
        state_dir: dir.join("state"),
        identity_files: vec![],
        well_known: false,
    }
}

fn operator(dir: &Path) -> OperatorKey {
    OperatorKey::ensure(&dir.join("state"), "basement").unwrap()
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
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
