//! What the server counts, in Prometheus' text format, and how it is, for whoever may ask: on the loopback interface,
//! or where an operator says so.

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

/// Where numbers are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsAt {
    /// The address.
    pub at: SocketAddr,
    /// Whether it may be another than one of the loopback interface, as nobody is asked who they are.
    pub beyond_loopback: bool,
}

/// What whoever asks is told.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) text: String,
    pub(crate) is_connected: bool,
}

/// Somebody asks for the numbers.
pub(crate) type Asked = oneshot::Sender<Numbers>;

/// Listens where numbers are asked for.
pub(crate) async fn listen(asked_for: MetricsAt) -> io::Result<TcpListener> {
    if !asked_for.at.ip().is_loopback() && !asked_for.beyond_loopback {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "numbers say how much is lent, and are given on the loopback interface alone unless --metrics-beyond-loopback says otherwise",
        ));
    }
    TcpListener::bind(asked_for.at).await
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

/// What may be asked for.
const PATHS: [&[u8]; 3] = [b"/metrics", b"/livez", b"/readyz"];

/// What is said to one of [`PATHS`], by what the server itself said. That NATS is away is no reason to begin the
/// server anew, which comes back by itself; it is one to say that it does nothing now.
fn said(path: &[u8], told: Option<Numbers>) -> (&'static str, String) {
    match told {
        None => (UNAVAILABLE, "the server ends\n".to_owned()),
        Some(numbers) if path == b"/metrics" => ("200 OK", numbers.text),
        Some(numbers) if path == b"/readyz" && !numbers.is_connected => {
            (UNAVAILABLE, "NATS is away\n".to_owned())
        }
        Some(_) => ("200 OK", "ok\n".to_owned()),
    }
}

const UNAVAILABLE: &str = "503 Service Unavailable";

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
    let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let (status, body) = if !head.starts_with(b"GET ") || !PATHS.contains(&path) {
        (
            "404 Not Found",
            "there are /metrics, /livez and /readyz\n".to_owned(),
        )
    } else {
        let (tell, told) = oneshot::channel();
        let _ = ask.send(tell).await;
        said(path, told.await.ok())
    };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_stay_on_this_machine_unless_somebody_says_otherwise() {
        let listens = async |at: &str, beyond_loopback: bool| {
            let at = at.parse().unwrap();
            let asked_for = MetricsAt {
                at,
                beyond_loopback,
            };
            listen(asked_for).await.is_ok()
        };
        assert!(listens("127.0.0.1:0", false).await);
        assert!(!listens("0.0.0.0:0", false).await);
        assert!(listens("0.0.0.0:0", true).await);
    }

    /// Asks for a path, and is told what the server's loop says; it says nothing where it has ended.
    async fn asks(path: &str, is_connected: Option<bool>) -> String {
        let asked_for = MetricsAt {
            at: "127.0.0.1:0".parse().unwrap(),
            beyond_loopback: false,
        };
        let listener = listen(asked_for).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (ask, mut asked) = mpsc::channel::<Asked>(1);
        let serves = tokio::spawn(serve(listener, ask));
        let answers = tokio::spawn(async move {
            while let Some(tell) = asked.recv().await {
                let Some(is_connected) = is_connected else {
                    return;
                };
                let text = "jobs 3\n".to_owned();
                let _ = tell.send(Numbers { text, is_connected });
            }
        });
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serves.abort();
        answers.abort();
        answer
    }

    #[tokio::test]
    async fn a_server_without_nats_is_alive_and_not_ready() {
        for (path, is_connected, begins, ends) in [
            ("/livez", Some(true), "HTTP/1.1 200 ", "ok\n"),
            ("/livez", Some(false), "HTTP/1.1 200 ", "ok\n"),
            ("/readyz", Some(true), "HTTP/1.1 200 ", "ok\n"),
            ("/readyz", Some(false), "HTTP/1.1 503 ", "NATS is away\n"),
            ("/metrics", Some(false), "HTTP/1.1 200 ", "jobs 3\n"),
            ("/livez", None, "HTTP/1.1 503 ", "the server ends\n"),
            ("/metrics", None, "HTTP/1.1 503 ", "the server ends\n"),
            ("/metricsx", Some(true), "HTTP/1.1 404 ", "/readyz\n"),
            ("/", Some(true), "HTTP/1.1 404 ", "/readyz\n"),
        ] {
            let answer = asks(path, is_connected).await;
            assert!(
                answer.starts_with(begins) && answer.ends_with(ends),
                "{path} {is_connected:?}: {answer}"
            );
        }
    }
}
