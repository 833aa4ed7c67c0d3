//! The X server's word: how long there was no input, from its extension MIT-SCREEN-SAVER.
//!
//! It is asked, as the alarms of the extension SYNC don't go off in every X server. While the owner is there it is
//! asked again when they could be away at the earliest; while they are away, every second.

use std::{
    ffi::OsStr,
    io,
    os::{fd::AsFd as _, unix::net},
    time::Duration,
};

use tokio::{io::Interest, net::UnixStream};
use x11rb::{
    connection::Connection as _,
    protocol::{screensaver::ConnectionExt as _, xproto::Window},
    rust_connection::RustConnection,
};

use super::seat::{GREETING_MS_MAX, Tell};

/// How soon an owner's return is seen, in milliseconds. A look is one small message and its answer.
const BACK_MS_MAX: u64 = 1_000;
/// The shortest rest between two looks, in milliseconds.
const LOOK_MS_MIN: u64 = 50;

/// Follows an X server until it is gone.
pub(super) async fn follow(display: &OsStr, after: Duration, tell: Tell) -> io::Result<()> {
    let name = display.to_string_lossy().into_owned();
    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    // A connection waits for answers as it is made, so it is made aside.
    let greeting = tokio::task::spawn_blocking(move || greet(&name));
    let (connection, root) = answered(greeting).await?.map_err(io::Error::other)??;
    // The same socket once more, to be told when there is something to read.
    let socket = rustix::io::dup(connection.stream().as_fd())?;
    let readable = UnixStream::from_std(net::UnixStream::from(socket))?;
    loop {
        let idle_ms = look(&connection, root, &readable).await?;
        let is_away = idle_ms >= after_ms;
        tell.is_away(is_away);
        let rest_ms = match is_away {
            true => BACK_MS_MAX,
            false => after_ms.saturating_sub(idle_ms).max(LOOK_MS_MIN),
        };
        tokio::time::sleep(Duration::from_millis(rest_ms)).await;
    }
}

/// Waits for an answer, and no longer than an X server that lives may take.
async fn answered<T>(answer: impl Future<Output = T>) -> io::Result<T> {
    tokio::time::timeout(Duration::from_millis(GREETING_MS_MAX), answer)
        .await
        .map_err(|_| io::Error::other("the X server doesn't answer"))
}

fn greet(display: &str) -> io::Result<(RustConnection, Window)> {
    let (connection, screen) = x11rb::connect(Some(display)).map_err(io::Error::other)?;
    let root = connection.setup().roots.get(screen).map(|of| of.root);
    let root = root.ok_or_else(|| io::Error::other("the X server has no such screen"))?;
    // What the extension is called on the wire is asked for once, here.
    connection
        .screensaver_query_version(1, 1)
        .map_err(io::Error::other)?
        .reply()
        .map_err(|error| {
            let why = format!("the X server has no MIT-SCREEN-SAVER: {error}");
            io::Error::new(io::ErrorKind::Unsupported, why)
        })?;
    Ok((connection, root))
}

/// For how long there was no input, in milliseconds.
async fn look(connection: &RustConnection, root: Window, readable: &UnixStream) -> io::Result<u64> {
    // What was readable before was read with the last answer.
    let blocks = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
    let _ = readable.try_io(Interest::READABLE, blocks);
    let asked = connection
        .screensaver_query_info(root)
        .map_err(io::Error::other)?;
    connection.flush().map_err(io::Error::other)?;
    answered(readable.readable()).await??;
    // The answer is there, and a few bytes, so that it is there whole.
    let info = asked.reply().map_err(io::Error::other)?;
    Ok(u64::from(info.ms_since_user_input))
}
