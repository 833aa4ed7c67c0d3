//! Whether an owner is away, by a real compositor and a real X server: each is told of input by a program that
//! presses a key, is killed, and comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

use std::{
    ffi::OsStr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use undercroft_lending::idle::{self, Seat, Session};
use undercroft_testkit::{Missing, OrSkip as _, peer, program, skip};

/// How long an owner has to be away here.
const AFTER: Duration = Duration::from_millis(1_500);
/// What is said of a compositor that can't tell.
const NO_IDLE: &str = "doesn't speak ext-idle-notify-v1";
/// Who has nothing.
const NOBODY: u32 = 65_534;
/// How long anything here may take: starting a compositor on a busy machine, three times over.
const LIMIT: Duration = Duration::from_secs(45);

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }
}

async fn until(
    seat: &mut watch::Receiver<Seat>,
    what: &str,
    is: impl Fn(&Seat) -> bool,
) -> Duration {
    let began = Instant::now();
    let last = seat.clone();
    match tokio::time::timeout(LIMIT, seat.wait_for(is)).await {
        Ok(found) => drop(found.unwrap()),
        Err(_) => panic!(
            "the owner isn't {what} after {LIMIT:?}: {:?}",
            last.borrow()
        ),
    }
    began.elapsed()
}

fn is_away(seat: &Seat) -> bool {
    matches!(seat, Seat::Away { .. })
}

fn is_present(seat: &Seat) -> bool {
    matches!(seat, Seat::Present { .. })
}

fn is_unknown(seat: &Seat) -> bool {
    matches!(seat, Seat::Unknown { .. })
}

fn watched(session: Session) -> (watch::Receiver<Seat>, tokio::task::JoinHandle<()>) {
    let why = "it was just started".to_owned();
    let (to, seat) = watch::channel(Seat::Unknown { why });
    (seat, tokio::spawn(idle::watch(session, AFTER, to)))
}

/// Goes through the life of a session: away, a key, away again, killed, and back.
async fn life(session: Session, start: impl Fn() -> Program, press: impl Fn() -> Program) {
    let (mut seat, task) = watched(session);
    assert!(is_unknown(&seat.borrow()), "{:?}", seat.borrow());
    let screen = start();
    let said =
        |seat: &Seat| !is_unknown(seat) || seat.why_not().is_some_and(|why| why.contains(NO_IDLE));
    // A screen that took long to start has had nobody for as long.
    until(&mut seat, "known", said).await;
    if is_unknown(&seat.borrow()) {
        return skip(format!(
            "this compositor {NO_IDLE}; sway 1.8 and later do, and `cargo xtask peers sway` unpacks one"
        ));
    }
    let away = until(&mut seat, "away", is_away).await;
    let began = Instant::now();
    let key = press();
    until(&mut seat, "present", is_present).await;
    let seen = began.elapsed();
    drop(key);
    let again = until(&mut seat, "away", is_away).await;
    println!(
        "away after {away:?} and {again:?} of {AFTER:?}; a key was seen {seen:?} after its program was started"
    );
    // The key was pressed after its program was started, and the owner's time begins there.
    assert!(seen + again >= AFTER, "{seen:?} and {again:?}");
    drop(screen);
    let gone = until(&mut seat, "unknown", is_unknown).await;
    let screen = start();
    let back = until(&mut seat, "known", |seat| !is_unknown(seat)).await;
    println!("its end was seen after {gone:?}, and the next one after {back:?}");
    until(&mut seat, "away", is_away).await;
    drop(seat);
    drop(screen);
    tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
}

/// A sway, and how it is started here.
enum Sway {
    /// That of `cargo xtask peers sway`: a root folder with all that it needs.
    Unpacked { bwrap: PathBuf, root: PathBuf },
    /// This machine's own, as somebody who has nothing: before version 1.8, it doesn't run as root.
    AsNobody { setpriv: PathBuf, sway: PathBuf },
    /// This machine's own.
    Plain(PathBuf),
}

impl Sway {
    fn find(runtime: &Path) -> Result<Self, Missing> {
        if let Ok(sway) = peer("sway") {
            let bwrap = program("bwrap", "bubblewrap")?;
            let root = sway.with_file_name("root");
            return Ok(Self::Unpacked { bwrap, root });
        }
        let sway = program("sway", "sway")?;
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            return Ok(Self::Plain(sway));
        }
        let setpriv = program("setpriv", "util-linux")?;
        std::os::unix::fs::chown(runtime, Some(NOBODY), Some(NOBODY)).unwrap();
        Ok(Self::AsNobody { setpriv, sway })
    }

    fn command(&self, runtime: &Path) -> Command {
        match self {
            Self::Unpacked { bwrap, root } => {
                let mut command = Command::new(bwrap);
                command
                    .args(["--unshare-user", "--unshare-pid", "--die-with-parent"])
                    .args([OsStr::new("--ro-bind"), root.as_os_str(), OsStr::new("/")])
                    .args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"])
                    .arg("--bind")
                    .args([runtime, runtime])
                    .args(["--", "/usr/bin/sway"]);
                command
            }
            Self::AsNobody { setpriv, sway } => {
                let mut command = Command::new(setpriv);
                let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
                command.args(ids).arg("--clear-groups").arg(sway);
                command
            }
            Self::Plain(sway) => Command::new(sway),
        }
    }
}

#[tokio::test]
async fn a_compositor_says_whether_its_owner_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().to_owned();
    let (Some(sway), Some(wtype)) = (
        Sway::find(&runtime).or_skip(),
        program("wtype", "wtype").or_skip(),
    ) else {
        return;
    };
    let config = runtime.join("config");
    std::fs::write(&config, "xwayland disable\nswaybg_command -\n").unwrap();
    let start = || {
        Program::start(
            sway.command(&runtime)
                .arg("--config")
                .arg(&config)
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("XDG_RUNTIME_DIR", &runtime)
                .env("WLR_BACKENDS", "headless")
                .env("WLR_RENDERER", "pixman")
                .env("WLR_LIBINPUT_NO_DEVICES", "1"),
        )
    };
    let press = || {
        let socket = sockets(&runtime).pop().unwrap_or_default();
        Program::start(
            Command::new(&wtype)
                .args(["-k", "a"])
                .env("XDG_RUNTIME_DIR", &runtime)
                .env("WAYLAND_DISPLAY", socket),
        )
    };
    let session = Session {
        runtime_dir: Some(runtime.clone()),
        display: None,
    };
    life(session, start, press).await;
}

fn sockets(runtime: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(runtime).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("wayland-") && !name.ends_with(".lock"))
        .collect()
}

#[tokio::test]
async fn an_x_server_says_whether_its_owner_is_away() {
    let (Some(xvfb), Some(xdotool)) = (
        program("Xvfb", "xvfb").or_skip(),
        program("xdotool", "xdotool").or_skip(),
    ) else {
        return;
    };
    // A display that nobody on this machine has.
    let number = 100 + std::process::id() % 30_000;
    let display = format!(":{number}");
    let start = || {
        Program::start(Command::new(&xvfb).args([
            &display,
            "-screen",
            "0",
            "640x480x24",
            "-nolisten",
            "tcp",
        ]))
    };
    let press = || {
        Program::start(
            Command::new(&xdotool)
                .args(["key", "a"])
                .env("DISPLAY", &display),
        )
    };
    let session = Session {
        runtime_dir: None,
        display: Some(display.clone().into()),
    };
    life(session, start, press).await;
}

#[tokio::test]
async fn a_compositor_that_says_nothing_is_no_word_and_no_x_server_beside_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("wayland-1");
    let _silent = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let session = Session {
        runtime_dir: Some(dir.path().to_owned()),
        display: Some(":0".into()),
    };
    let (mut seat, task) = watched(session);
    until(&mut seat, "unknown for that reason", |seat| {
        seat.why_not()
            .is_some_and(|why| why.contains("the compositor doesn't answer"))
    })
    .await;
    drop(seat);
    task.await.unwrap();
}
