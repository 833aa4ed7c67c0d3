//! What the tests of the components share: inventories, rendered values, and where the charts'
//! own files are found.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::string_slice,
    reason = "tests, which read files and the environment; each of them uses a part of this"
)]

pub(crate) mod helm;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;
use undercroft_model::inventory::{self, Inventory};
use undercroft_render::{Lock, Problem, RenderInput, Tree, render, yaml};
use undercroft_testkit::{charts, schemas};

/// A fleet that has everything that a component may look at, but for the head of its
/// `[kubernetes]` table, its `[gitops]` table and what else a test adds.
const FLEET: &str = r#"
[fleet]
name = "cellar"

[network]
node_cidr = "10.20.0.0/22"
server_address = "10.20.0.2"

[network.overlay]
kind = "headscale"
server_url = "https://headscale.cellar.example"
base_domain = "net.cellar.example"

[lending]
enabled = true
nats_url = "tls://nats.cellar.example:4222"
tenants = ["research"]
server_key = "UCZ6VTJTIM5TDNJFENIQGLE3HZ5C46VHOOGV33G7BXLMMJUAQU6ANX4L"
server_image = "registry.cellar.example/lending-server"

[lending.submitters.ci]
nkey = "UANRLCBZ7CVDHHUJXNILCYB6SDWGRYH5KVS74EFHZMZHFH6564DQVGKZ"
tenant = "research"
brings = "public"

[users.kim]

[pcs.kims]
os = "linux"
system = "x86_64-linux"
users = ["kim"]

[pcs.kims.lend]
enabled = true
nkey = "UD664QYNIC6VPXXKYGDM3F4QAM6Q6BXZBGUIA3T443TRPK34PVICTSWH"
owner_key = "UBGBAKLJP3RVQ4K5HIKKFLOYC7CLAFSRIQG6QCBXD54BMWWJBXCYCPAP"

[classes.control]
kind = "control"
layout = "ext4"
longhorn = { partition_gb = 100 }
taints = ["node-role.kubernetes.io/control-plane:NoSchedule"]

[classes.slices]
kind = "gpu"
gpu = { model = "rtx-4090", count = 2, sharing = "time-slicing", replicas = 4 }
taints = ["cellar.example/gpu=yes:NoSchedule", "cellar.example/soft=yes:PreferNoSchedule"]
longhorn = { reserved_percent = 15 }

[classes.instances]
kind = "gpu"
gpu = { model = "a100-80gb", sharing = "mig", mig_config = "all-1g.10gb" }

[classes.servers]
kind = "gpu"
gpu = { model = "rtx-4090", sharing = "mps", replicas = 8 }

[classes.phones]
kind = "phone-host"

[classes.pi]
kind = "pi"
role = "agent"
hats = ["hailo-8"]

[nodes.control-01]
class = "control"
macs = ["3c:ec:ef:10:00:01"]
address = "10.20.0.11"
disks = [{ serial = "A1" }]

[nodes.control-02]
class = "control"
macs = ["3c:ec:ef:10:00:02"]
address = "10.20.0.12"
disks = [{ serial = "A2" }]

[nodes.control-03]
class = "control"
macs = ["3c:ec:ef:10:00:03"]
address = "10.20.0.13"
disks = [{ serial = "A3" }]

[nodes.slices-01]
class = "slices"
macs = ["3c:ec:ef:10:00:04"]
address = "10.20.1.1"
disks = [{ serial = "A4" }, { serial = "B4", role = "longhorn", size_gb = 1000 }]

[nodes.instances-01]
class = "instances"
macs = ["3c:ec:ef:10:00:05"]
address = "10.20.1.2"
disks = [{ serial = "A5" }]

[nodes.servers-01]
class = "servers"
macs = ["3c:ec:ef:10:00:06"]
address = "10.20.1.3"
disks = [{ serial = "A6" }]

[nodes.phones-01]
class = "phones"
macs = ["3c:ec:ef:10:00:07"]
address = "10.20.2.1"
disks = [{ serial = "A7" }]

[nodes.pi-01]
class = "pi"
macs = ["3c:ec:ef:10:00:08"]
address = "10.20.2.2"
disks = [{ serial = "A8" }]
"#;

/// Keys of `[kubernetes]` that both distributions share.
pub(crate) const KUBERNETES: &str = r#"
founder = "control-01"
version = "1.34"
virtual_ip = "10.20.0.10"
api_endpoint = "k8s.cellar.example"
load_balancer_cidrs = ["10.20.3.0/24"]
"#;

/// All components that one tree can have.
pub(crate) const GITOPS: &str = r#"
[gitops]
repository = "https://git.cellar.example/fleet.git"
ingress_domain = "apps.cellar.example"
components = [
  "cilium", "longhorn", "nvidia-device-plugin", "node-feature-discovery", "cert-manager",
  "prometheus", "grafana", "loki", "alloy", "nats", "lending-server", "headscale", "hat-device-plugin", "kubevirt",
]
"#;

/// Reads an inventory that is without errors.
pub(crate) fn read(text: &str) -> Inventory {
    let parsed = inventory::parse("undercroft.toml", text.as_bytes());
    let findings: Vec<String> = parsed
        .diagnostics
        .iter()
        .map(|d| d.message.clone())
        .collect();
    parsed.inventory.unwrap_or_else(|| panic!("{findings:?}"))
}

/// The fleet under a distribution, with further text.
pub(crate) fn fleet(distribution: &str, more: &str) -> Inventory {
    read(&format!(
        "{FLEET}\n[kubernetes]\ndistribution = \"{distribution}\"\n{KUBERNETES}\n{more}"
    ))
}

/// The tree of an inventory, for the cluster or for a PC.
pub(crate) fn try_tree(
    inventory: &Inventory,
    lock: &Lock,
    dev: bool,
) -> Result<Tree, Vec<Problem>> {
    render(&RenderInput {
        inventory,
        lock,
        apps: &[],
        overrides: &BTreeMap::new(),
        dev: dev.then_some("dev"),
        standing: None,
    })
}

/// The tree of an inventory with the versions that the program brings.
pub(crate) fn tree(inventory: &Inventory, dev: bool) -> Tree {
    try_tree(inventory, &lock_for(inventory), dev).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The versions that the program brings, and where the inventory says that an image is.
pub(crate) fn lock_for(inventory: &Inventory) -> Lock {
    let mut lock = Lock::defaults();
    lock.complete_for(inventory);
    lock
}

/// The trees that between them hold every component and every branch in it, by name.
pub(crate) fn trees() -> Vec<(&'static str, Tree)> {
    let vault = format!(
        "{GITOPS}\n[secrets]\nbackend = \"vault\"\nvault_url = \"https://vault.cellar.example\"\n"
    );
    let sealed = format!("{GITOPS}\n[secrets]\nbackend = \"sealed-secrets\"\n");
    vec![
        ("k3s", tree(&fleet("k3s", GITOPS), false)),
        ("kubeadm", tree(&fleet("kubeadm", GITOPS), false)),
        ("vault", tree(&fleet("k3s", &vault), false)),
        ("sealed", tree(&fleet("kubeadm", &sealed), false)),
        ("one machine", tree(&one_machine(), false)),
        ("dev", tree(&fleet("k3s", GITOPS), true)),
    ]
}

/// A single machine without a disk for Longhorn, without pages and without lending.
pub(crate) fn one_machine() -> Inventory {
    read(
        r#"
[fleet]
name = "shed"
[network]
node_cidr = "10.0.0.0/24"
server_address = "10.0.0.2"
[kubernetes]
distribution = "k3s"
version = "1.34"
founder = "box"
[gitops]
repository = "https://git.shed.example/fleet.git"
[classes.box]
kind = "control"
layout = "ext4"
[nodes.box]
class = "box"
macs = ["3c:ec:ef:10:00:01"]
address = "10.0.0.11"
disks = [{ serial = "A1" }]
"#,
    )
}

/// The Helm values of a component, where the tree has it with a chart.
pub(crate) fn values(tree: &Tree, component: &str) -> Option<Value> {
    let end = format!("/components/{component}/values.yaml");
    let (_, text) = tree.files.iter().find(|(path, _)| path.ends_with(&end))?;
    Some(yaml::parse(text).unwrap())
}

/// The Helm values of a component that the tree must have.
pub(crate) fn must(tree: &Tree, component: &str) -> Value {
    values(tree, component).unwrap_or_else(|| panic!("no values of {component}"))
}

/// Every object of every manifest in the tree, but for Applications.
pub(crate) fn objects(tree: &Tree) -> Vec<Value> {
    let manifests = tree
        .files
        .iter()
        .filter(|(path, _)| path.contains("/components/") && path.contains("/manifests/"));
    manifests
        .flat_map(|(_, text)| text.split("\n---\n"))
        .filter(|document| {
            document
                .lines()
                .any(|line| !line.trim().is_empty() && !line.starts_with('#') && line != "---")
        })
        .map(|document| yaml::parse(document).unwrap())
        .collect()
}

/// The object of a kind and a name.
pub(crate) fn object(tree: &Tree, kind: &str, name: &str) -> Option<Value> {
    objects(tree)
        .into_iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A component's chart, as a test knows it.
pub(crate) struct KnownChart {
    /// Name of the component.
    pub(crate) component: &'static str,
    /// Its values file in the folder of schemas, where it has one there.
    pub(crate) values: Option<&'static str>,
    /// Its JSON Schema in the folder of schemas, where it has one there.
    pub(crate) schema: Option<&'static str>,
    /// Tables of the chart's values that take any keys, and keys that its values file doesn't
    /// have though its templates read them; each with why.
    pub(crate) more: &'static [(&'static str, &'static str)],
}

impl KnownChart {
    /// The folder of the chart in `UNDERCROFT_CHARTS`, by the locked name and version.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        let lock = Lock::defaults();
        let locked = &lock.components[self.component];
        let chart = locked.chart.as_deref().unwrap();
        let folder = charts().ok()?.join(format!("{chart}-{}", locked.version));
        folder.is_dir().then_some(folder)
    }

    /// The text of one of the chart's files, from either place.
    pub(crate) fn read(&self, in_schemas: Option<&str>, in_chart: &str) -> Option<String> {
        let here = in_schemas.and_then(|file| Some(schemas().ok()?.join(file)));
        let there = || self.folder().map(|folder| folder.join(in_chart));
        let file = here.filter(|f| f.is_file()).or_else(there)?;
        std::fs::read_to_string(file).ok()
    }
}

/// Why a path isn't in the values file, for the many of one kind.
const FREE: &str = "a table of Kubernetes' own that takes any keys; the chart fills in some";
const SUBCHART: &str = "values of a chart that this one depends on";

/// Every chart that a component uses.
pub(crate) const CHARTS: &[KnownChart] = &[
    KnownChart {
        component: "alloy",
        values: None,
        schema: None,
        more: &[],
    },
    KnownChart {
        component: "argo-cd",
        values: Some("argocd/argo-cd-10.1.1-values.yaml"),
        schema: None,
        more: &[
            ("configs.cm.*", "every key of argocd-cm is taken over"),
            (
                "configs.params.*",
                "every key of argocd-cmd-params-cm is taken over",
            ),
            ("redis-ha.*", SUBCHART),
        ],
    },
    KnownChart {
        component: "cert-manager",
        values: None,
        schema: None,
        more: &[],
    },
    KnownChart {
        component: "cilium",
        values: Some("cilium/cilium-1.20.0-values.yaml"),
        schema: Some("cilium/cilium-1.20.0-values.schema.json"),
        more: &[],
    },
    KnownChart {
        component: "external-secrets",
        values: None,
        schema: None,
        more: &[],
    },
    KnownChart {
        component: "grafana",
        values: None,
        schema: None,
        more: &[(
            "grafana\\.ini.*",
            "every section of Grafana's own configuration",
        )],
    },
    KnownChart {
        component: "loki",
        values: None,
        schema: Some("observability/loki-18.11.0-values.schema.json"),
        more: &[
            (
                "loki.limits_config.*",
                "every key of Loki's own configuration",
            ),
            (
                "loki.storage_config.*",
                "every key of Loki's own configuration",
            ),
            (
                "loki.commonConfig.*",
                "every key of Loki's own configuration",
            ),
            ("loki.server.*", "every key of Loki's own configuration"),
            ("minio.*", SUBCHART),
            ("rollout_operator.*", SUBCHART),
        ],
    },
    KnownChart {
        component: "longhorn",
        values: Some("longhorn/longhorn-1.12.1-values.yaml"),
        schema: None,
        more: &[],
    },
    KnownChart {
        component: "nats",
        values: Some("nats/nats-2.14.2-values.yaml"),
        schema: None,
        more: &[],
    },
    KnownChart {
        component: "node-feature-discovery",
        values: None,
        schema: None,
        more: &[
            (
                "master.config.*",
                "NFD's own configuration; empty in the values file",
            ),
            (
                "worker.config.*",
                "NFD's own configuration; empty in the values file",
            ),
            (
                "topologyUpdater.config.*",
                "NFD's own configuration; empty in the values file",
            ),
        ],
    },
    KnownChart {
        component: "nvidia-device-plugin",
        values: Some("nvidia/nvidia-device-plugin-0.20.0-values.yaml"),
        schema: None,
        more: &[("nfd.*", SUBCHART), ("affinity.*", FREE)],
    },
    KnownChart {
        component: "prometheus",
        values: Some("observability/kube-prometheus-stack-88.5.3-values.yaml"),
        schema: None,
        more: &[
            ("grafana.*", SUBCHART),
            ("kube-state-metrics.*", SUBCHART),
            ("prometheus-node-exporter.*", SUBCHART),
            ("prometheus-windows-exporter.*", SUBCHART),
            ("alertmanager.config.*", "Alertmanager's own configuration"),
        ],
    },
    KnownChart {
        component: "sealed-secrets",
        values: None,
        schema: None,
        more: &[],
    },
];
