//! A real nats-server for a demonstration, which ends with it.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use undercroft_folder::confined::{Confined, Modes};
use undercroft_lending::accounts::Accounts;

use super::files::CERT_FILES;
use crate::error::CliError;

/// How long a server may take to greet; it takes some 100 ms.
const GREETS_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to end, before it is killed; JetStream writes what it holds.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Rests between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long one greeting is waited for.
const GREETING: Duration = Duration::from_secs(1);
/// The most that a demonstration may keep, in bytes.
const STORE_BYTES_MAX: u64 = 4 << 30;
/// How much of its log is shown when it ends by itself, in lines.
const LOG_LINES: usize = 5;
/// Its configuration, and what it says, in the folder.
const CONFIG_FILE: &str = "nats.conf";
const LOG_FILE: &str = "nats.log";

/// The server.
pub(super) struct Nats {
    child: Child,
    log: PathBuf,
}

impl Nats {
    /// Starts it, and waits until it greets.
    pub(super) async fn start(
        program: &Path,
        dir: &Path,
        url: &str,
        accounts: &Accounts,
    ) -> Result<Self, CliError> {
        let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let port: u16 = port.ok_or_else(|| {
            CliError::input(format!("{url:?} of `lending.nats_url` has no port"))
                .hint("A demonstration listens at tls://localhost:PORT.")
        })?;
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Err(
                CliError::failed(format!("somebody listens on port {port} already"))
                    .hint("Is this demonstration running in another terminal?"),
            );
        }
        let [cert, key] = CERT_FILES.map(|name| dir.join(name));
        let config = json!({
            "listen": format!("127.0.0.1:{port}"),
            "tls": { "cert_file": cert, "key_file": key, "timeout": 5 },
            "jetstream": { "store_dir": dir.join("jetstream"), "max_file_store": STORE_BYTES_MAX },
            "system_account": "SYS",
            "accounts": accounts.render(),
        });
        Confined::new(dir)
            .replace(
                CONFIG_FILE,
                format!("{config:#}\n").as_bytes(),
                Modes::PRIVATE,
            )
            .map_err(|e| CliError::from(&e))?;
        let log = dir.join(LOG_FILE);
        let file = File::create(&log).map_err(|e| CliError::file("write", &log, &e))?;
        let child = Command::new(program)
            .arg("-c")
            .arg(dir.join(CONFIG_FILE))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .kill_on_drop(true)
            // A Ctrl-C in the terminal is for the demonstration, which ends it in its time.
            .process_group(0)
            .spawn()
            .map_err(|e| not_started(program, &e))?;
        let mut nats = Self { child, log };
        nats.greets(port).await?;
        Ok(nats)
    }

    async fn greets(&mut self, port: u16) -> Result<(), CliError> {
        let since = Instant::now();
        while since.elapsed() < GREETS_WITHIN {
            if let Ok(Some(_)) = self.child.try_wait() {
                return Err(self.ended().await);
            }
            if greets(port).await {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(CliError::failed(format!(
            "nats-server doesn't answer on port {port} within {} s",
            GREETS_WITHIN.as_secs()
        ))
        .hint(format!("Its log is {}.", self.log.display())))
    }

    /// Waits until it has ended by itself, and says why.
    pub(super) async fn ended(&mut self) -> CliError {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LOG_LINES)..);
        let last = last.unwrap_or_default().join("\n");
        CliError::failed(format!("nats-server has ended ({how}): {last}"))
            .hint("It has to be nats-server 2.11 or later: `nats-server --version`.")
    }

    /// Tells it to end, and sees that it does.
    pub(super) async fn end(&mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(ENDS_WITHIN, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

fn not_started(program: &Path, error: &io::Error) -> CliError {
    let failed = CliError::failed(format!("can't start {}", program.display())).because(error);
    match error.kind() {
        io::ErrorKind::NotFound => failed.hint(
            "Install nats-server 2.11 or later, or name it with --nats-server; in the sources of Undercroft, \
             `cargo xtask peers nats-server` builds one.",
        ),
        _ => failed,
    }
}

async fn greets(port: u16) -> bool {
    let greeting = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut begin = [0; 5];
        stream.read_exact(&mut begin).await?;
        Ok::<_, io::Error>(&begin == b"INFO ")
    };
    matches!(timeout(GREETING, greeting).await, Ok(Ok(true)))
}
