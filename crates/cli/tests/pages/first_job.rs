//! docs/lend-your-pc.md takes an owner from nothing to a first job: its commands, in its order, with a real NATS.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command as Program, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use undercroft_testkit::{OrSkip as _, peer, program, skip};

use crate::{
    page::{Block, Command, Mark, Reason, pages},
    session::shows,
};

const PAGE: &str = "docs/lend-your-pc.md";
const TEST: &str = "a_first_job_by_the_page";
/// How long something may take that takes seconds at most.
const WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// A folder, and what runs there.
struct Desk {
    root: TempDir,
    runs: BTreeMap<&'static str, Runs>,
}

/// What was started and goes on.
struct Runs {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Desk {
    /// `None`, said openly, where something of it isn't on this machine.
    fn new() -> Option<Self> {
        let nats = peer("nats-server").or_skip()?;
        program("bwrap", "bubblewrap").or_skip()?;
        if !built().with_file_name("undercroft-job").is_file() {
            skip("undercroft-job isn't built; `cargo build -p undercroft-jobrun` makes it");
            return None;
        }
        let root = TempDir::new().unwrap();
        for folder in ["bin", "run", "home", "work"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        symlink(nats, root.path().join("bin/nats-server")).unwrap();
        Some(Self {
            root,
            runs: BTreeMap::new(),
        })
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("work")
    }

    fn bash(&self, command: &str) -> Program {
        let at = |name| self.root.path().join(name);
        let own = built();
        let folders = [at("bin"), own.parent().unwrap().to_owned()];
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = folders.into_iter().chain(std::env::split_paths(&others));
        let mut bash = Program::new("bash");
        bash.args(["--norc", "--noprofile", "-c"])
            .arg(format!("exec 2>&1; {command}"))
            .current_dir(at("work"))
            .env_clear()
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", at("home"))
            .env("XDG_RUNTIME_DIR", at("run"))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        bash
    }

    /// Starts what goes on, and waits until it says something.
    fn start(&mut self, name: &'static str, command: &str, says: &str) {
        let mut bash = self.bash(&format!("exec {command}"));
        let mut child = bash
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, to) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                to.lock().unwrap().push(line);
            }
        });
        let runs = self.runs.entry(name).or_insert(Runs { child, lines });
        let since = Instant::now();
        while !runs.lines.lock().unwrap().iter().any(|l| l.contains(says)) {
            assert!(since.elapsed() < WITHIN, "{command}: {:#?}", runs.lines);
            std::thread::sleep(LOOK);
        }
    }

    /// Runs a command to its end: its code, and what it printed.
    fn run(&self, command: &str) -> (Option<i32>, String) {
        let output = self.bash(command).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), printed)
    }

    /// Does what a line of the page says.
    fn obey(&mut self, command: &Command) {
        let place = format!("{PAGE}:{}: {}", command.line, command.text);
        let since = Instant::now();
        if command.text.contains("lend demo") {
            return self.start("demo", &command.text, "ready: ");
        }
        if command.text.contains("lend run") {
            return self.start("daemon", &command.text, "takes work");
        }
        let (code, printed) = loop {
            let (code, printed) = self.run(&command.text);
            // The page waits with its reader until the job runs.
            let waits = command.text.contains("lend status") && !printed.contains(" runs, for ");
            if !waits || since.elapsed() > WITHIN {
                break (code, printed);
            }
            std::thread::sleep(LOOK);
        };
        let said = self
            .runs
            .iter()
            .map(|(name, runs)| format!("{name}: {:#?}", runs.lines));
        let said: Vec<String> = said.collect();
        assert_eq!(code, Some(0), "{place}\n{printed}\n{}", said.join("\n"));
        let fits = command.shown.is_empty() || shows(&command.shown, &printed);
        assert!(
            fits,
            "{place}\nshould show:\n{}\nand shows:\n{printed}",
            command.shown.join("\n")
        );
        println!("{:>6} ms  {}", since.elapsed().as_millis(), command.text);
    }

    /// Ends what was started, as Ctrl-C would; gives its exit code.
    fn end(&mut self, name: &str) -> Option<i32> {
        let mut runs = self.runs.remove(name).unwrap();
        let pid = Pid::from_raw(i32::try_from(runs.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let since = Instant::now();
        while since.elapsed() < WITHIN {
            if let Some(status) = runs.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(LOOK);
        }
        let _ = runs.child.kill();
        panic!("{name} doesn't end: {:#?}", runs.lines);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for runs in self.runs.values_mut() {
            // The demonstration ends its NATS when it is told to; a killed one couldn't.
            if let Some(pid) = i32::try_from(runs.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = runs.child.wait();
        }
    }
}

fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_undercroft"))
}

#[test]
fn a_first_job_by_the_page() {
    let Some(mut desk) = Desk::new() else {
        return;
    };
    let page = pages().into_iter().find(|page| page.name == PAGE).unwrap();
    let is_ours =
        |block: &&Block| matches!(&block.mark, Ok(Mark::Not(Reason::Test(name))) if name == TEST);
    let blocks: Vec<&Block> = page.blocks.iter().filter(is_ours).collect();
    let [first, second] = blocks.as_slice() else {
        panic!("{PAGE} has {} blocks for this test", blocks.len());
    };
    assert_eq!(first.commands.len(), 5, "a first job takes five commands");
    for command in &first.commands {
        desk.obey(command);
    }
    let made = std::fs::read_to_string(desk.folder().join("first-job.out")).unwrap();
    let text = std::fs::read_to_string(desk.folder().join("first-job.txt")).unwrap();
    assert_eq!(made, text.to_uppercase());
    for command in &second.commands {
        desk.obey(command);
    }
    // It ends as the page says, and NATS with it.
    assert_eq!(desk.end("daemon"), Some(0));
    assert_eq!(desk.end("demo"), Some(0));
    let inventory = std::fs::read_to_string(desk.folder().join("undercroft.toml")).unwrap();
    let (_, after) = inventory.split_once("tls://localhost:").unwrap();
    let port: String = after.chars().take_while(char::is_ascii_digit).collect();
    let nats = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap()));
    assert!(nats.is_err(), "NATS runs still");
}
