//! A PC's local cluster: k3d's configuration file, and what goes with it.

use serde_json::{Value, json};
use undercroft_model::{PcName, inventory::Inventory};

use crate::{Lock, Minor, Problem, tree, yaml};

/// Name of k3d's configuration file, in the folder of the dev tree.
pub const K3D_FILE: &str = "k3d.yaml";
/// Name of the script that a node of k3d runs before k3s, in the folder of the dev tree.
pub const K3D_MOUNTS: &str = "k3d-mounts.sh";
/// Where that script must lie in a node: k3d runs everything of this form.
const K3D_MOUNTS_IN_NODE: &str = "/bin/k3d-entrypoint-mounts.sh";
/// Longest name of a k3d cluster: the names of its containers are host names.
const K3D_NAME_MAX: usize = 32;
/// Port of the PC at which the API is reached, on loopback alone.
const API_PORT: &str = "6550";
/// Ports of the PC at which the cluster's pages are reached, on loopback alone.
const HTTP_PORTS: [(&str, &str); 2] = [("8080", "80"), ("8443", "443")];

/// A PC's local cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevCluster {
    /// Name of the cluster.
    pub name: String,
    /// Name of its context in the kubeconfig: never that of the fleet's cluster.
    pub context: String,
    /// k3d's configuration file.
    pub config: String,
    /// The script with the mounts that Cilium needs in each node; it is to be executable.
    pub mounts: String,
    /// Arguments of `k3d` that make the cluster, where the folder of the files stands as `{dir}`.
    pub create: Vec<String>,
}

/// Makes the files of a local cluster: for a certain PC, or for any.
///
/// # Errors
/// When the inventory has no such PC, or its owner wants no local cluster on it.
pub fn dev_cluster(
    inventory: &Inventory,
    lock: &Lock,
    pc: Option<&PcName>,
) -> Result<DevCluster, Problem> {
    let fleet = &inventory.fleet.name;
    let wanted = match pc {
        Some(name) => {
            let entry = inventory.pcs.get(name).ok_or_else(|| {
                let names: Vec<&str> = inventory.pcs.keys().map(PcName::as_str).collect();
                Problem::new("unknown-name", format!("there is no PC `{name}`"))
                    .in_inventory(&["pcs"])
                    .hint(if names.is_empty() {
                        format!("Add [pcs.{name}].")
                    } else {
                        format!("There are {}.", names.join(", "))
                    })
            })?;
            if !entry.dev_cluster {
                return Err(Problem::new(
                    "no-dev-cluster",
                    format!("the PC {name} is to have no local cluster"),
                )
                .in_inventory(&["pcs", name.as_str(), "dev_cluster"])
                .hint(format!(
                    "Take pcs.{name}.dev_cluster = false out of the inventory."
                )));
            }
            format!("{fleet}-{name}")
        }
        None => format!("{fleet}-dev"),
    };
    let short: String = wanted.chars().take(K3D_NAME_MAX).collect();
    let name = short.trim_end_matches('-').to_owned();
    let config = config(inventory, lock, &name);
    let text = yaml::print(&config).map_err(|e| Problem::new("yaml", e.message))?;
    let advice = "Don't edit: change undercroft.toml and run `undercroft dev config` again.";
    Ok(DevCluster {
        context: format!("k3d-{name}"),
        config: format!("{}{text}", tree::head(advice)),
        mounts: mounts(),
        create: [
            "cluster",
            "create",
            "--config",
            &format!("{{dir}}/{K3D_FILE}"),
            "--volume",
            &format!("{{dir}}/{K3D_MOUNTS}:{K3D_MOUNTS_IN_NODE}@server:*"),
        ]
        .map(str::to_owned)
        .to_vec(),
        name,
    })
}

/// The image of k3s: of the same minor version as the fleet's. A full version is taken as it is;
/// a minor version alone means k3s' channel of that name, which k3d looks up (k3d 5.1).
fn image(inventory: &Inventory, lock: &Lock) -> String {
    let version = inventory.kubernetes.version.as_deref();
    let version = version.or(lock.kubernetes.as_deref());
    match version {
        Some(full) if full.split('.').count() == 3 => {
            format!("docker.io/rancher/k3s:v{full}-k3s1")
        }
        Some(minor) => Minor::parse(minor).map_or("+stable".to_owned(), |m| format!("+v{m}")),
        None => "+stable".to_owned(),
    }
}

fn config(inventory: &Inventory, lock: &Lock, name: &str) -> Value {
    let kubernetes = &inventory.kubernetes;
    let servers = json!(["server:*"]);
    // What production's k3s is started with, save that local volumes and k3s' own load balancer
    // stay: a laptop has neither Longhorn nor addresses to announce.
    let args = [
        "--flannel-backend=none".to_owned(),
        "--disable-network-policy".to_owned(),
        "--disable-kube-proxy".to_owned(),
        "--disable=traefik".to_owned(),
        format!("--cluster-cidr={}", kubernetes.pod_cidr),
        format!("--service-cidr={}", kubernetes.service_cidr),
        format!("--cluster-domain={}", kubernetes.cluster_domain),
    ];
    let args: Vec<Value> = args
        .into_iter()
        .map(|arg| json!({ "arg": arg, "nodeFilters": servers }))
        .collect();
    let ports: Vec<Value> = HTTP_PORTS
        .iter()
        .map(|(host, node)| {
            json!({ "port": format!("127.0.0.1:{host}:{node}"), "nodeFilters": ["loadbalancer"] })
        })
        .collect();
    let mut config = json!({
        "apiVersion": "k3d.io/v1alpha5",
        "kind": "Simple",
        "metadata": { "name": name },
        "servers": 1,
        "agents": 0,
        "image": image(inventory, lock),
        "kubeAPI": { "hostIP": "127.0.0.1", "hostPort": API_PORT },
        "ports": ports,
        "options": {
            // Nothing is ready before there is a network, and Cilium comes after the cluster.
            "k3d": { "wait": false, "disableLoadbalancer": false },
            "k3s": {
                "extraArgs": args,
                "nodeLabels": [{ "label": "undercroft.dev/dev=true", "nodeFilters": servers }],
            },
            // The context is added under a name of its own, and the one in use stays in use.
            "kubeconfig": { "updateDefaultKubeconfig": true, "switchCurrentContext": false },
        },
    });
    let mirrors: Value = kubernetes
        .registry_mirrors
        .iter()
        .map(|(host, urls)| (host.clone(), json!({ "endpoint": urls })))
        .collect();
    if mirrors
        .as_object()
        .is_some_and(|mirrors| !mirrors.is_empty())
        && let Ok(text) = yaml::print(&json!({ "mirrors": mirrors }))
    {
        crate::values::set(&mut config, &["registries", "config"], text.into());
    }
    config
}

/// The mounts that Cilium needs to be shared in a node: eBPF's file system and a cgroup tree.
fn mounts() -> String {
    format!(
        "#!/bin/sh\n\
         {head}\
         # A node of k3d runs this before k3s: Cilium needs these two mounts to be shared.\n\
         set -eu\n\
         if ! grep -q ' /sys/fs/bpf bpf ' /proc/mounts; then\n\
         \x20 mount -t bpf bpf /sys/fs/bpf\n\
         fi\n\
         mount --make-shared /sys/fs/bpf\n\
         mkdir -p /run/cilium/cgroupv2\n\
         if ! grep -q ' /run/cilium/cgroupv2 cgroup2 ' /proc/mounts; then\n\
         \x20 mount -t cgroup2 none /run/cilium/cgroupv2\n\
         fi\n\
         mount --make-shared /run/cilium/cgroupv2\n",
        head = tree::head("Don't edit.").replace("undercroft render", "undercroft dev config"),
    )
}
