//! What the server counts, in Prometheus' text format, for whoever asks on the loopback interface.

use std::{collections::BTreeMap, fmt::Write as _, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
};
use undercroft_lend::{
    DeviceName,
    server::record::{JobRecord, State},
};

use super::event::RefusedFor;

/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long whoever asks may take, in milliseconds.
const ASK_MS_MAX: u64 = 5_000;
/// Questions at once.
const ASKING_MAX: usize = 8;
/// A device that was heard of within so long is there, in milliseconds: it asks at least once a minute.
pub(crate) const SEEN_MS_MAX: u64 = 150_000;

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) refused: BTreeMap<RefusedFor, u64>,
    pub(crate) stored: [u64; 3],
    pub(crate) assigned: u64,
    /// From submission to the first assignment.
    pub(crate) waited_ms: u64,
    pub(crate) waited: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// What all content takes, when it was looked at last.
    pub(crate) kept_bytes: u64,
    pub(crate) removed_bytes: u64,
    pub(crate) seen_ms: BTreeMap<DeviceName, u64>,
}

impl Counts {
    pub(crate) fn refuse(&mut self, reason: RefusedFor) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// All of it as text. `mono_ms` is now.
    pub(crate) fn text<'a>(
        &self,
        jobs: impl Iterator<Item = &'a JobRecord>,
        is_connected: bool,
        mono_ms: u64,
    ) -> String {
        let mut states: BTreeMap<&str, u64> =
            ["queued", "leased", "done", "dead"].map(|s| (s, 0)).into();
        for record in jobs {
            let state = match record.state {
                State::Queued => "queued",
                State::Leased(_) => "leased",
                State::Done { .. } => "done",
                State::Dead(_) => "dead",
            };
            *states.entry(state).or_default() += 1;
        }
        let mut out = Text(String::new());
        out.head("jobs", "gauge", "Jobs by state.");
        for (state, count) in &states {
            out.row("jobs", &format!("{{state=\"{state}\"}}"), count);
        }
        out.head("connected", "gauge", "Whether NATS is there.");
        out.row("connected", "", &u8::from(is_connected));
        let there = self.seen_ms.values();
        let there = there.filter(|at| mono_ms.saturating_sub(**at) <= SEEN_MS_MAX);
        out.head("devices", "gauge", "Devices heard of lately.");
        out.row("devices", "", &there.count());
        out.head(
            "content_kept_bytes",
            "gauge",
            "Bytes of content that is kept.",
        );
        out.row("content_kept_bytes", "", &self.kept_bytes);
        self.counters(&mut out);
        out.0
    }

    fn counters(&self, out: &mut Text) {
        out.head("refused_total", "counter", "Messages refused, by reason.");
        for reason in RefusedFor::ALL {
            let count = self.refused.get(&reason).copied().unwrap_or(0);
            out.row(
                "refused_total",
                &format!("{{reason=\"{}\"}}", reason.as_str()),
                &count,
            );
        }
        out.head(
            "stored_total",
            "counter",
            "Changes asked of the store, by answer.",
        );
        for (how, count) in ["yes", "conflict", "unknown"].iter().zip(self.stored) {
            out.row("stored_total", &format!("{{how=\"{how}\"}}"), &count);
        }
        out.head(
            "assigned_total",
            "counter",
            "Times that jobs were handed out.",
        );
        out.row("assigned_total", "", &self.assigned);
        out.head(
            "wait_seconds",
            "summary",
            "From submission to the first assignment.",
        );
        out.row("wait_seconds_sum", "", &seconds(self.waited_ms));
        out.row("wait_seconds_count", "", &self.waited);
        out.head(
            "content_bytes_total",
            "counter",
            "Bytes of content, by direction.",
        );
        out.row("content_bytes_total", "{direction=\"in\"}", &self.bytes_in);
        out.row(
            "content_bytes_total",
            "{direction=\"out\"}",
            &self.bytes_out,
        );
        out.head(
            "content_removed_bytes_total",
            "counter",
            "Bytes of content taken out that nobody needed any more.",
        );
        out.row("content_removed_bytes_total", "", &self.removed_bytes);
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(
            self.0,
            "# HELP undercroft_lend_{name} {help}\n# TYPE undercroft_lend_{name} {kind}"
        );
    }

    fn row(&mut self, name: &str, labels: &str, value: &dyn std::fmt::Display) {
        let _ = writeln!(self.0, "undercroft_lend_{name}{labels} {value}");
    }
}

/// Somebody asks for the numbers.
pub(crate) type Asked = oneshot::Sender<String>;

/// Listens where numbers are asked for, which is this machine alone.
pub(crate) async fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    if !at.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "numbers name devices and tenants, and are given on the loopback interface alone",
        ));
    }
    TcpListener::bind(at).await
}

/// Answers those who ask, until the server ends.
pub(crate) async fn serve(listener: TcpListener, ask: mpsc::Sender<Asked>) {
    let room = std::sync::Arc::new(Semaphore::new(ASKING_MAX));
    loop {
        let Ok(permit) = std::sync::Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Too many files are open; whoever asks comes again.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let ask = ask.clone();
        tokio::spawn(async move {
            let limit = Duration::from_millis(ASK_MS_MAX);
            // Who doesn't read the answer doesn't get it.
            let _ = tokio::time::timeout(limit, answer(stream, ask)).await;
            drop(permit);
        });
    }
}

async fn answer(mut stream: tokio::net::TcpStream, ask: mpsc::Sender<Asked>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await?;
        if read == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
        head.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    let is_metrics = head.starts_with(b"GET /metrics ");
    let (status, body) = if is_metrics {
        let (tell, told) = oneshot::channel();
        let _ = ask.send(tell).await;
        ("200 OK", told.await.unwrap_or_default())
    } else {
        ("404 Not Found", "there is /metrics\n".to_owned())
    };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
