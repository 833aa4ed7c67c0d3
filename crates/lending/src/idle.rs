//! Whether the owner is away from the machine, as those say who see every key: the compositor, or the X server.
//!
//! A compositor tells when it changes, and an X server is asked. The load of the processor says nothing of an owner,
//! and what isn't known counts as busy.

mod seat;
mod wayland;
mod x11;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::watch;

pub use seat::Seat;
use seat::{GREETING_MS_MAX, Tell};

/// The first rest before a source is looked for again, in milliseconds; it doubles from there.
const LOOK_MS_MIN: u64 = 500;
/// The longest rest before a source is looked for again, in milliseconds: a session that has begun is found within.
const LOOK_MS_MAX: u64 = 15_000;
/// Files in the folder of sockets that are looked at, at most.
const SOCKETS_MAX: usize = 1_000;

/// Where a session may be found.
#[derive(Debug, Clone)]
pub struct Session {
    /// The folder of the owner's sockets (`XDG_RUNTIME_DIR`).
    pub runtime_dir: Option<PathBuf>,
    /// The X server's name (`DISPLAY`).
    pub display: Option<OsString>,
}

impl Session {
    /// As the environment says.
    pub fn of_environment() -> Self {
        Self {
            runtime_dir: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            display: std::env::var_os("DISPLAY").filter(|name| !name.is_empty()),
        }
    }
}

/// Watches the seat for as long as somebody listens. A session that ends and comes back is found again.
pub async fn watch(session: Session, after: Duration, seat: watch::Sender<Seat>) {
    let mut rest_ms = LOOK_MS_MIN;
    while !seat.is_closed() {
        let began = tokio::time::Instant::now();
        let ended = tokio::select! {
            ended = once(&session, after, &seat) => ended,
            () = seat.closed() => return,
        };
        let why = match ended {
            Ok(()) => "the session has ended".to_owned(),
            Err(error) => error.to_string(),
        };
        seat.send_if_modified(|known| {
            let unknown = Seat::Unknown { why };
            let is_news = *known != unknown;
            *known = unknown;
            is_news
        });
        // A source that was good for a while has gone just now; its follower may be there at once.
        let was_good = began.elapsed() > Duration::from_millis(GREETING_MS_MAX);
        rest_ms = match was_good {
            true => LOOK_MS_MIN,
            false => rest_ms.saturating_mul(2).min(LOOK_MS_MAX),
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(rest_ms)) => {}
            () = seat.closed() => return,
        }
    }
}

async fn once(session: &Session, after: Duration, seat: &watch::Sender<Seat>) -> io::Result<()> {
    let sockets = match &session.runtime_dir {
        Some(dir) => wayland_sockets(dir),
        None => Vec::new(),
    };
    if sockets.len() > 1 {
        // One that was opened inside of another, or without a screen, is idle while its owner works in the other.
        let names: Vec<_> = sockets.iter().filter_map(|s| s.file_name()).collect();
        let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
        let why = format!("there is more than one compositor: {}", names.join(", "));
        return Err(io::Error::other(why));
    }
    // Beside a compositor an X server sees only what is typed into its own windows.
    if let Some(socket) = sockets.first() {
        let name = socket.file_name().unwrap_or_default().to_string_lossy();
        let tell = Tell::new(format!("the compositor at {name}"), seat);
        return wayland::follow(socket, after, tell).await;
    }
    let Some(display) = &session.display else {
        let why = "there is no Wayland compositor and no X server";
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    };
    let tell = Tell::new(format!("the X server {}", display.to_string_lossy()), seat);
    x11::follow(display, after, tell).await
}

/// The compositors' sockets that somebody listens at.
fn wayland_sockets(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut sockets: Vec<_> = entries
        .take(SOCKETS_MAX)
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("wayland-") && !name.ends_with(".lock")
        })
        .map(|entry| entry.path())
        // A socket stays when its compositor was killed.
        .filter(|path| std::os::unix::net::UnixStream::connect(path).is_ok())
        .collect();
    sockets.sort();
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn with_two_compositors_nobody_knows_where_the_owner_is() {
        let dir = tempfile::tempdir().unwrap();
        let listen = |name: &str| std::os::unix::net::UnixListener::bind(dir.path().join(name));
        let _one = listen("wayland-0").unwrap();
        drop(listen("wayland-2").unwrap());
        let other = listen("wayland-1").unwrap();
        let session = Session {
            runtime_dir: Some(dir.path().to_owned()),
            display: None,
        };
        let why = "just started".to_owned();
        let (seat, _kept) = watch::channel(Seat::Unknown { why });
        let after = Duration::from_secs(60);
        let error = once(&session, after, &seat).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "there is more than one compositor: wayland-0, wayland-1"
        );
        drop(other);
        assert_eq!(wayland_sockets(dir.path()), [dir.path().join("wayland-0")]);
    }
}
