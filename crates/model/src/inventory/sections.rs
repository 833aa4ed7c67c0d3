//! The sections that say things of the fleet as a whole.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{
    declare::{Rule, choice, declared_default, fallback, rule, section},
    forms,
};
use crate::{NodeName, SubmitterName};

choice! {
    /// Who builds the systems of the nodes.
    pub enum Builder {
        /// The flake's NixOS configurations: `nixosConfigurations.NAME`.
        Flake = "flake",
        /// A small NixOS-shaped system made of Debian's packages, for the virtual rack and for
        /// machines without nixpkgs.
        DebianRack = "debian-rack",
    }
}

section! {
    /// The fleet as a whole: its name, who builds its systems, who may log in.
    pub struct Fleet {
        /// Name of the fleet, a DNS label. The journal is bound to it, so that the journal of
        /// one fleet is never carried on with the inventory of another.
        name: String => Rule::Text(&forms::LABEL);
        /// DNS domain under which the nodes' names stand: `NAME.DOMAIN`.
        domain: Option<String> => Rule::Text(&forms::DOMAIN);
        /// Flake that has the nodes' configurations, as Nix writes flake references. A path is
        /// relative to the inventory's folder.
        flake: String = ".".to_owned() => Rule::Text(&forms::FLAKE);
        /// Who builds the systems of the nodes.
        builder: Builder = Builder::Flake;
        /// NixOS release whose stateful defaults the machines were first installed with, such
        /// as "25.11". It becomes `system.stateVersion`, and stays when NixOS is upgraded.
        state_version: String = "25.11".to_owned() => Rule::Text(&forms::RELEASE);
        /// SSH public keys that may log in to every node as root, beside the key that the
        /// command makes for the fleet and keeps in its state folder.
        admin_keys: Vec<String> => Rule::Text(&forms::SSH_KEY);
        /// How much may go on at a time, and how much may fail.
        limits: Limits;
        /// How an action that failed is tried again.
        retries: Retries;
        /// How long each phase of a node may take.
        timeouts: Timeouts;
    }
}

section! {
    /// How much may go on at a time, and how much may fail.
    pub struct Limits {
        /// Machines that may load the installer from this server at the same time.
        network_boots: u32 = 8 => Rule::Range(1, 10_000);
        /// Machines that may be sent a system at the same time.
        closure_copies: u32 = 4 => Rule::Range(1, 10_000);
        /// Machines that may be rebooting into their installed system at the same time.
        reboots: u32 = 4 => Rule::Range(1, 10_000);
        /// Agents that may join the cluster at the same time. Servers always join one by one.
        agent_joins: u32 = 16 => Rule::Range(1, 10_000);
        /// Nodes that may be away at the same time for the sake of an update, those included that are away without it.
        /// Servers are updated one by one in any case. Without the key it is a quarter of the nodes that aren't servers, at
        /// least 1.
        updates: Option<u32> => Rule::Range(1, 10_000);
        /// Nodes that may fail before no further node is started; those under way still finish.
        /// 0 stops at the first failure. Without the key it is a tenth of the nodes, at least 1.
        failure_budget: Option<u32> => Rule::Range(0, 100_000);
        /// Times that a node's work may begin again from network boot before the node is given
        /// up until the next `up`.
        node_restarts: u32 = 3 => Rule::Range(0, 100);
    }
}

section! {
    /// How an action that failed is tried again: the wait doubles from `backoff_s` with each try.
    pub struct Retries {
        /// Tries of an action, the first included.
        attempts: u32 = 3 => Rule::Range(1, 100);
        /// Seconds before the second try.
        backoff_s: u32 = 5 => Rule::Range(0, 3600);
        /// The longest wait between two tries, in seconds.
        backoff_max_s: u32 = 60 => Rule::Range(0, 86_400);
    }
}

section! {
    /// How long each phase of a node may take, in seconds. When a phase ran out of its time it
    /// counts as failed, and is probed before anything is tried again.
    pub struct Timeouts {
        /// From power-on to the installer's report.
        network_boot_s: u32 = 600 => Rule::Range(1, 86_400);
        /// From the installer's report to its approval by an operator.
        approval_s: u32 = 900 => Rule::Range(1, 604_800);
        /// Looking at a machine: disks, firmware, identity.
        inspect_s: u32 = 60 => Rule::Range(1, 86_400);
        /// Partitioning and formatting the disks.
        partition_s: u32 = 300 => Rule::Range(1, 86_400);
        /// Copying the system to the machine.
        copy_s: u32 = 3600 => Rule::Range(1, 604_800);
        /// Installing: keys, profile, boot loader.
        install_s: u32 = 900 => Rule::Range(1, 86_400);
        /// From the reboot to the first SSH connection of the installed system.
        reboot_s: u32 = 600 => Rule::Range(1, 86_400);
        /// Proving that the machine runs what was installed.
        prove_s: u32 = 300 => Rule::Range(1, 86_400);
        /// Evicting the pods of a node that is updated, each as its disruption budget allows.
        drain_s: u32 = 1800 => Rule::Range(1, 604_800);
        /// From the restart of a node that is updated to its own word that it is well with the new system, or has left it.
        confirm_s: u32 = 2400 => Rule::Range(1, 86_400);
        /// From the proof to a joined Kubernetes node.
        join_s: u32 = 900 => Rule::Range(1, 86_400);
        /// From the join to `Ready`.
        ready_s: u32 = 900 => Rule::Range(1, 86_400);
        /// Bringing in the network of the pods, until it is ready on the founder.
        network_s: u32 = 900 => Rule::Range(1, 86_400);
        /// Bringing in the secrets that the cluster's bootstrap needs.
        secrets_s: u32 = 120 => Rule::Range(1, 86_400);
        /// Bringing in Argo CD, until it is healthy.
        argocd_s: u32 = 900 => Rule::Range(1, 86_400);
        /// From Argo CD to the root application that is synced and healthy, with all that it
        /// brings.
        sync_s: u32 = 3600 => Rule::Range(1, 604_800);
    }
}

choice! {
    /// How Undercroft takes part in DHCP on the machines' network.
    pub enum Dhcp {
        /// It is the network's DHCP server: it gives addresses and says what to boot.
        Server = "server",
        /// Another server gives addresses; Undercroft only says what to boot (proxyDHCP).
        Proxy = "proxy",
        /// As `proxy`, and it answers on port 4011 alone, where port 67 is taken.
        Port4011 = "port-4011",
        /// Not at all: the network's own server names the boot file.
        Off = "off",
    }
}

section! {
    /// The network that the nodes are on, and how Undercroft serves it.
    pub struct Network {
        /// IPv4 network of the nodes.
        node_cidr: Ipv4Net;
        /// Address on that network from which Undercroft serves DHCP, TFTP and HTTP.
        server_address: Ipv4Addr;
        /// Network interface of the operator's machine that is on that network. Without it, the
        /// one that has `server_address`.
        interface: Option<String> => Rule::Text(&forms::INTERFACE);
        /// Default gateway of the nodes. Without it they have none.
        gateway: Option<Ipv4Addr>;
        /// DNS servers of the nodes.
        dns: Vec<Ipv4Addr>;
        /// NTP servers of the nodes, by name or address.
        ntp: Vec<String> => Rule::Text(&forms::HOST);
        /// How Undercroft takes part in DHCP.
        dhcp: Dhcp = Dhcp::Server;
        /// Addresses for machines that the inventory doesn't know, while they are discovered.
        /// Only where `dhcp` is "server".
        dhcp_range: Option<DhcpRange>;
        /// TCP port of the HTTP server.
        http_port: u16 = 8080 => Rule::Range(1, 65_535);
        /// TCP port at `server_address` at which `undercroft serve` gives its numbers to
        /// Prometheus. Without it, it gives none, and the tree has no rules of it.
        metrics_port: Option<u16> => Rule::Range(1, 65_535);
        /// The overlay network over which people reach the fleet.
        overlay: Overlay;
    }
}

section! {
    /// A run of addresses, both ends included.
    pub struct DhcpRange {
        /// The first address.
        first: Ipv4Addr;
        /// The last address.
        last: Ipv4Addr;
    }
}

choice! {
    /// Who controls the overlay network.
    pub enum OverlayKind {
        /// There is no overlay.
        None = "none",
        /// A Headscale server of one's own.
        Headscale = "headscale",
        /// Tailscale's service.
        Tailscale = "tailscale",
    }
}

section! {
    /// The overlay network. The cluster forms without it, over `node_cidr`.
    pub struct Overlay {
        /// Who controls the overlay.
        kind: OverlayKind = OverlayKind::None;
        /// IPv4 network of the overlay.
        cidr: Ipv4Net = forms::net([100, 64, 0, 0], 10);
        /// URL of the Headscale server.
        server_url: Option<String> => Rule::Text(&forms::URL);
        /// Node that runs the Headscale server. It isn't a client of its own overlay.
        server_node: Option<NodeName>;
        /// DNS domain of the overlay's names (MagicDNS).
        base_domain: Option<String> => Rule::Text(&forms::DOMAIN);
        /// Whether the Headscale server also relays (DERP) for clients that can't reach each
        /// other.
        derp: bool = false;
        /// Networks that the overlay's clients reach through a node, by node.
        routes: BTreeMap<NodeName, Vec<Ipv4Net>>;
    }
}

choice! {
    /// What makes the cluster.
    pub enum Distribution {
        /// No Kubernetes: the machines' systems are the goal.
        None = "none",
        /// k3s with embedded etcd.
        K3s = "k3s",
        /// Upstream Kubernetes by kubeadm.
        Kubeadm = "kubeadm",
    }
}

section! {
    /// The cluster that the nodes make.
    pub struct Kubernetes {
        /// What makes the cluster. All other keys are without effect while it is "none".
        distribution: Distribution = Distribution::None;
        /// Version of Kubernetes, such as "1.34" or "1.34.2". Without it, the one of the flake's
        /// nixpkgs.
        version: Option<String> => Rule::Text(&forms::VERSION);
        /// Node that founds the cluster; every other server joins it. It never changes by
        /// itself, so that no second cluster is founded.
        founder: Option<NodeName>;
        /// Name or address at which clients and nodes reach the API, where no `virtual_ip` is
        /// given. Without either, the founder's address.
        api_endpoint: Option<String> => Rule::Text(&forms::HOST);
        /// Address on the nodes' network that moves between the servers and answers for the API
        /// (kube-vip).
        virtual_ip: Option<Ipv4Addr>;
        /// Further names and addresses for the API's certificate.
        tls_sans: Vec<String> => Rule::Text(&forms::HOST);
        /// IPv4 network of the pods.
        pod_cidr: Ipv4Net = forms::net([10, 42, 0, 0], 16);
        /// IPv4 network of the services.
        service_cidr: Ipv4Net = forms::net([10, 43, 0, 0], 16);
        /// Networks from which services of type LoadBalancer get their addresses.
        load_balancer_cidrs: Vec<Ipv4Net>;
        /// DNS domain inside the cluster.
        cluster_domain: String = "cluster.local".to_owned() => Rule::Text(&forms::DOMAIN);
        /// Hours between two snapshots of etcd.
        snapshot_interval_h: u32 = 12 => Rule::Range(1, 168);
        /// Snapshots of etcd that are kept.
        snapshot_keep: u32 = 5 => Rule::Range(1, 1000);
        /// Mirrors of container registries: a registry's host, and the URLs to ask first.
        registry_mirrors: BTreeMap<String, Vec<String>> => Rule::Text(&forms::URL);
    }
}

choice! {
    /// A component that the repository's tree brings to the cluster.
    pub enum Component {
        /// The network of the pods, load balancer addresses, Hubble. Always needed.
        Cilium = "cilium",
        /// Replicated volumes on the nodes' disks.
        Longhorn = "longhorn",
        /// NVIDIA's device plugin and GPU discovery.
        NvidiaDevicePlugin = "nvidia-device-plugin",
        /// Labels that say what a node's hardware has.
        NodeFeatureDiscovery = "node-feature-discovery",
        /// TLS certificates.
        CertManager = "cert-manager",
        /// Prometheus, Alertmanager and their rules.
        Prometheus = "prometheus",
        /// Dashboards.
        Grafana = "grafana",
        /// Logs.
        Loki = "loki",
        /// The collector that sends logs and metrics.
        Alloy = "alloy",
        /// The message system that lending runs on.
        Nats = "nats",
        /// The server of lending, beside NATS.
        LendingServer = "lending-server",
        /// The overlay's control server, inside the cluster.
        Headscale = "headscale",
        /// The device plugin for the AI hats of this project.
        HatDevicePlugin = "hat-device-plugin",
        /// Virtual machines as pods.
        Kubevirt = "kubevirt",
    }
}

section! {
    /// The tree of manifests that Argo CD keeps the cluster equal to.
    pub struct Gitops {
        /// URL of the git repository that Argo CD reads. Without it, the tree is rendered and
        /// nothing is bootstrapped.
        repository: Option<String> => Rule::Text(&forms::GIT_URL);
        /// Branch, tag or commit that Argo CD follows.
        revision: String = "main".to_owned() => Rule::Text(&forms::REVISION);
        /// Folder of the rendered tree in the repository.
        path: String = "gitops".to_owned() => Rule::Text(&forms::RELATIVE_PATH);
        /// Folder of the user's own apps in the repository: each folder in it is an app.
        apps_path: String = "apps".to_owned() => Rule::Text(&forms::RELATIVE_PATH);
        /// Components that the tree brings.
        components: Vec<Component> = vec![
            Component::Cilium,
            Component::Longhorn,
            Component::NvidiaDevicePlugin,
            Component::NodeFeatureDiscovery,
            Component::CertManager,
            Component::Prometheus,
            Component::Grafana,
            Component::Loki,
            Component::Alloy,
            Component::Nats,
        ];
        /// Components that the tree leaves out on a PC's k3d cluster, beside those that a laptop
        /// can't run.
        dev_without: Vec<Component>;
        /// Whether Argo CD deletes what the repository no longer has. Never done for what holds
        /// data, nor for Cilium and Argo CD itself.
        prune: bool = true;
        /// Seconds between two looks of Argo CD at the repository.
        poll_s: u32 = 180 => Rule::Range(10, 86_400);
        /// Replicas of a Longhorn volume. Without it, 3, or as many as there are storage nodes
        /// where they are fewer.
        longhorn_replicas: Option<u32> => Rule::Range(1, 20);
        /// DNS domain under which the cluster's own pages are reached.
        ingress_domain: Option<String> => Rule::Text(&forms::DOMAIN);
    }
}

choice! {
    /// Where the applications' secrets come from. Those by which machines and the cluster come up are SOPS' with each of
    /// them.
    pub enum SecretsBackend {
        /// SOPS files with age in the repository.
        Sops = "sops",
        /// SealedSecret objects in the repository.
        SealedSecrets = "sealed-secrets",
        /// HashiCorp Vault or OpenBao, by the external secrets operator.
        Vault = "vault",
    }
}

section! {
    /// How secrets are kept. No secret itself ever stands in the inventory.
    pub struct Secrets {
        /// Where the applications' secrets come from. Those by which machines and the cluster come up are SOPS' with
        /// each of them.
        backend: SecretsBackend = SecretsBackend::Sops;
        /// Folder of the encrypted files in the repository.
        path: String = "secrets".to_owned() => Rule::Text(&forms::RELATIVE_PATH);
        /// age recipients of the operators, who can read and change every secret: `age1…`, or an
        /// SSH public key.
        operators: Vec<String> => Rule::Text(&forms::RECIPIENT);
        /// URL of the Vault server. Only where `backend` is "vault".
        vault_url: Option<String> => Rule::Text(&forms::URL);
    }
}

choice! {
    /// What a lent job runs in.
    pub enum Runtime {
        /// A WebAssembly component without ambient authority.
        Wasm = "wasm",
        /// A container image.
        Oci = "oci",
        /// A Nix store path.
        Nix = "nix",
        /// A native program in a sandbox.
        Process = "process",
    }
}

choice! {
    /// How sensitive the data of a job may be to be lent. Secret data can't be lent at all.
    pub enum Sensitivity {
        /// Anybody may see it.
        Public = "public",
        /// Whoever belongs to the fleet may see it.
        Internal = "internal",
    }
}

section! {
    /// Somebody who brings work: a person, or a service such as a CI runner.
    pub struct Submitter {
        /// Their public nkey, which the message system knows them by.
        nkey: String => Rule::Text(&forms::NKEY);
        /// For whom: one of `lending.tenants`.
        tenant: String => Rule::Text(&forms::LABEL);
        /// How sensitive what they bring is at least, whatever they say of a job.
        brings: Sensitivity = Sensitivity::Internal;
    }
}

section! {
    /// Work that developers' PCs take over while their owners let them.
    pub struct Lending {
        /// Whether there is lending at all.
        enabled: bool = false;
        /// URL of the NATS server as PCs reach it: `tls://HOST:4222`.
        nats_url: Option<String> => Rule::Text(&forms::NATS_URL);
        /// NATS account that lent work is confined to.
        account: String = "LEND".to_owned() => Rule::Text(&forms::ACCOUNT);
        /// The most sensitive data that is lent.
        max_sensitivity: Sensitivity = Sensitivity::Public;
        /// Runtimes that are offered; a PC offers those of its own that are among them.
        runtimes: Vec<Runtime> = vec![Runtime::Wasm];
        /// For whom jobs may be submitted.
        tenants: Vec<String> => Rule::Text(&forms::LABEL);
        /// Who may submit jobs: `[lending.submitters.NAME]`.
        submitters: BTreeMap<SubmitterName, Submitter>;
        /// The public nkey of the server of lending, `undercroft lend server`.
        server_key: Option<String> => Rule::Text(&forms::NKEY);
        /// Where the flake's container image of that server was pushed to, for the component `lending-server`. Its tag
        /// and digest stand in `undercroft.lock`.
        server_image: Option<String> => Rule::Text(&forms::IMAGE);
        /// Seconds for which a lease holds without renewal.
        lease_s: u32 = 60 => Rule::Range(10, 3600);
        /// Seconds between two renewals of a lease.
        heartbeat_s: u32 = 10 => Rule::Range(1, 600);
        /// Times that a job may be started before it goes to the dead letters.
        attempts: u32 = 5 => Rule::Range(1, 100);
        /// The longest that a job may run, in seconds.
        job_wall_s: u32 = 3600 => Rule::Range(1, 604_800);
        /// The longest that a paused job is kept frozen before it is given back, in seconds.
        pause_s: u32 = 600 => Rule::Range(0, 86_400);
    }
}
