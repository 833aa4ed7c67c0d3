//! A sandbox is started, and given its order.

use std::{io, process::Stdio, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    process::{Child, Command},
};

use crate::{
    SandboxError, Tools,
    bwrap::{self, View},
    order::{self, JobOrder},
};

/// How long a sandbox may take to become the job: inputs are read for their digests within.
pub(crate) const BEGIN_LIMIT: Duration = Duration::from_secs(120);

/// Starts a sandbox and gives it its order. On the caller's thread: bubblewrap ends when that does.
pub(crate) async fn spawn(
    tools: &Tools,
    view: &View<'_>,
    order: &JobOrder,
) -> Result<(Child, UnixStream), SandboxError> {
    let talk = |error: io::Error| SandboxError::file("talk to", &tools.job)(error);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(talk)?;
    ours.set_nonblocking(true).map_err(talk)?;
    let mut socket = UnixStream::from_std(ours).map_err(talk)?;
    let mut command = Command::new(&tools.job);
    command
        .args(bwrap::words(tools, view))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    undercroft_process::trace::started(command.as_std());
    let child = command
        .spawn()
        .map_err(SandboxError::file("start", &tools.job))?;
    // The command holds the other end of the socket until it is dropped.
    drop(command);
    let text = serde_json::to_vec(order).map_err(|error| talk(io::Error::other(error)))?;
    debug_assert!(text.len() < usize::try_from(order::ORDER_BYTES_MAX).unwrap_or(usize::MAX));
    let sent = async {
        socket.write_all(&text).await?;
        socket.shutdown().await
    };
    match tokio::time::timeout(BEGIN_LIMIT, sent).await {
        // What ended before it read its order says why on standard error.
        Ok(Ok(()) | Err(_)) => Ok((child, socket)),
        Err(_) => Err(talk(io::Error::from(io::ErrorKind::TimedOut))),
    }
}
