//! A real nats-server with TLS and JetStream, with accounts as nix/lib/nats.nix renders them.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use undercroft_lend::{accounts, consent::PublicKey};

/// How long a server may take to greet; it takes some 100 ms.
const GREETS_WITHIN: Duration = Duration::from_secs(30);

/// Who may connect: names and public keys.
pub(crate) struct Accounts {
    pub(crate) devices: BTreeMap<String, String>,
    pub(crate) submitters: BTreeMap<String, String>,
    pub(crate) services: BTreeMap<String, String>,
}

impl Accounts {
    /// As `undercroft lend demo` renders them; a test holds it against Nix.
    pub(crate) fn render(&self) -> Value {
        let key = |key: &String| PublicKey(key.clone());
        let devices = self.devices.iter();
        let submitters = self.submitters.iter();
        accounts::Accounts {
            devices: devices.map(|(n, k)| (n.parse().unwrap(), key(k))).collect(),
            submitters: submitters
                .map(|(n, k)| (n.parse().unwrap(), key(k)))
                .collect(),
            servers: self.services.values().map(key).collect(),
        }
        .render()
    }

    /// The same, by Nix itself.
    pub(crate) fn by_nix(&self) -> Value {
        let set = |all: &BTreeMap<String, String>| {
            let all = all
                .iter()
                .map(|(name, key)| format!("{name}.nkey = \"{key}\";"));
            format!("{{ {} }}", all.collect::<String>())
        };
        let lib = undercroft_testkit::repository().join("nix/lib/nats.nix");
        let expression = format!(
            "(import {}).accounts {{ devices = {}; submitters = {}; services = {}; }}",
            lib.canonicalize().unwrap().display(),
            set(&self.devices),
            set(&self.submitters),
            set(&self.services),
        );
        let output = Command::new("nix-instantiate")
            .args(["--eval", "--strict", "--json", "--expr", &expression])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// The server.
pub(crate) struct Nats {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Nats {
    /// Starts one whose files are in `folder`.
    pub(crate) fn start(program: PathBuf, folder: &Path, accounts: &Value) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        certificates(folder);
        let config = json!({
            "listen": format!("127.0.0.1:{port}"),
            "tls": { "cert_file": folder.join("tls.crt"), "key_file": folder.join("tls.key"), "timeout": 5 },
            "jetstream": { "store_dir": folder.join("jetstream"), "max_file_store": 16_i64 << 30 },
            "system_account": "SYS",
            "accounts": accounts,
        });
        fs::write(folder.join("nats.conf"), config.to_string()).unwrap();
        let mut nats = Self {
            program,
            folder: folder.to_owned(),
            port,
            child: None,
        };
        nats.begin();
        nats
    }

    pub(crate) fn url(&self) -> String {
        format!("tls://localhost:{}", self.port)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Ends it as a power cut would, as far as a process can tell.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Begins it again on what it has stored.
    pub(crate) fn begin(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("nats.log"))
            .unwrap();
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(self.folder.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let since = Instant::now();
        while !self.greets() {
            assert!(since.elapsed() < GREETS_WITHIN, "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn greets(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).is_ok() && &greeting == b"INFO "
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("nats.log")).unwrap_or_default()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The name by which NATS is called in a cluster, and what the certificate of a cluster's own program says.
pub(crate) const SERVICE: &str = "nats.nats.svc.cluster.local";
pub(crate) const CLIENT: &str = "apps.client.nats";

/// An authority, and certificates of a server (`tls`) and of a client (`client`).
pub(crate) fn certificates(folder: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    fs::write(folder.join("ca.crt"), ca_cert.pem()).unwrap();
    for (name, hosts) in [("tls", &["localhost", SERVICE][..]), ("client", &[CLIENT])] {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let params = CertificateParams::new(hosts).unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.crt")), cert.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
