//! The owner's socket: a Unix socket of mode 0600, at which only the owner and root are answered.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
};
use undercroft_model::{
    advice::{Advice, ErrorKind},
    document::Version,
};

use super::{Answered, Asked, OwnerAnswer, OwnerAsk};

/// The socket's name in the owner's folder of sockets.
pub const SOCKET_NAME: &str = "undercroft-lending.sock";
/// The longest question, in bytes.
const ASK_BYTES_MAX: u64 = 64 * 1024;
/// The longest answer that is taken, in bytes: a log of a week with a thousand jobs.
const ANSWER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How long somebody may take to say what they ask, in milliseconds.
const ASK_MS_MAX: u64 = 5_000;
/// How long an answer is waited for, in milliseconds: a doctor tries a sandbox and a server.
const ANSWER_MS_MAX: u64 = 60_000;
/// People who are listened to at once. There is one owner.
const CALLS_MAX: usize = 8;

/// A question that waits for its answer.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) ask: OwnerAsk,
    pub(crate) answer: oneshot::Sender<OwnerAnswer>,
}

/// The socket's other end.
#[derive(Debug)]
pub(crate) struct Listener {
    path: PathBuf,
}

/// Where the socket is as the environment says: in `XDG_RUNTIME_DIR`, or in the state folder where there is none.
pub fn default_path(state: &Path) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => Path::new(&dir).join(SOCKET_NAME),
        _ => state.join(SOCKET_NAME),
    }
}

impl Listener {
    /// Listens, and hands over what is asked. Whoever holds the state folder's lock has the socket, so that an old one
    /// is nobody's.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub(crate) fn open(path: &Path, to: mpsc::Sender<Question>) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) => {
                let why = format!("{} is there, and is no socket", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let owner = std::fs::metadata(path)?.uid();
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        tokio::spawn(async move {
            while let Ok(permit) = Arc::clone(&calls).acquire_owned().await {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of file descriptors: others close theirs meanwhile.
                    tokio::time::sleep(Duration::from_millis(ASK_MS_MAX)).await;
                    continue;
                };
                let to = to.clone();
                tokio::spawn(async move {
                    // Whoever goes away in the middle needs no answer.
                    let _ = serve(stream, owner, to).await;
                    drop(permit);
                });
            }
        });
        let path = path.to_owned();
        Ok(Self { path })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // An old socket is nobody's, and the next daemon removes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn refused(why: impl Into<String>) -> OwnerAnswer {
    OwnerAnswer::Refused {
        why: why.into(),
        hint: None,
    }
}

async fn serve(stream: UnixStream, owner: u32, to: mpsc::Sender<Question>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    let answer = if peer == owner || peer == 0 {
        let line = read_line(read, ASK_BYTES_MAX);
        match tokio::time::timeout(Duration::from_millis(ASK_MS_MAX), line).await {
            Err(_) => refused("nothing was asked"),
            Ok(Err(error)) => refused(format!("the question can't be read: {error}")),
            Ok(Ok(line)) => answer(&line, to).await,
        }
    } else {
        refused(format!(
            "you are user {peer}, and this PC is user {owner}'s"
        ))
    };
    let answered = Answered {
        version: Version,
        answer,
    };
    let mut line = serde_json::to_vec(&answered)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    write.shutdown().await
}

async fn answer(line: &[u8], to: mpsc::Sender<Question>) -> OwnerAnswer {
    let asked: Asked = match serde_json::from_slice(line) {
        Ok(asked) => asked,
        Err(error) => return refused(format!("the question can't be read: {error}")),
    };
    let (answer, answered) = oneshot::channel();
    let question = Question {
        ask: asked.ask,
        answer,
    };
    let gone = || refused("the daemon is ending");
    match to.send(question).await {
        Ok(()) => answered.await.unwrap_or_else(|_| gone()),
        Err(_) => gone(),
    }
}

async fn read_line(read: impl tokio::io::AsyncRead + Unpin, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(read.take(bytes_max));
    reader.read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        let why = match line.is_empty() {
            true => "nothing was said".to_owned(),
            false => format!("a line has an end within {bytes_max} bytes"),
        };
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(line)
}

/// Why the daemon can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It doesn't answer as it should.
    #[error("can't ask the daemon at {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Advice for CallError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Failed
    }

    fn hint(&self) -> Option<String> {
        Some("See whether `undercroft lend run` is of this version, and what it says: `journalctl --user -u undercroft-lending`.".to_owned())
    }
}

/// What came of a call.
#[derive(Debug)]
pub enum Call {
    /// An answer.
    Answer(Box<OwnerAnswer>),
    /// Nobody listens: the daemon doesn't run.
    NotRunning,
}

/// Asks the daemon.
///
/// # Errors
/// When it is there and doesn't answer as it should.
pub async fn call(path: &Path, ask: OwnerAsk) -> Result<Call, CallError> {
    let failed = |source| CallError::Io {
        path: path.to_owned(),
        source,
    };
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(Call::NotRunning);
        }
        Err(error) => return Err(failed(error)),
    };
    let asked = Asked {
        version: Version,
        ask,
    };
    let talk = async {
        let (read, mut write) = stream.into_split();
        let mut line = serde_json::to_vec(&asked)?;
        line.push(b'\n');
        write.write_all(&line).await?;
        let line = read_line(read, ANSWER_BYTES_MAX).await?;
        let answered: Answered = serde_json::from_slice(&line)?;
        io::Result::Ok(answered.answer)
    };
    let limit = Duration::from_millis(ANSWER_MS_MAX);
    match tokio::time::timeout(limit, talk).await {
        Ok(answer) => Ok(Call::Answer(Box::new(answer.map_err(failed)?))),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn say(path: &Path, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let mut said = String::new();
        // Whoever says too much is cut off in the middle.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_string(&mut said).await;
        said
    }

    #[tokio::test]
    async fn what_is_no_question_is_refused_and_the_next_one_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET_NAME);
        let (to, mut questions) = mpsc::channel::<Question>(1);
        assert!(matches!(
            call(&path, OwnerAsk::Status).await.unwrap(),
            Call::NotRunning
        ));
        let listener = Listener::open(&path, to).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (bytes, why) in [
            (&b"{\"version\":2,\"ask\":\"status\"}\n"[..], "version is 2"),
            (b"{\"version\":1,\"ask\":\"dance\"}\n", "unknown variant"),
            (
                b"{\"version\":1,\"ask\":{\"pause\":{\"for_s\":-1}}}\n",
                "invalid value",
            ),
            (b"\n", "EOF"),
            (b"[]\n", "the question can't be read"),
        ] {
            let said = say(&path, bytes).await;
            assert!(said.contains("refused") && said.contains(why), "{said}");
        }
        let long = vec![b' '; ASK_BYTES_MAX as usize + 1];
        let said = say(&path, &long).await;
        assert!(said.is_empty() || said.contains("65536 bytes"), "{said}");
        let answering = tokio::spawn(async move {
            let question = questions.recv().await.unwrap();
            assert_eq!(question.ask, OwnerAsk::Pause { for_s: Some(60) });
            let _ = question.answer.send(refused("not today"));
        });
        let Call::Answer(answer) = call(&path, OwnerAsk::Pause { for_s: Some(60) })
            .await
            .unwrap()
        else {
            panic!("it runs");
        };
        assert_eq!(*answer, refused("not today"));
        answering.await.unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_old_socket_is_replaced_and_another_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET_NAME);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (to, _questions) = mpsc::channel(1);
        let listener = Listener::open(&path, to.clone()).unwrap();
        drop(listener);
        std::fs::write(&path, "").unwrap();
        let error = Listener::open(&path, to).unwrap_err().to_string();
        assert!(error.contains("is no socket"), "{error}");
    }
}
