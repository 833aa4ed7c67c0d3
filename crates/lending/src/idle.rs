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
    let mut refused = None;
    for socket in &sockets {
        let name = socket.file_name().unwrap_or_default().to_string_lossy();
        let tell = Tell::new(format!("the compositor at {name}"), seat);
        match wayland::follow(socket, after, tell).await {
            Ok(()) => return Ok(()),
            Err(error) => refused = Some(error),
        }
    }
    // Beside a compositor an X server sees only what is typed into its own windows.
    if let Some(error) = refused {
        return Err(error);
    }
    let Some(display) = &session.display else {
        let why = "there is no Wayland compositor and no X server";
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    };
    let tell = Tell::new(format!("the X server {}", display.to_string_lossy()), seat);
    x11::follow(display, after, tell).await
}

/// The compositors' sockets that somebody listens at, the one that was made last first.
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
        .filter_map(|entry| {
            let made = entry.metadata().ok()?.modified().ok()?;
            // A socket stays when its compositor was killed.
            std::os::unix::net::UnixStream::connect(entry.path()).ok()?;
            Some((made, entry.path()))
        })
        .collect();
    sockets.sort();
    sockets.into_iter().rev().map(|(_, path)| path).collect()
}
