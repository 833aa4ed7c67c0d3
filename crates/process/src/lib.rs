//! Running a program of this machine with limits on its time and on what is kept of its output,
//! and with the certainty that it ends when nobody waits for it any longer.

pub mod clock;
pub mod lock;
pub mod trace;
mod under_way;

use std::{io, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

pub use self::under_way::UnderWay;
pub use self::under_way::end_programs;

/// The most bytes of standard output that are kept; the largest that is expected, the JSON of a
/// machine with many disks, is a hundredth of it.
pub const STDOUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most bytes of the end of standard error that are kept, for error messages.
pub const STDERR_TAIL_BYTES_MAX: usize = 4 * 1024;
/// The longest line that is given to a line callback; what exceeds it is dropped.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// How much is read at once, in bytes. The buffer lies on the heap: futures carry what they hold,
/// and a few that run commands within each other would fill a thread's stack.
const READ_BYTES: usize = 16 * 1024;

/// What a program reads from its standard input.
#[derive(Debug, Default)]
pub enum Input {
    /// Nothing.
    #[default]
    Nothing,
    /// A secret, which is in no argument list and no environment.
    Secret(SecretString),
    /// A file, sent as it is.
    File(std::fs::File),
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` where a signal or the time limit ended it.
    pub code: Option<i32>,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// What it wrote to standard output, at most [`STDOUT_BYTES_MAX`].
    pub stdout: Vec<u8>,
    /// The end of what it wrote to standard error.
    pub stderr_tail: String,
}

/// Ends the program and what it has started, unless it was seen to end. Cancelling an operation
/// drops its future and with it this guard.
struct GroupGuard(Option<Pid>);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // The group may be gone already; there is nothing to do about another error.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs a program in a process group of its own, so that Ctrl-C on the terminal reaches this
/// program alone, which then ends its children in order.
///
/// `on_line` is called with each line of standard error.
pub async fn run(
    command: Command,
    input: Input,
    limit: Duration,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> io::Result<Finished> {
    run_watched(command, input, limit, on_line, &mut |_| {}).await
}

/// How often a program that runs is looked at by [`run_watched`].
pub const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// [`run`], with a call of `on_tick` every [`WATCH_INTERVAL`], given the program's process id.
pub async fn run_watched(
    mut command: Command,
    input: Input,
    limit: Duration,
    on_line: &mut (dyn FnMut(&str) + Send),
    on_tick: &mut (dyn FnMut(u32) + Send),
) -> io::Result<Finished> {
    let (mut child, mut guard, secret) = start(&mut command, input)?;
    let id = child.id().unwrap_or_default();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());

    let mut output = Vec::new();
    let mut tail = Tail::default();
    let work = async {
        let write = async {
            if let (Some(mut stdin), Some(secret)) = (stdin, &secret) {
                // A program that ends without reading all of it says so by its exit code.
                let _ = stdin.write_all(secret.expose_secret().as_bytes()).await;
                let _ = stdin.shutdown().await;
            }
        };
        let ((), kept, ended) = tokio::join!(
            write,
            keep_start(stdout),
            follow(stderr, &mut tail, on_line)
        );
        output = kept?;
        ended?;
        child.wait().await
    };
    let watch = async {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            on_tick(id);
        }
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(limit, work) => ended,
        () = watch => return Err(io::Error::other("watching a program ended before it did")),
    };
    let code = match ended {
        Ok(status) => {
            let status = status?;
            guard.0 = None;
            Some(status.code())
        }
        Err(_) => {
            drop(guard);
            None
        }
    };
    Ok(Finished {
        code: code.flatten(),
        timed_out: code.is_none(),
        stdout: output,
        stderr_tail: tail.text(),
    })
}

/// Starts a program in a group of its own, with the text that it is to be given.
fn start(
    command: &mut Command,
    input: Input,
) -> io::Result<(Child, GroupGuard, Option<SecretString>)> {
    let (stdin, secret) = match input {
        Input::Nothing => (Stdio::null(), None),
        Input::Secret(secret) => (Stdio::piped(), Some(secret)),
        Input::File(file) => (Stdio::from(file), None),
    };
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    crate::trace::started(command.as_std());
    let child = command.spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let guard = GroupGuard(id.and_then(Pid::from_raw));
    Ok((child, guard, secret))
}

/// How many bytes the children of a process have written, to files and sockets alike, where the
/// kernel tells (proc(5), `/proc/PID/io`); 0 elsewhere. The older versions of Nix don't tell how
/// far they are within one path, but the ssh that they have started can be watched.
pub fn bytes_written_by_children(pid: u32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let children = tasks.flatten().filter_map(|task| {
        let path = task.path().join("children");
        std::fs::read_to_string(path).ok()
    });
    let mut bytes: u64 = 0;
    for list in children {
        for child in list.split_whitespace() {
            let io = std::fs::read_to_string(format!("/proc/{child}/io")).unwrap_or_default();
            let written = io
                .lines()
                .find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok());
            bytes = bytes.saturating_add(written.unwrap_or(0));
        }
    }
    bytes
}

async fn keep_start(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut from) = from else {
        return Ok(kept);
    };
    let mut buffer = vec![0u8; READ_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(kept);
        }
        let room = STDOUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(count.min(room)));
    }
}

async fn follow(
    from: Option<impl AsyncRead + Unpin>,
    tail: &mut Tail,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> io::Result<()> {
    let Some(mut from) = from else {
        return Ok(());
    };
    let mut line = Vec::new();
    let mut buffer = vec![0u8; READ_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        let bytes = buffer.get(..count).unwrap_or_default();
        tail.push(bytes);
        for byte in bytes {
            if *byte == b'\n' {
                on_line(&String::from_utf8_lossy(&line));
                line.clear();
            } else if line.len() < LINE_BYTES_MAX {
                line.push(*byte);
            }
        }
        if count == 0 {
            if !line.is_empty() {
                on_line(&String::from_utf8_lossy(&line));
            }
            return Ok(());
        }
    }
}

/// The end of a text of any length.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    /// Takes more bytes in; the oldest that are too many are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Twice the room before it is cut, so that not every push moves the text.
        if self.bytes.len() > 2 * STDERR_TAIL_BYTES_MAX {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let surplus = self.bytes.len().saturating_sub(STDERR_TAIL_BYTES_MAX);
        if surplus > 0 {
            self.bytes.drain(..surplus);
            self.cut = true;
        }
    }

    /// The text, from the start of a line, with what can't be seen written out: what a remote machine
    /// prints must not reach a terminal as commands to it.
    pub fn text(mut self) -> String {
        self.shorten();
        let text = String::from_utf8_lossy(&self.bytes);
        let text = match (self.cut, text.split_once('\n')) {
            (true, Some((_, rest))) => rest,
            _ => &text,
        };
        printable(text.trim_end())
    }
}

/// A text of another machine, fit for a terminal.
pub fn printable(text: &str) -> String {
    undercroft_model::text::visible(&text.replace('\r', ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn output_exit_code_and_lines_are_given() {
        let mut lines = Vec::new();
        let finished = run(
            shell("echo out; echo one >&2; printf 'two\\033[2J' >&2; exit 7"),
            Input::Nothing,
            LONG,
            &mut |line| lines.push(line.to_owned()),
        )
        .await
        .unwrap();
        assert_eq!(finished.code, Some(7));
        assert_eq!(finished.stdout, b"out\n");
        assert_eq!(finished.stderr_tail, "one\ntwo\\u{1b}[2J");
        assert_eq!(lines[0], "one");
    }

    #[tokio::test]
    async fn a_secret_goes_through_standard_input() {
        let secret = SecretString::from("hidden".to_owned());
        let finished = run(shell("cat"), Input::Secret(secret), LONG, &mut |_| {})
            .await
            .unwrap();
        assert_eq!(finished.stdout, b"hidden");
    }

    #[tokio::test]
    async fn output_without_end_is_cut_and_does_not_stop_the_program() {
        let finished = run(
            shell("head -c 9000000 /dev/zero; yes word | head -c 100000 >&2; echo last >&2"),
            Input::Nothing,
            LONG,
            &mut |_| {},
        )
        .await
        .unwrap();
        assert_eq!(finished.code, Some(0));
        assert_eq!(finished.stdout.len(), STDOUT_BYTES_MAX);
        assert!(finished.stderr_tail.len() <= STDERR_TAIL_BYTES_MAX);
        assert!(finished.stderr_tail.ends_with("word\nlast"));
    }

    #[tokio::test]
    async fn the_time_limit_ends_the_program_and_its_children() {
        let start = Instant::now();
        let finished = run(
            shell("sleep 300 & echo $!; wait"),
            Input::Nothing,
            Duration::from_millis(300),
            &mut |_| {},
        )
        .await
        .unwrap();
        assert!(finished.timed_out && finished.code.is_none());
        assert!(start.elapsed() < LONG);
    }

    #[tokio::test]
    async fn a_dropped_run_ends_the_program_and_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!(
            "sleep 300 & echo $! > {}.tmp; mv {0}.tmp {0}; wait",
            file.display()
        );
        let task = tokio::spawn(async move {
            run(shell(&script), Input::Nothing, LONG, &mut |_| {})
                .await
                .map(drop)
        });
        let until = Instant::now() + LONG;
        while !file.exists() {
            assert!(Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let pid: i32 = std::fs::read_to_string(&file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        task.abort();
        let _ = task.await;
        let alive = |pid: i32| {
            // A zombie that nobody has waited for yet is dead enough.
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "))
        };
        while alive(pid) {
            assert!(
                Instant::now() < until,
                "the child of a cancelled program lives on"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
