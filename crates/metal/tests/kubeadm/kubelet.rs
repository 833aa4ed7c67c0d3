//! A stand-in for the kubelet: it runs the programs of static pods as they are, gets its
//! certificate by a bootstrap token, registers its node and mirrors its pods.
//!
//! It has no containers, so that a pod's programs see the machine's own files, which is what the
//! pods' mounts come to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const MANIFESTS: &str = "/etc/kubernetes/manifests";
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
const CONFIG: &str = "/var/lib/kubelet/config.yaml";
const CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// The wait between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// The wait between two reports of a member's.
const REPORT: Duration = Duration::from_secs(3);

/// Runs until the machine goes down or systemd's stand-in ends it.
pub(crate) async fn run() {
    // It parses its configuration before anything else, as the real one does.
    let config = yaml(Path::new(CONFIG)).unwrap();
    assert_eq!(config["kind"], "KubeletConfiguration");
    tokio::spawn(healthz());
    let flags = Flags::of_environment();
    tokio::spawn(member(flags));
    loop {
        look_after_pods();
        tokio::time::sleep(LOOK).await;
    }
}

/// What `kubeadm-flags.env` says.
#[derive(Debug, Clone)]
struct Flags {
    node: String,
    labels: Vec<(String, String)>,
    taints: Vec<Value>,
}

impl Flags {
    fn of_environment() -> Self {
        let text = std::env::var("KUBELET_KUBEADM_ARGS").unwrap_or_default();
        let flags: BTreeMap<&str, &str> = text
            .split_whitespace()
            .filter_map(|flag| flag.trim_start_matches('-').split_once('='))
            .collect();
        let list = |name: &str| flags.get(name).copied().unwrap_or_default().split(',');
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let taint = |text: &str| {
            let (key, effect) = text.rsplit_once(':')?;
            let (key, value) = key.split_once('=').unwrap_or((key, ""));
            Some(json!({ "key": key, "value": value, "effect": effect }))
        };
        Self {
            node: flags
                .get("hostname-override")
                .map_or_else(|| host.trim().to_owned(), |name| (*name).to_owned()),
            labels: list("node-labels")
                .filter_map(|label| label.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            taints: list("register-with-taints").filter_map(taint).collect(),
        }
    }
}

/// The kubelet's own health, which kubeadm waits for.
async fn healthz() {
    let listener = TcpListener::bind("127.0.0.1:10248").await.unwrap();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _ = client.read(&mut request).await;
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        let _ = client.write_all(answer.as_bytes()).await;
    }
}

/// What stands for containers: programs that run on when the kubelet ends, each with its manifest
/// and its process beside each other in a folder. [`crate::containerd`] ends them, too.
pub(crate) const PODS: &str = "/run/pods";

/// Starts what is new or has ended, and ends what is gone.
fn look_after_pods() {
    let manifests = manifests();
    for name in pods() {
        let stays = manifests.get(&name).is_some_and(|manifest| {
            let ran = fs::read(Path::new(PODS).join(format!("{name}.manifest")));
            ran.ok() == fs::read(manifest).ok()
        });
        if !stays || !runs(&name) {
            end_pod(&name);
        }
    }
    let there = pods();
    for (name, manifest) in manifests {
        if !there.contains(&name) {
            let _ = start(&name, &manifest);
        }
    }
}

/// The names of the pods that were started.
pub(crate) fn pods() -> BTreeSet<String> {
    let entries = fs::read_dir(PODS).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            file.strip_suffix(".pid").map(str::to_owned)
        })
        .collect()
}

fn pid(name: &str) -> Option<i32> {
    let text = fs::read_to_string(Path::new(PODS).join(format!("{name}.pid"))).ok()?;
    text.trim().parse().ok()
}

/// Whether a pod's program runs. One whose kubelet has ended stays as what nobody has waited for.
fn runs(name: &str) -> bool {
    let status = pid(name).and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    status.is_some_and(|status| !status.contains(") Z "))
}

pub(crate) fn end_pod(name: &str) {
    if let Some(pid) = pid(name).and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        // Its ports are free only then.
        while runs(name) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let _ = fs::remove_file(Path::new(PODS).join(format!("{name}.pid")));
}

/// The manifests, by their pods' names.
fn manifests() -> BTreeMap<String, PathBuf> {
    let entries = fs::read_dir(MANIFESTS).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "json"))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)))
        .collect()
}

/// Starts a pod's first container. What it says is added to a log of the pod's name.
fn start(name: &str, manifest: &Path) -> Option<()> {
    let pod = yaml(manifest)?;
    let words: Vec<&str> = pod["spec"]["containers"][0]["command"]
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let (program, arguments) = words.split_first()?;
    let folder = Path::new(PODS);
    fs::create_dir_all(folder).unwrap();
    let log = folder.join(format!("{name}.log"));
    let log = File::options().append(true).create(true).open(log).unwrap();
    fs::copy(manifest, folder.join(format!("{name}.manifest"))).ok()?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .ok()?;
    let pid = format!("{}\n", child.id());
    fs::write(folder.join(format!("{name}.pid")), pid).unwrap();
    // Waited for, so that it leaves nothing when it has ended.
    std::thread::spawn(move || child.wait());
    Some(())
}

fn yaml(path: &Path) -> Option<Value> {
    serde_saphyr::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// Becomes a member of the cluster, and stays one.
async fn member(flags: Flags) {
    // It does so when it starts, and never again.
    let mut registered = false;
    loop {
        let wait = match Box::pin(register(&flags, &mut registered)).await {
            Ok(true) => REPORT,
            Ok(false) => LOOK,
            Err(why) => {
                eprintln!("not a member: {why}");
                LOOK
            }
        };
        tokio::time::sleep(wait).await;
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Whether it is a member, and has said so.
async fn register(flags: &Flags, registered: &mut bool) -> Result<bool, Failed> {
    if !Path::new(KUBECONFIG).exists() {
        if !Path::new(BOOTSTRAP).exists() {
            return Ok(false);
        }
        Box::pin(bootstrap(&flags.node)).await?;
    }
    let client = client(KUBECONFIG).await?;
    let nodes: Api<DynamicObject> = Api::all_with(client.clone(), &resource("", "v1", "Node"));
    if !*registered {
        let labels: BTreeMap<&str, &str> = flags
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .chain([("kubernetes.io/hostname", flags.node.as_str())])
            .collect();
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": flags.node, "labels": labels },
            "spec": { "taints": flags.taints },
        });
        let node = serde_json::from_value(node)?;
        match nodes.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            made => drop(made?),
        }
        *registered = true;
    }
    let node = nodes.get(&flags.node).await?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let status = json!({ "status": {
        "nodeInfo": {
            "architecture": "amd64", "bootID": boot_id.trim(), "containerRuntimeVersion": "",
            "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "v1.34.4",
            "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
        },
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
    }});
    let patch = Patch::Strategic(&status);
    nodes
        .patch_status(&flags.node, &PatchParams::default(), &patch)
        .await?;
    let uid = node.metadata.uid.unwrap_or_default();
    Box::pin(mirror(client, &flags.node, &uid)).await?;
    Ok(true)
}

/// Tells the API of the static pods: kubeadm finds etcd's members by theirs.
async fn mirror(client: Client, node: &str, uid: &str) -> Result<(), Failed> {
    let pods: Api<DynamicObject> =
        Api::namespaced_with(client, "kube-system", &resource("", "v1", "Pod"));
    for path in manifests().into_values() {
        let Some(mut pod) = yaml(&path) else {
            continue;
        };
        let name = format!("{}-{node}", pod["metadata"]["name"].as_str().unwrap());
        pod["metadata"]["name"] = json!(name);
        for (key, value) in [("mirror", "1"), ("hash", "1"), ("source", "file")] {
            pod["metadata"]["annotations"][format!("kubernetes.io/config.{key}")] = json!(value);
        }
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": true,
        }]);
        pod["spec"]["nodeName"] = json!(node);
        let pod = serde_json::from_value(pod)?;
        // A node may not ask for a pod that it hasn't got.
        match pods.create(&PostParams::default(), &pod).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            made => drop(made?),
        }
        let status = json!({ "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }],
        }});
        let patch = Patch::Strategic(&status);
        pods.patch_status(&name, &PatchParams::default(), &patch)
            .await?;
    }
    Ok(())
}

/// Has its certificate signed, with the bootstrap token as its credential.
async fn bootstrap(node: &str) -> Result<(), Failed> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "system:nodes");
    name.push(DnType::CommonName, format!("system:node:{node}"));
    params.distinguished_name = name;
    let request = params.serialize_request(&key)?.pem()?;
    let client = client(BOOTSTRAP).await?;
    let kind = resource("certificates.k8s.io", "v1", "CertificateSigningRequest");
    let requests: Api<DynamicObject> = Api::all_with(client, &kind);
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "generateName": "node-csr-" },
        "spec": {
            "request": BASE64_STANDARD.encode(request),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    });
    let object = serde_json::from_value(object)?;
    let made = requests.create(&PostParams::default(), &object).await?;
    let made = made.metadata.name.unwrap_or_default();
    let certificate = loop {
        let request = requests.get(&made).await?;
        if let Some(certificate) = request.data["status"]["certificate"].as_str() {
            break BASE64_STANDARD.decode(certificate)?;
        }
        tokio::time::sleep(LOOK).await;
    };
    let mut pem = certificate;
    pem.extend(key.serialize_pem().as_bytes());
    fs::create_dir_all(Path::new(CERTIFICATE).parent().unwrap())?;
    fs::write(CERTIFICATE, pem)?;
    fs::set_permissions(CERTIFICATE, fs::Permissions::from_mode(0o600))?;
    let mut config = yaml(Path::new(BOOTSTRAP)).ok_or("bootstrap-kubelet.conf is gone")?;
    let user = json!({ "client-certificate": CERTIFICATE, "client-key": CERTIFICATE });
    config["users"][0]["user"] = user;
    fs::write(format!("{KUBECONFIG}.new"), config.to_string())?;
    fs::rename(format!("{KUBECONFIG}.new"), KUBECONFIG)?;
    Ok(())
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

async fn client(file: &str) -> Result<Client, Failed> {
    let kubeconfig = Kubeconfig::read_from(file)?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(Client::try_from(config)?)
}
