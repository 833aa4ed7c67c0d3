//! A fleet on the virtual rack, driven by the command as its users drive it.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde_json::Value;

/// The longest that one machine's bring-up may take, with the margin that a busy machine of two
/// cores needs: it takes about 90 s alone.
pub(crate) const BRING_UP_S: u64 = 600;

/// How often a condition is looked at, in milliseconds.
const POLL_MS: u64 = 5;

/// Machines are started by one test at a time; they would starve each other.
static ONE_RACK: Mutex<()> = Mutex::new(());

/// One machine of a fleet.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) system: &'static str,
    pub(crate) firmware: &'static str,
    pub(crate) disk_bus: &'static str,
    pub(crate) number: u8,
}

impl Node {
    pub(crate) fn uefi(name: &'static str, number: u8) -> Self {
        Self {
            name,
            system: "x86_64-linux",
            firmware: "uefi",
            disk_bus: "virtio",
            number,
        }
    }

    pub(crate) fn serial(&self) -> String {
        format!("E2E{:04}ROOT", self.number)
    }

    pub(crate) fn mac(&self) -> String {
        format!("52:54:00:88:00:{:02x}", self.number)
    }

    pub(crate) fn address(&self) -> String {
        format!("10.88.0.{}", self.number)
    }
}

/// The inventory of a fleet of these machines.
pub(crate) fn inventory(dhcp: &str, nodes: &[Node]) -> String {
    let mut text = format!(
        r#"[fleet]
name = "e2e"
builder = "debian-rack"
admin_keys = []

[fleet.limits]
network_boots = 3
closure_copies = 3
reboots = 3
failure_budget = 2

[fleet.timeouts]
network_boot_s = 420
approval_s = 120
inspect_s = 120
partition_s = 180
copy_s = 600
install_s = 300
reboot_s = 420
prove_s = 180

[network]
node_cidr = "10.88.0.0/24"
server_address = "10.88.0.1"
interface = "br0"
dhcp = "{dhcp}"
http_port = 8080

[kubernetes]
distribution = "none"
"#
    );
    for node in nodes {
        let memory_mb = if node.system == "aarch64-linux" {
            1536
        } else {
            1024
        };
        text.push_str(&format!(
            r#"
[classes.{name}]
kind = "plain"
system = "{system}"
firmware = "{firmware}"
layout = "ext4"
esp_mb = 128
power = {{ kind = "rack" }}

[nodes.{name}]
class = "{name}"
macs = ["{mac}"]
uuid = "3f0c5d1e-6a6b-4d0c-9d1c-0a88000000{number:02x}"
address = "{address}"
disks = [{{ serial = "{serial}", role = "root", size_gb = 3 }}]
rack = {{ disk_bus = "{bus}", memory_mb = {memory_mb}, cpus = 1, disk_gb = 3 }}
"#,
            name = node.name,
            system = node.system,
            firmware = node.firmware,
            mac = node.mac(),
            number = node.number,
            address = node.address(),
            serial = node.serial(),
            bus = node.disk_bus,
        ));
    }
    text
}

/// Why machines can't be started here, if they can't.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
            .any(|folder| folder.join(program).is_file())
    };
    let always = [
        "qemu-system-x86_64",
        "nix",
        "ip",
        "ssh",
        "unshare",
        "nsenter",
        "apt-get",
    ];
    if let Some(program) = always
        .iter()
        .chain(programs)
        .find(|program| !found(program))
    {
        return Some(format!(
            "{program} is not installed; `cargo xtask packages` installs it"
        ));
    }
    let namespace = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "true"])
        .stderr(Stdio::null())
        .status();
    if !namespace.is_ok_and(|status| status.success()) {
        return Some("this machine allows no user and network namespaces".to_owned());
    }
    None
}

/// A rack with its fleet. Dropping it takes the rack down; a failed test leaves its logs.
pub(crate) struct Fleet {
    pub(crate) folder: PathBuf,
    runs: u32,
    _alone: MutexGuard<'static, ()>,
}

impl Fleet {
    /// Writes the inventory and starts the rack, with its machines off.
    pub(crate) fn start(test: &str, inventory: &str, rack_arguments: &[&str]) -> Self {
        let alone = ONE_RACK
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("e2e")
            .join(test);
        let mut fleet = Self {
            folder,
            runs: 0,
            _alone: alone,
        };
        if fleet.folder.exists() {
            fleet.call(&["rack", "down"]);
            fs::remove_dir_all(&fleet.folder).unwrap();
        }
        fs::create_dir_all(&fleet.folder).unwrap();
        fs::write(fleet.folder.join("undercroft.toml"), inventory).unwrap();
        let mut words = vec!["rack", "up"];
        words.extend(rack_arguments);
        let up = fleet.call(&words);
        assert!(up.status.success(), "rack up: {}", up.text);
        fleet
    }

    /// The command in this fleet's folder.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache");
        let mut command = Command::new(env!("CARGO_BIN_EXE_undercroft"));
        command
            .arg("-C")
            .arg(&self.folder)
            .args(words)
            .env("UNDERCROFT_CACHE_DIR", cache)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn call(&mut self, words: &[&str]) -> Done {
        let mut run = self.spawn(words);
        let status = run.wait(BRING_UP_S);
        Done {
            status,
            text: run.text(),
        }
    }

    /// Starts a command in a process group of its own, its output in a file.
    pub(crate) fn spawn(&mut self, words: &[&str]) -> Run {
        self.runs += 1;
        let log = self
            .folder
            .join(format!("run-{:02}-{}.log", self.runs, words[0]));
        let file = fs::File::create(&log).unwrap();
        let child = self
            .command(words)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap();
        Run {
            child,
            log,
            name: words.join(" "),
        }
    }

    /// What a command that reports prints as JSON.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let output = self
            .command(words)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!(
                "{words:?}: {e}: {}",
                String::from_utf8_lossy(&output.stdout)
            )
        })
    }

    /// The journal's records so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let output = self.command(&["events", "--json"]).output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A machine's disk image.
    pub(crate) fn disk(&self, node: &Node) -> PathBuf {
        self.folder
            .join(".undercroft/rack/machines")
            .join(node.name)
            .join("disk0.img")
    }

    /// How many bytes of a machine's disk were ever written.
    pub(crate) fn disk_written_bytes(&self, node: &Node) -> u64 {
        fs::metadata(self.disk(node)).unwrap().blocks() * 512
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let down = self.call(&["rack", "down"]);
        if !std::thread::panicking() {
            assert!(down.status.success(), "rack down: {}", down.text);
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
}

/// A command that runs.
pub(crate) struct Run {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Run {
    pub(crate) fn wait(&mut self, limit_s: u64) -> ExitStatus {
        let end = Instant::now() + Duration::from_secs(limit_s);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > end {
                self.kill();
                panic!(
                    "`{}` took longer than {limit_s} s:\n{}",
                    self.name,
                    self.text()
                );
            }
            std::thread::sleep(Duration::from_millis(POLL_MS));
        }
    }

    /// `kill -9`, for the command and all that it started and that stayed with it.
    pub(crate) fn kill(&mut self) {
        let group = format!("-{}", self.child.id());
        Command::new("kill")
            .args(["-KILL", "--", &group])
            .status()
            .unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// Whether a record is of that step of that machine.
pub(crate) fn step_is(plan: &Value, record: &Value, node: &str, verb: &str) -> bool {
    let Some(index) = record["step"].as_u64() else {
        return false;
    };
    let step = &plan["steps"][usize::try_from(index).unwrap()];
    let action = if verb == "copy" { "copy-closure" } else { verb };
    step["node"] == node && step["action"]["do"] == action
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, limit_s: u64, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(limit_s);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {limit_s} s");
        std::thread::sleep(Duration::from_millis(POLL_MS));
    }
}
