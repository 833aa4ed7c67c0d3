//! What a service tells the program that supervises it: the protocol of systemd's `sd_notify(3)`, over a socket
//! that `NOTIFY_SOCKET` names.
//!
//! The keep-alive says that the rounds go on, and not only that the process is there: it isn't sent while a part
//! of a round has been silent for longer than it may be.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use crate::{between::interrupted, standing::Board};

/// How often what is told is looked at, in milliseconds: what a run waits for changes between two rounds.
const TELL_MS: u64 = 5_000;
/// Keep-alives for each that the supervisor waits for: one may be late on a busy machine.
const KEEP_ALIVES: u32 = 3;
/// The longest sentence that is told, in bytes: it is one line of `systemctl status`.
const STATUS_BYTES_MAX: usize = 512;

/// Why the supervisor can't be told anything.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The address is of a kind that isn't known here.
    #[error("NOTIFY_SOCKET={address} is neither a path nor an abstract name")]
    Address {
        /// The address.
        address: String,
    },
    /// There is no socket to tell by.
    #[error("the supervisor's socket {address} can't be used: {source}")]
    Socket {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// Tells the supervisor.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How long the supervisor waits for a keep-alive.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The supervisor that this process' environment names; `None` where there is none.
    ///
    /// # Errors
    /// When it can't be told anything.
    pub fn from_environment() -> Result<Option<Self>, NotifyError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(address) = variable("NOTIFY_SOCKET") else {
            return Ok(None);
        };
        let (usec, pid) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        let watchdog = watchdog_of(usec.as_deref(), pid.as_deref(), std::process::id());
        Self::new(&address, watchdog).map(Some)
    }

    /// A supervisor at an address: a path, or an abstract name after `@`. `watchdog` is how long it waits for a
    /// keep-alive.
    ///
    /// # Errors
    /// When it can't be told anything.
    pub fn new(address: &OsStr, watchdog: Option<Duration>) -> Result<Self, NotifyError> {
        let shown = || address.to_string_lossy().into_owned();
        let socket = |source| NotifyError::Socket {
            address: shown(),
            source,
        };
        let bytes = address.as_bytes();
        let at = match bytes.first() {
            Some(b'/') => SocketAddr::from_pathname(address),
            Some(b'@') => SocketAddr::from_abstract_name(bytes.get(1..).unwrap_or_default()),
            _ => return Err(NotifyError::Address { address: shown() }),
        };
        let own = UnixDatagram::unbound().map_err(socket)?;
        // A supervisor that reads nothing holds up no round.
        own.set_nonblocking(true).map_err(socket)?;
        Ok(Self {
            socket: own,
            address: at.map_err(socket)?,
            watchdog,
        })
    }

    /// Says that the service works.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// Says that it ends in order.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, text: &str) {
        // It isn't repeated: the next is due in seconds, and without a supervisor nobody misses it.
        let _ = self.socket.send_to_addr(text.as_bytes(), &self.address);
    }

    /// Tells how the service stands and that its rounds go on, and that it ends when it was told to; until it is
    /// dropped.
    pub(crate) async fn tell(
        self: Arc<Self>,
        board: Arc<Board>,
        mut interrupt: watch::Receiver<bool>,
    ) {
        let every = Duration::from_millis(TELL_MS);
        let every = self.watchdog.map_or(every, |w| every.min(w / KEEP_ALIVES));
        let mut changes = board.changes();
        let mut said = String::new();
        let mut ends = false;
        loop {
            let text = status(&board, ends);
            if text != said {
                self.send(&format!("STATUS={text}"));
                said = text;
            }
            if self.watchdog.is_some() && board.pulse.wedged().is_none() {
                self.send("WATCHDOG=1");
            }
            tokio::select! {
                () = interrupted(&mut interrupt), if !ends => {
                    ends = true;
                    self.stopping();
                }
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(every) => {}
            }
        }
    }
}

fn status(board: &Board, ends: bool) -> String {
    if let Some((part, silent)) = board.pulse.wedged() {
        let s = silent.as_secs();
        return format!("stuck at {} for {s} s without a sign of life", part.words());
    }
    let sentence = board.told().sentence;
    let text = match ends {
        true => format!("told to end, and ends in order; {sentence}"),
        false => sentence,
    };
    let mut end = text.len().min(STATUS_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// How long the supervisor waits for a keep-alive of this process, as `sd_watchdog_enabled(3)` reads it.
fn watchdog_of(usec: Option<&OsStr>, pid: Option<&OsStr>, own: u32) -> Option<Duration> {
    let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
    if let Some(pid) = pid
        && number(pid) != Some(u64::from(own))
    {
        return None;
    }
    let usec = number(usec?)?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use undercroft_planner::Rounds;

    use super::*;
    use crate::{pulse::Part, standing::Course};

    /// An abstract name or a path as it stands in the environment.
    fn shown(address: &SocketAddr) -> OsString {
        match (address.as_pathname(), address.as_abstract_name()) {
            (Some(path), _) => path.into(),
            (_, Some(name)) => [OsStr::new("@"), OsStr::from_bytes(name)]
                .into_iter()
                .collect(),
            _ => OsString::new(),
        }
    }

    /// A supervisor's socket, and its address as the environment has it.
    fn supervisor(at: &SocketAddr) -> (UnixDatagram, OsString) {
        let socket = UnixDatagram::bind_addr(at).unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, shown(at))
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut all = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(len) = socket.recv(&mut bytes) {
            all.push(String::from_utf8(bytes[..len].to_vec()).unwrap());
        }
        all
    }

    fn abstract_name() -> SocketAddr {
        let name = format!("undercroft-test-{}", std::process::id());
        SocketAddr::from_abstract_name(name).unwrap()
    }

    #[test]
    fn a_path_and_an_abstract_name_are_told_alike_and_nothing_else_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = SocketAddr::from_pathname(dir.path().join("notify")).unwrap();
        for at in [path, abstract_name()] {
            let (socket, address) = supervisor(&at);
            let notifier = Notifier::new(&address, None).unwrap();
            notifier.ready();
            assert_eq!(heard(&socket), ["READY=1"], "{address:?}");
            // One that has gone stops nobody.
            drop(socket);
            notifier.ready();
        }
        for address in ["vsock:2:1234", "notify", ""] {
            let refused = Notifier::new(OsStr::new(address), None).unwrap_err();
            assert!(matches!(refused, NotifyError::Address { .. }), "{address}");
        }
        let long = format!("/{}", "x".repeat(200));
        let refused = Notifier::new(OsStr::new(&long), None).unwrap_err();
        assert!(matches!(refused, NotifyError::Socket { .. }));
    }

    #[test]
    fn a_supervisor_that_reads_nothing_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let at = SocketAddr::from_pathname(dir.path().join("notify")).unwrap();
        let (_socket, address) = supervisor(&at);
        let notifier = Notifier::new(&address, None).unwrap();
        // More than any queue of datagrams holds; a send that waits would never come back.
        for _ in 0..10_000 {
            notifier.ready();
        }
    }

    #[test]
    fn the_watchdog_is_this_process_own() {
        let of = |usec: &str, pid: Option<&str>| {
            watchdog_of(Some(OsStr::new(usec)), pid.map(OsStr::new), 7)
        };
        assert_eq!(of("90000000", Some("7")), Some(Duration::from_secs(90)));
        assert_eq!(of("90000000", None), Some(Duration::from_secs(90)));
        for (usec, pid) in [("90000000", Some("8")), ("0", None), ("soon", None)] {
            assert_eq!(of(usec, pid), None, "{usec} {pid:?}");
        }
        assert_eq!(watchdog_of(None, None, 7), None);
    }

    #[tokio::test(start_paused = true)]
    async fn keep_alives_come_while_the_rounds_go_on_and_not_when_one_is_wedged() {
        let dir = tempfile::tempdir().unwrap();
        let at = SocketAddr::from_pathname(dir.path().join("notify")).unwrap();
        let (socket, address) = supervisor(&at);
        let watchdog = Duration::from_secs(90);
        let notifier = Arc::new(Notifier::new(&address, Some(watchdog)).unwrap());
        let board = Arc::new(Board::default());
        let (ask, asked) = watch::channel(false);
        let telling = tokio::spawn(notifier.tell(Arc::clone(&board), asked));
        let alive = |heard: &[String]| heard.iter().filter(|h| *h == "WATCHDOG=1").count();

        board.pulse.begin(Part::Look);
        tokio::time::sleep(watchdog).await;
        let first = heard(&socket);
        assert_eq!(first[0], "STATUS=the fleet is looked at for the first time");
        assert!(alive(&first) >= KEEP_ALIVES as usize, "{first:?}");

        // A look that doesn't come back: the process lives, and tells so no longer.
        tokio::time::sleep(Part::Look.silence_max()).await;
        heard(&socket);
        tokio::time::sleep(2 * watchdog).await;
        let wedged = heard(&socket);
        assert_eq!(alive(&wedged), 0, "{wedged:?}");
        assert!(
            wedged[0].starts_with("STATUS=stuck at looking at the machines for "),
            "{wedged:?}"
        );

        // It came back after all; the round could not be done, and that is no wedge.
        board.pulse.begin(Part::Rest(60_000));
        let mut rounds = Rounds::new(60_000);
        rounds.over(0, Some("no route"));
        board.over(&rounds, Some("no route"));
        tokio::time::sleep(watchdog).await;
        let again = heard(&socket);
        assert!(alive(&again) >= KEEP_ALIVES as usize, "{again:?}");
        assert_eq!(again[0], "STATUS=a round could not be done: no route");

        ask.send(true).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut ended = heard(&socket);
        ended.retain(|text| text != "WATCHDOG=1");
        assert_eq!(
            ended,
            [
                "STOPPING=1",
                "STATUS=told to end, and ends in order; a round could not be done: no route"
            ]
        );
        telling.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_sentence_is_cut_at_a_character() {
        let board = Board::default();
        board.change(|standing| {
            standing.course = Course::Well;
            standing.sentence = "ü".repeat(STATUS_BYTES_MAX);
        });
        let text = status(&board, true);
        assert!((STATUS_BYTES_MAX - 1..=STATUS_BYTES_MAX).contains(&text.len()));
    }
}
