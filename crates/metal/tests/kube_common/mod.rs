//! A real kube-apiserver with its etcd, on loopback, for as long as a test lasts.
//!
//! There is no controller manager, no scheduler and no kubelet: tests play those through the API,
//! or have kwok play them.

#![allow(
    dead_code,
    reason = "each of the tests that share this uses a part of it"
)]

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;
use undercroft_kube::{Access, Cluster};
use undercroft_secrets::SecretString;
use undercroft_testkit::{OrSkip as _, crds, peer, schemas};

/// How long the API server may take to be ready; it takes ten seconds on two busy cores.
pub(crate) const READY_WAIT: Duration = Duration::from_secs(120);

/// A process that ends with the test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The certificates of a cluster.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, "a test's authority");
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate and its key, both as PEM.
    fn issue(
        &self,
        name: &str,
        group: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
    ) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![usage];
        for last in 1..10 {
            let address = Ipv4Addr::new(127, 0, 0, last);
            params
                .subject_alt_names
                .push(SanType::IpAddress(address.into()));
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        [certificate, key.serialize_pem()]
    }

    /// An administrator's kubeconfig, as a server keeps it: its address is its own loopback.
    pub(crate) fn kubeconfig(&self, port: u16) -> String {
        let [certificate, key] = self.issue(
            "admin",
            Some("system:masters"),
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        let data = |pem: &str| BASE64_STANDARD.encode(pem);
        format!(
            "apiVersion: v1
kind: Config
clusters:
- name: default
  cluster:
    server: https://127.0.0.1:{port}
    certificate-authority-data: {ca}
contexts:
- name: default
  context: {{cluster: default, user: default}}
current-context: default
users:
- name: default
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
",
            ca = data(&self.certificate),
            certificate = data(&certificate),
            key = data(&key),
        )
    }
}

/// A free port of loopback.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// An API server with its etcd.
pub(crate) struct ApiServer {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    pub(crate) etcd_port: u16,
    pub(crate) authority: Authority,
    pub(crate) bind: Ipv4Addr,
    kube: Option<Running>,
    _etcd: Running,
}

impl ApiServer {
    /// Starts one and waits until it is ready. `None`, said aloud, where the programs aren't there.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, free_port()).await
    }

    pub(crate) async fn start_at(bind: Ipv4Addr, port: u16) -> Option<Self> {
        let etcd = peer("etcd").or_skip()?;
        peer("kube-apiserver").or_skip()?;
        let dir = tempfile::tempdir().unwrap();
        let (etcd_port, peer_port) = (free_port(), free_port());
        let client_url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let mut command = Command::new(etcd);
        command
            .args([
                "--name",
                "control-01",
                "--unsafe-no-fsync",
                "--log-level",
                "warn",
            ])
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("control-01={peer_url}")])
            .arg("--data-dir")
            .arg(dir.path().join("etcd"));
        let etcd = Running::start(&mut command, &dir.path().join("etcd.log"));
        let authority = Authority::new();
        let [certificate, key] =
            authority.issue("kube-apiserver", None, ExtendedKeyUsagePurpose::ServerAuth);
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("ca.crt", &authority.certificate);
        write("server.crt", &certificate);
        write("server.key", &key);
        let service_accounts = KeyPair::generate().unwrap();
        write("sa.key", &service_accounts.serialize_pem());
        write("sa.pub", &service_accounts.public_key_pem());
        let mut server = Self {
            dir,
            port,
            etcd_port,
            authority,
            bind,
            kube: None,
            _etcd: etcd,
        };
        server.start_kube();
        server.wait_ready().await;
        Some(server)
    }

    pub(crate) fn start_kube(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(peer("kube-apiserver").unwrap());
        command
            .arg(format!(
                "--etcd-servers=http://127.0.0.1:{}",
                self.etcd_port
            ))
            .arg(format!("--bind-address={}", self.bind))
            .arg("--advertise-address=127.0.0.1")
            .arg(format!("--secure-port={}", self.port))
            .args(["--endpoint-reconciler-type=none", "--allow-privileged=true"])
            .args(["--anonymous-auth=false", "--authorization-mode=RBAC"])
            .arg("--service-cluster-ip-range=10.43.0.0/16")
            // What makes ServiceAccounts isn't here.
            .arg("--disable-admission-plugins=ServiceAccount")
            .arg("--service-account-issuer=https://kubernetes.default.svc");
        for (flag, file) in [
            ("--tls-cert-file", "server.crt"),
            ("--tls-private-key-file", "server.key"),
            ("--client-ca-file", "ca.crt"),
            ("--service-account-key-file", "sa.pub"),
            ("--service-account-signing-key-file", "sa.key"),
        ] {
            command.arg(flag).arg(path(file));
        }
        self.kube = Some(Running::start(&mut command, &path("kube-apiserver.log")));
    }

    /// Ends the API server; what it kept stays in etcd.
    pub(crate) fn stop_kube(&mut self) {
        self.kube = None;
    }

    pub(crate) async fn wait_ready(&mut self) {
        let cluster = self.cluster();
        let until = Instant::now() + READY_WAIT;
        let mut restarts_left = 3;
        while let Err(error) = cluster.ready().await {
            let mut ended = self.kube.as_mut().is_some_and(Running::has_ended);
            if ended && restarts_left > 0 {
                // Its port may have been taken between two of its lives.
                restarts_left -= 1;
                self.start_kube();
                ended = false;
            }
            if ended || Instant::now() > until {
                let log = fs::read_to_string(self.dir.path().join("kube-apiserver.log"));
                let log = log.unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(30).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                panic!("the API server isn't ready: {error}\n{}", tail.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) fn kubeconfig(&self) -> String {
        self.authority.kubeconfig(self.port)
    }

    /// A client of an administrator's.
    pub(crate) fn cluster(&self) -> Cluster {
        let access = Access::of_kubeconfig(&SecretString::from(self.kubeconfig())).unwrap();
        Cluster::at(&access, self.bind.into(), self.port).unwrap()
    }
}

impl ApiServer {
    /// An administrator's kubeconfig with the address at which the API listens.
    pub(crate) fn direct_kubeconfig(&self) -> String {
        let address = format!("https://127.0.0.1:{}", self.port);
        let direct = format!("https://{}:{}", self.bind, self.port);
        self.kubeconfig().replace(&address, &direct)
    }

    /// The client library's own client, for what tests play.
    pub(crate) fn client(&self) -> kube::Client {
        let config = kube::config::Kubeconfig::from_yaml(&self.direct_kubeconfig()).unwrap();
        kube::Client::try_from(kube::Config::try_from(config).unwrap()).unwrap()
    }

    /// Writes an object's status, as its controller would. `kind` is `v1/Node` or
    /// `apps/v1/DaemonSet`.
    pub(crate) async fn set_status(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        status: serde_json::Value,
    ) {
        let (api_version, kind) = kind.rsplit_once('/').unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
        let resource = kube::core::ApiResource::from_gvk(&gvk);
        let api: kube::Api<kube::core::DynamicObject> = match namespace {
            Some(namespace) => kube::Api::namespaced_with(self.client(), namespace, &resource),
            None => kube::Api::all_with(self.client(), &resource),
        };
        let patch = kube::api::Patch::Merge(serde_json::json!({ "status": status }));
        let params = kube::api::PatchParams::default();
        let until = Instant::now() + READY_WAIT;
        loop {
            // An object that isn't there yet and a kind whose status is a field like another are both not found.
            let done = match api.get(name).await {
                Err(error) => Err(error),
                Ok(_) => match api.patch_status(name, &params, &patch).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        api.patch(name, &params, &patch).await
                    }
                    done => done,
                },
            };
            let done = done.map(drop);
            match done {
                Ok(()) => return,
                Err(error) => assert!(Instant::now() < until, "{kind} {name}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Deletes an object of a namespace, as somebody would with kubectl. `kind` is
    /// `apps/v1/DaemonSet`.
    pub(crate) async fn remove(&self, kind: &str, namespace: &str, name: &str) {
        let (api_version, kind) = kind.rsplit_once('/').unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
        let resource = kube::core::ApiResource::from_gvk(&gvk);
        let api: kube::Api<kube::core::DynamicObject> =
            kube::Api::namespaced_with(self.client(), namespace, &resource);
        // Nobody plays the garbage collector here.
        let params = kube::api::DeleteParams::background();
        api.delete(name, &params).await.unwrap();
    }
}

/// The CRDs that are at hand: those among the published schemas, and those of `UNDERCROFT_CRDS`.
pub(crate) fn crd_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in [schemas(), crds()].into_iter().flatten() {
        walk(&folder, &mut files);
    }
    files.retain(|file| {
        let is_yaml = file.extension().is_some_and(|e| e == "yaml" || e == "yml");
        is_yaml
            && fs::read_to_string(file)
                .is_ok_and(|text| text.contains("\nkind: CustomResourceDefinition"))
    });
    files.sort();
    files
}

/// Every file below a folder.
pub(crate) fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}
