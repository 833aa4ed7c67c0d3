//! The socket at which numbers are asked for, and how whoever counts is: few questions at once, and a limit for each.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
};

/// The longest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long whoever asks may take, in milliseconds.
pub const ASK_MS_MAX: u64 = 5_000;
/// Questions at once.
pub const ASKING_MAX: usize = 8;
/// How long nobody is let in after somebody could not be, in milliseconds: too many files are open.
const ACCEPT_PAUSE_MS: u64 = 100;

/// What whoever asks is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// The numbers, as Prometheus reads them.
    pub text: String,
    /// Why nothing can be done now; that is no reason to begin whoever counts anew.
    pub not_ready: Option<&'static str>,
}

impl From<String> for Numbers {
    fn from(text: String) -> Self {
        Self {
            text,
            not_ready: None,
        }
    }
}

/// Somebody asks for the numbers.
pub type Asked = oneshot::Sender<Numbers>;

/// What may be asked for.
const PATHS: [&str; 3] = ["/metrics", "/livez", "/readyz"];
const UNAVAILABLE: &str = "503 Service Unavailable";

/// What is said to one of [`PATHS`], by what was told. Who counts no more is told to nobody as numbers: an empty answer
/// would be one without alarms.
fn said(path: &str, told: Option<Numbers>) -> (&'static str, String) {
    match told {
        None => (UNAVAILABLE, "nobody counts any more\n".to_owned()),
        Some(numbers) if path == "/metrics" => ("200 OK", numbers.text),
        Some(Numbers {
            not_ready: Some(why),
            ..
        }) if path == "/readyz" => (UNAVAILABLE, format!("{why}\n")),
        Some(_) => ("200 OK", "ok\n".to_owned()),
    }
}

/// Answers those who ask, until it is dropped or nobody is left who knows the numbers.
pub async fn serve(listener: TcpListener, ask: mpsc::Sender<Asked>) {
    let room = Arc::new(Semaphore::new(ASKING_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Whoever asks comes again.
            tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
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

async fn answer(mut stream: TcpStream, ask: mpsc::Sender<Asked>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await?;
        if read == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
        head.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    let path = String::from_utf8_lossy(&head);
    let path = path
        .strip_prefix("GET ")
        .and_then(|rest| rest.split(' ').next());
    let path = path.map(|path| path.split('?').next().unwrap_or(path));
    let (status, body) = match path.filter(|path| PATHS.contains(path)) {
        Some(path) => {
            let (tell, told) = oneshot::channel();
            let _ = ask.send(tell).await;
            said(path, told.await.ok())
        }
        None => (
            "404 Not Found",
            "there are /metrics, /livez and /readyz\n".to_owned(),
        ),
    };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    async fn started() -> (SocketAddr, mpsc::Receiver<Asked>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (ask, asked) = mpsc::channel(1);
        tokio::spawn(serve(listener, ask));
        (at, asked)
    }

    async fn asked_for(at: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        // A connection that is closed early may be reset, with what it was sent unread.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn numbers_are_given_at_their_path_alone_and_never_made_up() {
        let (at, mut asked) = started().await;
        let counting = tokio::spawn(async move {
            for _ in 0..2 {
                let tell: Asked = asked.recv().await.unwrap();
                tell.send("bottles 7\n".to_owned().into()).unwrap();
            }
        });
        for path in ["/metrics", "/metrics?x=1"] {
            let answer = asked_for(at, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\nbottles 7\n"), "{answer}");
        }
        let answer = asked_for(at, b"GET /metricsx HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        counting.await.unwrap();
        // Who counted has gone.
        let answer = asked_for(at, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }

    #[tokio::test]
    async fn whoever_can_do_nothing_now_is_alive_and_not_ready() {
        for (path, not_ready, begins, ends) in [
            ("/livez", None, "HTTP/1.1 200 ", "ok\n"),
            ("/livez", Some("NATS is away"), "HTTP/1.1 200 ", "ok\n"),
            ("/readyz", None, "HTTP/1.1 200 ", "ok\n"),
            (
                "/readyz",
                Some("NATS is away"),
                "HTTP/1.1 503 ",
                "NATS is away\n",
            ),
            (
                "/metrics",
                Some("NATS is away"),
                "HTTP/1.1 200 ",
                "jobs 3\n",
            ),
        ] {
            let (at, mut asked) = started().await;
            tokio::spawn(async move {
                while let Some(tell) = asked.recv().await {
                    let text = "jobs 3\n".to_owned();
                    let _ = tell.send(Numbers { text, not_ready });
                }
            });
            let answer = asked_for(at, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await;
            assert!(
                answer.starts_with(begins) && answer.ends_with(ends),
                "{path} {not_ready:?}: {answer}"
            );
        }
    }

    #[tokio::test]
    async fn an_endless_head_and_those_who_say_nothing_shut_nobody_out() {
        let (at, mut asked) = started().await;
        tokio::spawn(async move {
            while let Some(tell) = asked.recv().await {
                let _ = tell.send("bottles 7\n".to_owned().into());
            }
        });
        let endless = vec![b'x'; 4 * HEAD_BYTES_MAX];
        assert_eq!(asked_for(at, &endless).await, "");
        // Each has its time, and then makes room.
        let mut silent = Vec::new();
        for _ in 0..2 * ASKING_MAX {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        let asking = asked_for(at, b"GET /metrics HTTP/1.1\r\n\r\n");
        let limit = Duration::from_millis(9 * ASK_MS_MAX);
        let answer = tokio::time::timeout(limit, asking).await.unwrap();
        assert!(answer.ends_with("bottles 7\n"), "{answer}");
        drop(silent);
    }
}
