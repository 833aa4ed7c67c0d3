//! A whole site: NATS, the server of lending as its own process, submitters and lent PCs.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use undercroft_lending::keys::UserKey;
use undercroft_testkit::{OrSkip as _, peer};

use crate::{
    lender::Lender,
    nats::{Accounts, Nats},
    support::{Ran, Sandbox},
};

/// How long something may take that takes a second at most.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Site {
    pub(crate) sandbox: Sandbox,
    pub(crate) nats: Nats,
    pub(crate) lenders: Vec<Lender>,
    pub(crate) accounts: Accounts,
    folder: TempDir,
}

impl Site {
    /// One with lent PCs of these names; `None`, openly, where there is no nats-server.
    pub(crate) fn new(devices: &[&str]) -> Option<Self> {
        let program = peer("nats-server").or_skip()?;
        let sandbox = Sandbox::new();
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str| {
            let path = folder.path().join(name);
            UserKey::read_or_make(&path).unwrap().0.public().0
        };
        let mut accounts = Accounts {
            services: [("lend-server".to_owned(), key("server.nk"))].into(),
            submitters: ["ci", "guest"]
                .map(|n| (n.to_owned(), key(&format!("{n}.nk"))))
                .into(),
            devices: BTreeMap::new(),
        };
        let lenders = devices
            .iter()
            .map(|name| Lender::new(name, folder.path(), "", folder.path()));
        let mut lenders: Vec<Lender> = lenders.collect();
        for lender in &lenders {
            accounts
                .devices
                .insert(lender.name.to_string(), lender.keys.device.0.clone());
        }
        let nats = Nats::start(program, folder.path(), &accounts.render());
        for lender in &mut lenders {
            lender.settings.url = nats.url();
            lender.settings.ca_file = Some(nats.ca());
        }
        let mut inventory = format!(
            "[fleet]\nname = \"cellar\"\n[network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.1\"\n\
             [classes.box]\n[nodes.one]\nclass = \"box\"\nmacs = [\"52:54:00:00:00:0b\"]\naddress = \"10.0.0.11\"\n\
             disks = [{{ serial = \"ONE\" }}]\n[users.ada]\n\
             [lending]\nenabled = true\nnats_url = \"{}\"\nruntimes = [\"process\", \"wasm\", \"nix\"]\nlease_s = 10\nheartbeat_s = 2\n\
             tenants = [\"research\", \"others\"]\nmax_sensitivity = \"internal\"\nserver_key = \"{}\"\n",
            nats.url(),
            accounts.services["lend-server"],
        );
        for ((name, key), tenant) in accounts.submitters.iter().zip(["research", "others"]) {
            inventory += &format!(
                "[lending.submitters.{name}]\nnkey = \"{key}\"\ntenant = \"{tenant}\"\nbrings = \"public\"\n"
            );
        }
        for lender in &lenders {
            inventory += &format!(
                "[pcs.{}]\nos = \"linux\"\nsystem = \"x86_64-linux\"\nusers = [\"ada\"]\n\
                 lend = {{ enabled = true, nkey = \"{}\", owner_key = \"{}\" }}\n",
                lender.name, lender.keys.device.0, lender.keys.owner.0
            );
        }
        sandbox.write("undercroft.toml", &inventory);
        Some(Self {
            sandbox,
            nats,
            lenders,
            accounts,
            folder,
        })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the server of lending, and waits until it is ready.
    pub(crate) fn server(&self) -> Process {
        self.server_with(&[])
    }

    /// One with further arguments.
    pub(crate) fn server_with(&self, args: &[&str]) -> Process {
        let mut command =
            self.sandbox
                .command(["lend", "server", "--json", "--metrics", "127.0.0.1:0"]);
        command.arg("--key").arg(self.file("server.nk"));
        command.arg("--ca").arg(self.nats.ca());
        command.args(args);
        let server = Process::start(command);
        server.wait_for(|line| line.contains("\"ready\""));
        server
    }

    /// A command of a submitter.
    pub(crate) fn lend(&self, who: &str, args: &[&str]) -> Ran {
        self.sandbox.finish(&mut self.lend_command(who, args))
    }

    pub(crate) fn lend_command(&self, who: &str, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(["lend"]);
        command.args(args);
        command.arg("--key").arg(self.file(&format!("{who}.nk")));
        command.arg("--ca").arg(self.nats.ca());
        command
    }

    /// Writes a job's file and its input.
    pub(crate) fn job(&self, id: &str, input: &[u8]) -> String {
        let more = "sensitivity = \"public\"";
        self.job_with(id, "research", input, more)
    }

    pub(crate) fn job_with(&self, id: &str, tenant: &str, input: &[u8], more: &str) -> String {
        fs::write(self.sandbox.dir().join("program"), b"a program").unwrap();
        fs::write(self.sandbox.dir().join(format!("{id}.in")), input).unwrap();
        let name = format!("{id}.toml");
        self.sandbox.write(
            &name,
            &format!(
                "id = \"{id}\"\ntenant = \"{tenant}\"\nruntime = \"process\"\nartefact = \"program\"\n{more}\n\
                 [inputs]\ntext = \"{id}.in\"\n[limits]\ncpu_percent = 100\nmemory_mb = 64\ndisk_mb = 16\nwall_s = 60\n"
            ),
        );
        name
    }
}

/// The server of lending, as a process of its own.
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with_pid(command).0
    }

    /// The same, with the process' id.
    pub(crate) fn start_with_pid(mut command: Command) -> (Self, u32) {
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, to) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                to.lock().unwrap().push(line);
            }
        });
        let pid = child.id();
        (Self { child, lines }, pid)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until a line is there that fits.
    pub(crate) fn wait_for(&self, fits: impl Fn(&str) -> bool) -> String {
        let since = Instant::now();
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| fits(line)) {
                return line;
            }
            assert!(since.elapsed() < WITHIN, "{:#?}", self.lines());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What its metrics say now.
    pub(crate) fn metrics(&self) -> String {
        let ready = self.wait_for(|line| line.contains("\"ready\""));
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let at = ready["event"]["ready"]["metrics"].as_str().unwrap();
        let body = ureq::get(format!("http://{at}/metrics")).call().unwrap();
        body.into_body().read_to_string().unwrap()
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
