//! The machines of examples/basement.

use std::{
    net::IpAddr,
    ops::Deref,
    process::Command,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use serde_json::{Value, json};
use undercroft_kube::{API_PORT, Access, Cluster};
use undercroft_model::{Action, Outcome, Work};
use undercroft_testkit::{peer, repository};

use crate::members_common::{Controller, Member, Service, System, until};

/// How long founding or joining may take; it takes a minute on two busy cores.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
/// The machines that take part.
pub(crate) const MACHINES: [&str; 4] = ["control-01", "control-02", "control-03", "gpu-01"];

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

pub(crate) struct Fleet {
    controller: Controller,
    evaluated: Value,
}

impl Deref for Fleet {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        &self.controller
    }
}

impl Fleet {
    /// Boots the machines, each with the secrets that are its own.
    pub(crate) fn boot() -> Self {
        let mut fleet = Self {
            controller: Controller::of_example("basement", LIMIT),
            evaluated: evaluated(),
        };
        for machine in MACHINES {
            let scripts = (
                fleet.script(machine, "cluster-join-k3s"),
                fleet.script(machine, "cluster-leave-k3s"),
            );
            let (files, system) = (fleet.files(machine), fleet.system(machine));
            fleet.controller.boot(machine, scripts, files, system);
        }
        fleet
    }

    /// A machine's system: k3s as a unit, which is started again when it ends.
    fn system(&self, machine: &str) -> System {
        let at = self.folder(machine);
        let at = at.display();
        System {
            programs: vec![
                ("k3s", crate::k3s().unwrap()),
                ("etcdctl", peer("etcdctl").unwrap()),
            ],
            played: vec![("journalctl", format!("tail -n 3 {at}/k3s.log"))],
            fill: "ln -s /etc/rancher/k3s/k3s.yaml etc/undercroft/kubeconfig".to_owned(),
            beside: String::new(),
            service: Service {
                name: "k3s",
                conditions: "[ -e /var/lib/undercroft/cluster/joined -o -e /run/undercroft/cluster/starting ]",
                run: format!(
                    "trap 'exit 0' TERM
while :; do
    UNDERCROFT_SERVER='{}'
    [ ! -e /run/undercroft/cluster/join.env ] || . /run/undercroft/cluster/join.env
    mapfile -t words < {at}/files/run/k3s.words
    k3s \"${{words[@]//@SERVER@/$UNDERCROFT_SERVER}}\" &
    wait $!
    echo \"k3s ended: $?\"
    sleep 1
done
",
                    self.server(machine)
                ),
                stop_tenths: 100,
            },
        }
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

    fn script(&self, machine: &str, script: &str) -> String {
        let (role, token) = if self.is_agent(machine) {
            ("agent", "agent_token")
        } else {
            ("server", "server_token")
        };
        let member = Member {
            role,
            founds: self.is_founder(machine),
            server: &self.server(machine),
        };
        let token = format!("/run/secrets/k3s/{token}");
        let more = [("TOKEN_FILE", token.as_str())];
        self.controller.script(machine, member, script, &more)
    }

    /// A machine's files: the words of its unit, and the secrets of k3s that it can open, as sops-nix
    /// installs them.
    fn files(&self, machine: &str) -> Vec<(String, String)> {
        // The API's name, which a DNS server has in a real fleet.
        let founder = self.address("control-01");
        let hosts = format!("127.0.0.1 localhost\n{founder} k8s.basement.example\n");
        let mut files = vec![
            ("etc/hosts".to_owned(), hosts),
            ("run/k3s.words".to_owned(), self.words(machine).join("\n")),
        ];
        let mut wanted = self.secrets_of("agents.sops.yaml", "k3s/");
        if !self.is_agent(machine) {
            wanted.extend(self.secrets_of("servers.sops.yaml", "k3s/"));
        }
        for secret in wanted {
            files.push((format!("run/secrets/{secret}"), self.secret(&secret)));
        }
        files
    }

    /// Starts the first step of a machine that has an action of this kind.
    pub(crate) fn start(&mut self, machine: &str, action: &Action, work: Work) {
        self.controller.start(machine, action, work);
    }

    /// What a step came to.
    pub(crate) async fn ended(&mut self) -> Outcome {
        self.controller.ended().await
    }

    /// Founds or joins, with the machine's kubelet played where it has none.
    pub(crate) async fn bring_in(&mut self, machine: &str, action: &Action) -> Outcome {
        self.start(machine, action, Work::Act);
        self.play_kubelet(machine).await;
        self.ended().await
    }

    pub(crate) async fn probe(&mut self, machine: &str, action: &Action) -> Outcome {
        self.start(machine, action, Work::Probe);
        self.ended().await
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
