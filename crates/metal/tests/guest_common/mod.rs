//! What tests share that boot a system of their own in QEMU: programs of Debian's packages in an
//! initial ramdisk, and an agent in it that runs commands for the test over the serial port.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is test code, which the lints recognize only inside test functions"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use undercroft_build::debian::{Arch, PartSet, Parts, PartsError};
use undercroft_build::installer::cpio::Archive;

/// How long a guest may take to boot, or a command in it to end: some 40 s on an idle machine, and many times that on a busy one.
pub(crate) const GUEST: Duration = Duration::from_secs(240);
/// What an agent says when it reads commands.
const READY: &str = "agent: ready";
/// What an agent says of a command that ended, before its exit code.
const EXIT: &str = "agent: exit ";

/// Runs the commands that come over the serial port, which is its argument.
pub(crate) const AGENT: &str = r#"#!/bin/sh
exec <"$1" >"$1" 2>&1
stty -echo
echo "agent: ready"
while read -r command; do
    (eval "$command") </dev/null
    echo "agent: exit $?"
done
"#;

/// Where the project keeps what it fetched and made.
pub(crate) fn cache_dir() -> PathBuf {
    undercroft_testkit::repository().join(".cache")
}

/// Debian's packages for machines like this one; `None`, after it said why, where they can't be had.
pub(crate) fn packages(names: &[&str]) -> Option<PartSet> {
    let arch = Arch::host()?;
    let parts = Parts::open(&cache_dir()).expect("the cache");
    let_there_be(parts.fetch(names, arch, &mut |_| {}))
}

/// What came of fetching packages; `None`, after it said why, where they can't be had.
pub(crate) fn let_there_be<T>(fetched: Result<T, PartsError>) -> Option<T> {
    match fetched {
        Ok(there) => Some(there),
        Err(error) => {
            undercroft_testkit::skip(error);
            None
        }
    }
}

/// Puts programs of packages into an archive, each as `(path in its package, path in the archive)`,
/// and the libraries that they need.
pub(crate) fn add_programs<P: AsRef<str>>(
    archive: &mut Archive,
    set: &PartSet,
    programs: impl IntoIterator<Item = (P, String)>,
) {
    let mut files = Vec::new();
    for (from, to) in programs {
        let file = set.file(from.as_ref()).expect("a program of the packages");
        let content = fs::read(&file).expect("its content");
        // Scripts such as mkfs' wrappers need no libraries.
        if content.starts_with(b"\x7fELF") {
            files.push(file);
        }
        archive.file(&to, 0o755, content);
    }
    let linked = set.link(&files).expect("their libraries");
    for (soname, file) in &linked.libraries {
        let path = format!("usr/lib/{}/{soname}", set.arch().triplet());
        archive.file(&path, 0o755, fs::read(file).expect("a library"));
    }
    if let Some((path, file)) = &linked.loader {
        archive.file(path, 0o755, fs::read(file).expect("the loader"));
    }
}

/// The content of a kernel module, unpacked where a release compresses them.
pub(crate) fn read_module(file: &Path) -> Vec<u8> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).expect("a kernel module");
    }
    let output = Command::new("xz").arg("-dc").arg(file).output();
    output.expect("xz").stdout
}

/// Runs a program of this machine that must succeed; `false`, after it said why, without it.
pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{program} {arguments:?} failed: {said}"
            );
            true
        }
        Err(error) => {
            undercroft_testkit::skip(format!("{program} can't be run: {error}"));
            false
        }
    }
}

/// An agent in a guest, at the other end of its serial port.
#[derive(Debug)]
pub(crate) struct Agent<S> {
    port: S,
    /// What came and wasn't taken yet.
    unread: String,
    /// Everything that came.
    transcript: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Agent<S> {
    pub(crate) fn new(port: S) -> Self {
        Self {
            port,
            unread: String::new(),
            transcript: String::new(),
        }
    }

    /// Waits for a text; gives what came before it and drops it.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + GUEST;
        loop {
            if let Some((before, after)) = self.unread.split_once(text) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.unread = after;
                return before;
            }
            let mut bytes = [0; 4096];
            let read = timeout_at(deadline, self.port.read(&mut bytes)).await;
            let count = match read {
                Ok(Ok(count)) if count > 0 => count,
                other => panic!(
                    "waiting for {text:?}: {other:?}; the guest said:\n{}",
                    self.transcript
                ),
            };
            let piece = bytes.get(..count).unwrap_or_default();
            let piece = String::from_utf8_lossy(piece).replace('\r', "");
            self.unread.push_str(&piece);
            self.transcript.push_str(&piece);
        }
    }

    /// Waits until the agent reads commands.
    pub(crate) async fn ready(&mut self) {
        self.until(READY).await;
        self.until("\n").await;
    }

    /// Gives a command without waiting for its end. The agent reads a line at a time: one of several is given as the
    /// text that a shell makes it of.
    pub(crate) async fn send(&mut self, command: &str) {
        let line = if command.contains('\n') {
            let text = command.replace('\\', "\\\\").replace('\n', "\\n");
            let text = text.replace('\'', "'\\''");
            format!("eval \"$(printf '%b' '{text}')\"\n")
        } else {
            format!("{command}\n")
        };
        self.port
            .write_all(line.as_bytes())
            .await
            .expect("the guest's serial port");
    }

    /// Runs a command; gives its exit code and its output.
    pub(crate) async fn run(&mut self, command: &str) -> (i32, String) {
        self.send(command).await;
        let output = self.until(EXIT).await;
        let code = self.until("\n").await;
        let code = code.trim().parse().expect("an exit code");
        (code, output)
    }

    /// Runs a command that must succeed; gives its output.
    #[track_caller]
    pub(crate) fn ok(&mut self, command: &str) -> impl Future<Output = String> {
        let at = std::panic::Location::caller();
        async move {
            let (code, output) = self.run(command).await;
            assert!(code == 0, "{at}: {command}: exit {code}:\n{output}");
            output
        }
    }

    /// Everything that the guest said.
    pub(crate) fn transcript(&self) -> &str {
        &self.transcript
    }
}
