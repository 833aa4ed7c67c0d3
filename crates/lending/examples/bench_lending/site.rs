//! A site on one machine: NATS with TLS, the server of lending, a lent PC's daemon, and the worker in Node.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use undercroft_folder::confined::Confined;
use undercroft_lending::{
    bus::{Bus, BusSettings, Inbox},
    device_keys::OwnKeys,
    keys::UserKey,
    owner::{Call, OwnerAnswer, OwnerAsk, Status, call},
    submit::Submitting,
};
use undercroft_testkit::{OrSkip as _, peer, program, skip};

use crate::{Outcome, coordinator};

/// The lent PC.
const PC: &str = "desk";
/// How long something may take to be there that takes a second.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);
/// The rest between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A process that ends with this.
pub(crate) struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Outcome<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(
            child.map_err(|e| format!("can't start {command:?}: {e}"))?,
        ))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All of it. Fields are dropped in their order: the daemon before what it speaks to.
pub(crate) struct Site {
    pub(crate) daemon: Process,
    /// The worker in Node; `None` where there is no Node.
    pub(crate) node: Option<Process>,
    /// What the server of lending says, as it says it.
    pub(crate) said: UnboundedReceiver<(SystemTime, Value)>,
    /// What the worker in Node has done, as it is recorded.
    pub(crate) recorded: UnboundedReceiver<coordinator::Recorded>,
    pub(crate) submitting: Submitting,
    /// A connection that may say and hear everything.
    pub(crate) bus: Bus,
    /// The static program that is lent.
    pub(crate) job: PathBuf,
    pub(crate) undercroft: PathBuf,
    socket: PathBuf,
    pub(crate) jobs_folder: PathBuf,
    _server: Process,
    _nats: Process,
    _folder: TempDir,
}

impl Site {
    /// `None`, said openly, where something of it isn't on this machine.
    pub(crate) async fn start(undercroft: &Path, modules: Option<&Path>) -> Outcome<Option<Self>> {
        let (Some(nats_server), Some(_), Some(cc)) = (
            peer("nats-server").or_skip(),
            program("bwrap", "bubblewrap").or_skip(),
            program("cc", "gcc").or_skip(),
        ) else {
            return Ok(None);
        };
        let folder = TempDir::new()?;
        let at = |name: &str| folder.path().join(name);
        let job = at("job");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bench_lending/job.c");
        let made = Command::new(cc)
            .args(["-static", "-O1", "-s", "-o"])
            .args([&job, &source])
            .status()?;
        if !made.success() {
            return Err("the job can't be compiled".into());
        }
        certificates(folder.path())?;
        let keys = Keys::make(folder.path())?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let nats = nats(&nats_server, folder.path(), port, &keys)?;
        let url = format!("tls://localhost:{port}");
        let bus_as = |name: &str, inbox: Inbox| -> Outcome<BusSettings> {
            Ok(BusSettings {
                url: url.clone(),
                ca_file: Some(at("ca.crt")),
                key: Arc::new(UserKey::read(&at(&format!("{name}.nk")))?),
                name: format!("the benchmark as {name}"),
                inbox,
            })
        };
        let bus = Bus::connect(&bus_as("bench", Inbox::Server)?).await?;
        let (mut server, said) = server(undercroft, folder.path(), &url, &keys)?;
        let submitter = Bus::connect(&bus_as("ci", Inbox::Submitter("ci".to_owned()))?).await?;
        let recorded = coordinator::start(&at("bench.nk"), &url, &at("ca.crt"), &job).await?;
        let (daemon, socket) = match daemon(undercroft, folder.path(), &url) {
            Ok(started) => started,
            Err(error) => {
                let _ = server.0.kill();
                return Err(error);
            }
        };
        let node = match modules {
            Some(modules) => node(modules, folder.path(), port)?,
            None => None,
        };
        let site = Self {
            daemon,
            node,
            said,
            recorded,
            submitting: Submitting::new(submitter, &"ci".parse()?),
            bus,
            job,
            undercroft: undercroft.to_owned(),
            socket,
            jobs_folder: at(PC).join("jobs/jobs"),
            _server: server,
            _nats: nats,
            _folder: folder,
        };
        site.grant().await?;
        site.wait_until("it takes work", |status| status.why_not.is_empty())
            .await?;
        Ok(Some(site))
    }

    /// What the owner asks, and is answered.
    pub(crate) async fn owner(&self, ask: OwnerAsk) -> Outcome<OwnerAnswer> {
        match call(&self.socket, ask).await? {
            Call::Answer(answer) => match *answer {
                OwnerAnswer::Refused { why, .. } => Err(why.into()),
                answer => Ok(answer),
            },
            Call::NotRunning => Err("the daemon doesn't run".into()),
        }
    }

    /// The owner agrees to lend what the policy offers.
    pub(crate) async fn grant(&self) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            match self.owner(OwnerAsk::Grant { until_ms: None }).await {
                Ok(_) => return Ok(()),
                // It has only just been started.
                Err(error) if begun.elapsed() > WITHIN => return Err(error),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    pub(crate) async fn wait_until(
        &self,
        what: &str,
        is_so: impl Fn(&Status) -> bool,
    ) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            let OwnerAnswer::Status(status) = self.owner(OwnerAsk::Status).await? else {
                return Err("the daemon has answered another question".into());
            };
            if is_so(&status) {
                return Ok(());
            }
            if begun.elapsed() > WITHIN {
                return Err(format!("it isn't so that {what}: {status:#?}").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Everybody's public keys.
struct Keys {
    users: Vec<(&'static str, String)>,
    owner: String,
}

impl Keys {
    fn make(folder: &Path) -> Outcome<Self> {
        let mut users = Vec::new();
        for name in ["server", "bench", "ci", "node"] {
            let (key, _) = UserKey::read_or_make(&folder.join(format!("{name}.nk")))?;
            users.push((name, key.public().0));
        }
        let own = OwnKeys::read_or_make(&Confined::new(folder.join(PC)))?.public();
        users.push((PC, own.device.0));
        Ok(Self {
            users,
            owner: own.owner.0,
        })
    }

    fn of(&self, name: &str) -> &str {
        let found = self.users.iter().find(|(of, _)| *of == name);
        found.map_or("", |(_, key)| key)
    }
}

fn certificates(folder: &Path) -> Outcome<()> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate for its own signer's where both have the same name.
    ca.distinguished_name
        .push(DnType::CommonName, "the benchmark's authority");
    let ca_cert = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    fs::write(folder.join("ca.crt"), ca_cert.pem())?;
    fs::write(folder.join("tls.crt"), cert.pem())?;
    fs::write(folder.join("tls.key"), key.serialize_pem())?;
    Ok(())
}

/// NATS with TLS and JetStream, with the rights that nix/lib/nats.nix gives, and those of the worker in Node.
fn nats(program: &Path, folder: &Path, port: u16, keys: &Keys) -> Outcome<Process> {
    let may = |name: &str, publish: Value, subscribe: &str| {
        json!({ "nkey": keys.of(name), "permissions": {
            "publish": { "allow": publish }, "subscribe": { "allow": [subscribe] },
        } })
    };
    let users = json!([
        { "nkey": keys.of("server") },
        { "nkey": keys.of("bench") },
        may("ci", json!(["lend.submit.ci"]), "_INBOX_submit_ci.>"),
        may(PC, json!([format!("lend.want.{PC}"), format!("lend.beat.{PC}"), format!("lend.out.{PC}.>")]), "_INBOX_desk.>"),
        may("node", json!(["bench.want", "bench.beat", "bench.out"]), "_INBOX_bench.>"),
    ]);
    let config = json!({
        "listen": format!("127.0.0.1:{port}"),
        "tls": { "cert_file": folder.join("tls.crt"), "key_file": folder.join("tls.key"), "timeout": 5 },
        "jetstream": { "store_dir": folder.join("jetstream"), "max_file_store": 16_i64 << 30 },
        "system_account": "SYS",
        "accounts": { "LEND": { "jetstream": "enabled", "users": users }, "SYS": { "users": [] } },
    });
    let file = folder.join("nats.conf");
    fs::write(&file, config.to_string())?;
    let log = fs::File::create(folder.join("nats.log"))?;
    let mut command = Command::new(program);
    let nats = Process::start(
        command
            .arg("-c")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(log),
    )?;
    let begun = Instant::now();
    while !greets(port) {
        if begun.elapsed() > WITHIN {
            return Err(fs::read_to_string(folder.join("nats.log"))?.into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(nats)
}

fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut greeting = [0; 5];
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && &greeting == b"INFO "
}

type Said = UnboundedReceiver<(SystemTime, Value)>;

/// The server of lending, and its lines with the moment at which each was read.
fn server(undercroft: &Path, folder: &Path, url: &str, keys: &Keys) -> Outcome<(Process, Said)> {
    let file = json!({
        "version": 1, "fleet": "cellar",
        "devices": { PC: { "nkey": keys.of(PC), "ownerKey": keys.owner } },
        "submitters": { "ci": { "tenant": "research", "brings": "public" } },
        "tenants": ["research"], "runtimes": ["process"], "maxSensitivity": "internal",
        "leaseS": 30, "attempts": 3, "jobWallS": 600,
    });
    let config = folder.join("server.json");
    fs::write(&config, file.to_string())?;
    let mut command = Command::new(undercroft);
    command
        .args(["lend", "server", "--json", "--nats", url, "--config"])
        .arg(config);
    command
        .arg("--key")
        .arg(folder.join("server.nk"))
        .arg("--ca")
        .arg(folder.join("ca.crt"));
    let mut server = Process::start(command.stdout(Stdio::piped()))?;
    let out = server.0.stdout.take().ok_or("the server has no output")?;
    let (to, said) = unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Ok(line) = serde_json::from_str(&line)
                && to.send((SystemTime::now(), line)).is_err()
            {
                return;
            }
        }
    });
    Ok((server, said))
}

/// The PC's daemon with a policy, and its owner's socket.
fn daemon(undercroft: &Path, folder: &Path, url: &str) -> Outcome<(Process, PathBuf)> {
    let policy = json!({
        "version": 1, "fleet": "cellar", "device": PC, "class": "pc", "owner": "ada", "natsUrl": url,
        "caFile": folder.join("ca.crt"), "stateDirectory": folder.join(PC), "runtimes": ["process"],
        "tenants": ["research"], "maxSensitivity": "public", "slots": 1, "cpuPercent": 100, "memoryMb": 512,
        "diskMb": 512, "jobWallS": 600, "heartbeatS": 2, "pauseS": 60,
        "when": { "idleAfterS": 60, "hasSeat": false, "exclusivePrograms": ["steam", "obs"] },
    });
    let (config, socket) = (folder.join("lending.json"), folder.join("owner.sock"));
    fs::write(&config, policy.to_string())?;
    let mut command = Command::new(undercroft);
    command
        .args(["lend", "run", "--config"])
        .arg(config)
        .arg("--socket")
        .arg(&socket);
    let log = fs::File::create(folder.join("daemon.log"))?;
    Ok((Process::start(command.stderr(log))?, socket))
}

fn node(modules: &Path, folder: &Path, port: u16) -> Outcome<Option<Process>> {
    let Some(node) = program("node", "nodejs").or_skip() else {
        return Ok(None);
    };
    if !modules.join("nats").is_dir() {
        skip(format!("nats.js isn't in {}", modules.display()));
        return Ok(None);
    }
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bench_lending/node/worker.js");
    let mut command = Command::new(node);
    command
        .env("NODE_PATH", modules)
        .arg(script)
        .arg(format!("localhost:{port}"));
    command.args([folder.join("ca.crt"), folder.join("node.nk")]);
    Ok(Some(Process::start(&mut command)?))
}
