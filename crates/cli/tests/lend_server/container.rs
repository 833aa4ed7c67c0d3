//! The server of lending as the cluster runs it: the very words and files of the rendered Deployment, with the accounts
//! that the rendered values of NATS have.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use undercroft_lending::keys::UserKey;
use undercroft_render::yaml;
use undercroft_testkit::{OrSkip as _, peer, program, skip};

use crate::{
    nats::{CLIENT, SERVICE, certificates},
    site::{Process, WITHIN},
    support::Sandbox,
};

/// The user and the group of the pod.
const USER: u32 = 65532;

/// A fleet with NATS and the server of lending in its cluster, rendered.
struct Rendered {
    sandbox: Sandbox,
    /// The server's key.
    key: UserKey,
    /// The key of somebody who brings work.
    submitter: UserKey,
}

impl Rendered {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let (key, submitter) = (UserKey::generate(), UserKey::generate());
        let inventory = format!(
            "[fleet]\nname = \"cellar\"\n[network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.1\"\n\
             [kubernetes]\ndistribution = \"k3s\"\nversion = \"1.34\"\nfounder = \"one\"\n\
             [gitops]\nrepository = \"https://git.cellar.example/fleet.git\"\n\
             components = [\"cilium\", \"cert-manager\", \"prometheus\", \"nats\", \"lending-server\"]\n\
             [classes.box]\nkind = \"control\"\n[nodes.one]\nclass = \"box\"\nmacs = [\"52:54:00:00:00:0b\"]\n\
             address = \"10.0.0.11\"\ndisks = [{{ serial = \"ONE\" }}]\n\
             [lending]\nenabled = true\nnats_url = \"tls://nats.cellar.example:4222\"\ntenants = [\"research\"]\n\
             server_key = \"{}\"\nserver_image = \"registry.cellar.example/lending-server\"\n\
             [lending.submitters.ci]\nnkey = \"{}\"\ntenant = \"research\"\nbrings = \"public\"\n",
            key.public().0,
            submitter.public().0
        );
        sandbox.write("undercroft.toml", &inventory);
        let ran = sandbox.run(["render"]);
        assert_eq!(ran.code, 0, "{}", ran.text());
        Self {
            sandbox,
            key,
            submitter,
        }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.sandbox.dir().join("gitops/components").join(file)).unwrap()
    }

    /// The object of a kind among the component's manifests.
    fn object(&self, kind: &str) -> Value {
        let files = ["config", "lending-server", "monitoring"];
        let texts = files.map(|file| self.read(&format!("lending-server/manifests/{file}.yaml")));
        let documents = texts.iter().flat_map(|text| text.split("\n---\n"));
        let mut objects = documents.filter_map(|document| yaml::parse(document).ok());
        objects.find(|object| object["kind"] == kind).unwrap()
    }

    fn container(&self) -> Value {
        self.object("Deployment")["spec"]["template"]["spec"]["containers"][0].clone()
    }

    fn args(&self) -> Vec<String> {
        let container = self.container();
        assert!(container.get("command").is_none() && container.get("env").is_none());
        let args = container["args"].as_array().unwrap().iter();
        args.map(|arg| arg.as_str().unwrap().to_owned()).collect()
    }

    /// NATS' configuration, as the chart makes it of the rendered values, for files and ports of this machine.
    fn nats(&self, folder: &Path, port: u16, websocket_port: u16) -> Value {
        let values = yaml::parse(&self.read("nats/values.yaml")).unwrap();
        let merged = |mut config: Value, more: &Value| {
            for (key, value) in more.as_object().into_iter().flatten() {
                config[key] = value.clone();
            }
            config
        };
        let tls = json!({
            "cert_file": folder.join("tls.crt"), "key_file": folder.join("tls.key"), "ca_file": folder.join("ca.crt"),
        });
        let config = &values["config"];
        let ours = json!({
            "listen": format!("127.0.0.1:{port}"),
            "tls": merged(tls.clone(), &config["nats"]["tls"]["merge"]),
            "jetstream": merged(
                json!({ "store_dir": folder.join("jetstream"), "max_file_store": 16_i64 << 30 }),
                &config["jetstream"]["merge"],
            ),
            "websocket": {
                "listen": format!("127.0.0.1:{websocket_port}"),
                "tls": merged(tls, &config["websocket"]["tls"]["merge"]),
            },
        });
        merged(ours, &config["merge"])
    }
}

/// The command never gets as far as its files with words that it doesn't take.
#[test]
fn the_command_takes_the_words_of_the_deployment() {
    let rendered = Rendered::new();
    let ran = rendered.sandbox.run(rendered.args());
    assert_eq!(ran.code, 65, "{}", ran.text());
    assert!(
        ran.err.contains("/etc/undercroft/key/server.nk"),
        "{}",
        ran.text()
    );
}

/// A container, as far as the kernel makes one: a root folder that nobody writes to, a network of its own, and files as
/// the kubelet lays them down.
struct Container {
    process: Process,
    pid: u32,
    folder: TempDir,
}

impl Container {
    /// Starts NATS and the server in it; `None`, openly, where that can't be done.
    fn start(rendered: &Rendered) -> Option<Self> {
        let nats = peer("nats-server").or_skip()?;
        for name in ["unshare", "nsenter", "setpriv", "ip", "bash"] {
            program(name, "util-linux").or_skip()?;
        }
        let may = Command::new("unshare")
            .args(["--mount", "--net", "true"])
            .output();
        if !may.is_ok_and(|ran| ran.status.success()) || !rustix::process::geteuid().is_root() {
            skip("only root makes namespaces in which somebody else runs");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // Others pass through it, as they pass through a container's root.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        certificates(folder.path());
        let conf = rendered.nats(folder.path(), 4222, 8080);
        fs::write(folder.path().join("nats.conf"), conf.to_string()).unwrap();
        root(rendered, folder.path());
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--net", "bash", "-euc", SCRIPT, "container"])
            .arg(folder.path())
            .arg(nats)
            .arg(env!("CARGO_BIN_EXE_undercroft"))
            .args(rendered.args());
        let (process, pid) = Process::start_with_pid(command);
        process.wait_for(|line| line.contains("\"ready\""));
        Some(Self {
            process,
            pid,
            folder,
        })
    }

    /// What the server says to a request, within its network.
    fn asks(&self, path: &str) -> String {
        let script = "exec 3<>/dev/tcp/127.0.0.1/9109; printf 'GET %s HTTP/1.1\\r\\n\\r\\n' \"$1\" >&3; cat <&3";
        let output = Command::new("nsenter")
            .args(["--net", "--target", &self.pid.to_string()])
            .args(["bash", "-c", script, "ask", path])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn until(&self, path: &str, begins: &str) -> String {
        let since = Instant::now();
        loop {
            let answer = self.asks(path);
            if answer.starts_with(begins) {
                return answer;
            }
            assert!(
                since.elapsed() < WITHIN,
                "{path}: {answer}\n{:#?}",
                self.process.lines()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Starts NATS beside what becomes the server; the kernel ends it with that.
const SCRIPT: &str = r#"
folder=$1 nats=$2 undercroft=$3; shift 3
ip link set lo up
setpriv --pdeathsig KILL "$nats" -c "$folder/nats.conf" 2>"$folder/nats.log" >"$folder/nats.out" &
echo $! >"$folder/nats.pid"
for try in $(seq 300); do
    if (exec 3<>/dev/tcp/127.0.0.1/4222) 2>/dev/null; then break; fi
    sleep 0.1
done
root=$folder/root
mount --bind "$root" "$root"
for dir in usr proc dev; do mount --rbind "/$dir" "$root/$dir"; done
mount --bind "$undercroft" "$root/undercroft"
for bind in "$root/usr" "$root/undercroft" "$root"; do mount -o remount,bind,ro "$bind"; done
who="--reuid 65532 --regid 65532 --groups 65532 --no-new-privs --bounding-set=-all --inh-caps=-all"
if chroot "$root" /usr/bin/setpriv $who /usr/bin/touch /tmp/written 2>/dev/null; then echo "it can write" >&2; exit 1; fi
exec chroot "$root" /usr/bin/env -i /usr/bin/setpriv $who /undercroft "$@"
"#;

/// The container's root, with the mounts of the Deployment as the kubelet makes them.
fn root(rendered: &Rendered, folder: &Path) {
    let root = folder.join("root");
    for dir in ["usr", "proc", "dev", "etc", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    for link in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{link}"), root.join(link)).unwrap();
    }
    fs::write(root.join("undercroft"), "").unwrap();
    fs::write(root.join("etc/hosts"), format!("127.0.0.1 {SERVICE}\n")).unwrap();
    let pod = &rendered.object("Deployment")["spec"]["template"]["spec"];
    let lay = |mount: &str, name: &str, content: &[u8], mode: u32| {
        // A folder for each version, and links to what is in it: pkg/volume/util/atomic_writer.go.
        let at = root.join(mount.trim_start_matches('/'));
        fs::create_dir_all(at.join("..version")).unwrap();
        symlink("..version", at.join("..data")).unwrap();
        symlink(format!("..data/{name}"), at.join(name)).unwrap();
        let file = at.join("..version").join(name);
        fs::write(&file, content).unwrap();
        chown(&file, Some(0), Some(USER)).unwrap();
        // With an `fsGroup`, the group gets the right to read: pkg/volume/volume_linux.go.
        fs::set_permissions(&file, fs::Permissions::from_mode(mode | 0o440)).unwrap();
    };
    for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|v| v["name"] == mount["name"]).unwrap();
        let at = mount["mountPath"].as_str().unwrap();
        let Some(secret) = volume.get("secret") else {
            let data = rendered.object("ConfigMap")["data"].clone();
            for (name, text) in data.as_object().unwrap() {
                lay(at, name, text.as_str().unwrap().as_bytes(), 0o644);
            }
            continue;
        };
        for item in secret["items"].as_array().unwrap() {
            let content = match item["key"].as_str().unwrap() {
                "server.nk" => rendered.key.seed().expose_secret().as_bytes().to_vec(),
                key => fs::read(folder.join(key)).unwrap(),
            };
            let mode = secret["defaultMode"].as_u64().unwrap();
            lay(
                at,
                item["path"].as_str().unwrap(),
                &content,
                u32::try_from(mode).unwrap(),
            );
        }
    }
}

#[test]
fn the_container_of_the_deployment_is_healthy_with_the_rendered_nats() {
    let rendered = Rendered::new();
    let Some(container) = Container::start(&rendered) else {
        return;
    };
    container.until("/livez", "HTTP/1.1 200 ");
    container.until("/readyz", "HTTP/1.1 200 ");
    // What the alerts are about is what the server counts.
    let metrics = container.asks("/metrics");
    let rules = rendered.object("PrometheusRule").to_string();
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: BTreeSet<&str> = words
        .filter(|word| word.starts_with("undercroft_lend_"))
        .collect();
    assert!(named.len() >= 5, "{named:?}");
    for name in named {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "{name}");
    }
    for reason in ["holding", "digest", "no-output"] {
        assert!(rules.contains(reason), "{reason}");
        assert!(
            metrics.contains(&format!("reason=\"{reason}\"")),
            "{reason}"
        );
    }
    // Without NATS it lives, and isn't ready.
    let nats = fs::read_to_string(container.folder.path().join("nats.pid")).unwrap();
    let killed = Command::new("kill").args(["-KILL", nats.trim()]).status();
    assert!(killed.unwrap().success());
    container.until("/readyz", "HTTP/1.1 503 ");
    container.until("/livez", "HTTP/1.1 200 ");
}

/// The rendered NATS, in the network of the tests.
struct RenderedNats {
    child: std::process::Child,
    folder: TempDir,
    port: u16,
    websocket_port: u16,
}

impl RenderedNats {
    fn start(rendered: &Rendered) -> Option<Self> {
        let program = peer("nats-server").or_skip()?;
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let (port, websocket_port) = (free(), free());
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let conf = rendered.nats(folder.path(), port, websocket_port);
        let file = folder.path().join("nats.conf");
        fs::write(&file, conf.to_string()).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(file)
            .stderr(fs::File::create(folder.path().join("nats.log")).unwrap())
            .spawn()
            .unwrap();
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", websocket_port)).is_err()
            || std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
        {
            let log = fs::read_to_string(folder.path().join("nats.log")).unwrap_or_default();
            assert!(since.elapsed() < WITHIN, "{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self {
            child,
            folder,
            port,
            websocket_port,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        format!("tls://localhost:{}", self.port)
    }

    fn options(&self, options: async_nats::ConnectOptions) -> async_nats::ConnectOptions {
        options
            .add_root_certificates(self.file("ca.crt"))
            .require_tls(true)
    }

    /// Greets by WebSocket, and gives what is heard up to an answer to a ping, or to the end.
    fn greets(&self, certificate: Option<&str>) -> String {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-quiet", "-connect"])
            .arg(format!("localhost:{}", self.websocket_port))
            .arg("-CAfile")
            .arg(self.file("ca.crt"));
        if let Some(name) = certificate {
            command.arg("-cert").arg(self.file(&format!("{name}.crt")));
            command.arg("-key").arg(self.file(&format!("{name}.key")));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut to = child.stdin.take().unwrap();
        // RFC 6455: the handshake, and a frame of bytes whose mask changes nothing.
        let say = "CONNECT {\"verbose\":false,\"tls_required\":true}\r\nPING\r\n";
        let mut frame = vec![0x82, 0x80 | u8::try_from(say.len()).unwrap(), 0, 0, 0, 0];
        frame.extend(say.as_bytes());
        let upgrade =
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        // Whoever is refused hears the end of it.
        let _ = to.write_all(upgrade);
        let mut from = child.stdout.take().unwrap();
        let (mut heard, mut chunk, mut has_said) = (Vec::new(), [0; 4096], false);
        loop {
            let read = from.read(&mut chunk).unwrap_or(0);
            heard.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&heard);
            if read == 0 || text.contains("PONG\r\n") || text.contains("-ERR") {
                break;
            }
            // NATS takes no frame before it has answered the handshake.
            if !has_said && text.contains("\r\n\r\n") {
                has_said = true;
                let _ = to.write_all(&frame);
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        String::from_utf8_lossy(&heard).into_owned()
    }
}

impl Drop for RenderedNats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whoever brings work has a key and no certificate; the cluster's own programs have certificates, and are nobody
/// without them.
#[tokio::test(flavor = "multi_thread")]
async fn the_rendered_nats_knows_keys_at_one_port_and_certificates_at_the_other() {
    let rendered = Rendered::new();
    let Some(nats) = RenderedNats::start(&rendered) else {
        return;
    };
    for key in [&rendered.key, &rendered.submitter] {
        let seed = key.seed().expose_secret().to_owned();
        let options = async_nats::ConnectOptions::with_nkey(seed);
        nats.options(options).connect(nats.url()).await.unwrap();
    }
    let stranger = UserKey::generate().seed().expose_secret().to_owned();
    for options in [
        async_nats::ConnectOptions::with_nkey(stranger),
        async_nats::ConnectOptions::new(),
        async_nats::ConnectOptions::with_user_and_password(CLIENT.to_owned(), String::new()),
    ] {
        let refused = nats.options(options).connect(nats.url()).await.unwrap_err();
        assert!(
            refused.to_string().contains("authorization violation"),
            "{refused}"
        );
    }
    if program("openssl", "openssl").or_skip().is_none() {
        return;
    }
    let heard = nats.greets(Some("client"));
    assert!(heard.contains("PONG\r\n"), "{heard}");
    // A certificate of NATS' own servers is nobody's who may connect.
    let heard = nats.greets(Some("tls"));
    assert!(heard.contains("-ERR 'Authorization Violation'"), "{heard}");
    let heard = nats.greets(None);
    assert!(!heard.contains("INFO "), "{heard}");
}
