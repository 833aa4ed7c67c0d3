//! What goes on beside a job: its words, its log, its time and its disk are watched, and its end is seen.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::UnixStream,
    process::{Child, ChildStderr, ChildStdout},
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    JobEnd, KillReason, SandboxError, bwrap,
    disk::DiskWatch,
    groups::lock,
    order::{WORD_BYTES_MAX, Word},
    running::Held,
};

/// How often time and disk are looked at.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A look at the disk takes at most one part in so many of the time.
const LOOK_SHARE: u32 = 10;
/// How much of a log is read at once, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// How long the rest of a log is read after the last process has gone. It is in the pipe already.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// How long it is waited until processes that didn't die are killed again. Without an end: a job whose processes are
/// there has not ended.
const AGAIN: Duration = Duration::from_secs(5);

/// What is told when the job begins, or why it doesn't.
pub(crate) type Begun = oneshot::Sender<Result<u32, SandboxError>>;

/// A started sandbox.
pub(crate) struct Supervisor {
    held: Arc<Held>,
    child: Child,
    words: Option<UnixStream>,
    said: Vec<u8>,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    begun: Option<Begun>,
    refused: Option<String>,
    unfit: Option<String>,
    trapped: Option<String>,
    look: Option<JoinHandle<(Option<KillReason>, Duration)>>,
    next_look: Instant,
    oom_kills: u64,
}

/// What happened.
enum Seen {
    Word(std::io::Result<usize>),
    Out(std::io::Result<usize>),
    Err(std::io::Result<usize>),
    Ended(std::io::Result<ExitStatus>),
    Tick,
}

impl Supervisor {
    pub(crate) fn new(held: Arc<Held>, mut child: Child, words: UnixStream, begun: Begun) -> Self {
        Self {
            held,
            out: child.stdout.take(),
            err: child.stderr.take(),
            child,
            words: Some(words),
            said: Vec::new(),
            begun: Some(begun),
            refused: None,
            unfit: None,
            trapped: None,
            look: None,
            next_look: Instant::now(),
            oom_kills: 0,
        }
    }

    /// Watches until nothing of the job is left, and tells how it ended.
    pub(crate) async fn run(mut self, ended: watch::Sender<Option<JobEnd>>) {
        let mut buffers = [
            vec![0u8; READ_BYTES],
            vec![0u8; READ_BYTES],
            vec![0u8; 1024],
        ];
        let [out, err, word] = &mut buffers;
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let status = loop {
            let seen = tokio::select! {
                n = read(self.words.as_mut(), word), if self.words.is_some() => Seen::Word(n),
                n = read(self.out.as_mut(), out), if self.out.is_some() => Seen::Out(n),
                n = read(self.err.as_mut(), err), if self.err.is_some() => Seen::Err(n),
                status = self.child.wait() => Seen::Ended(status),
                _ = tick.tick() => Seen::Tick,
            };
            match seen {
                Seen::Word(n) => self.heard(word.get(..n.unwrap_or(0)).unwrap_or_default()),
                Seen::Out(n) => {
                    if !self.logged(out.get(..n.unwrap_or(0)).unwrap_or_default()) {
                        self.out = None;
                    }
                }
                Seen::Err(n) => {
                    if !self.logged(err.get(..n.unwrap_or(0)).unwrap_or_default()) {
                        self.err = None;
                    }
                }
                Seen::Tick => self.tick().await,
                Seen::Ended(status) => break status,
            }
        };
        let code = status.as_ref().ok().map(|status| {
            let signal = || status.signal().map(|signal| 128 + signal);
            status.code().or_else(signal).unwrap_or(-1)
        });
        if status.is_err() {
            // It isn't known any more whether it ended: then it is to.
            let _ = self.child.start_kill();
        }
        self.close().await;
        let end = self.end(code.unwrap_or(-1));
        let _ = ended.send(Some(end));
    }

    /// Takes what undercroft-job says.
    fn heard(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
        while let Some(at) = self.said.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.said.drain(..=at).collect();
            match serde_json::from_slice(&line) {
                Ok(Word::Begins { landlock_abi }) => self.begins(landlock_abi),
                Ok(Word::Refused { why }) => self.refused = Some(why),
                Ok(Word::Unfit { why }) => self.unfit = Some(why),
                Ok(Word::Trapped { why }) => self.trapped = Some(why),
                Err(error) => self.refused = Some(format!("its words can't be read: {error}")),
            }
        }
        if bytes.is_empty() || self.said.len() > WORD_BYTES_MAX {
            self.words = None;
        }
    }

    fn begins(&mut self, landlock_abi: u32) {
        if let Some(begun) = self.begun.take() {
            self.held.start_watch();
            // Whoever started it may have gone; then it is killed by its guard.
            let _ = begun.send(Ok(landlock_abi));
        }
    }

    /// Takes some of the log; `false` at its end.
    fn logged(&mut self, bytes: &[u8]) -> bool {
        let mut tail = lock(&self.held.tail);
        tail.push(bytes);
        let is_too_much = tail.seen() > self.held.bounds.log_bytes;
        drop(tail);
        if is_too_much {
            // Not read any further: whoever writes on has nobody to write to.
            (self.out, self.err) = (None, None);
            self.kill(KillReason::Log);
        }
        !bytes.is_empty() && !is_too_much
    }

    async fn tick(&mut self) {
        if self.held.reason().is_some() {
            // Whoever was about to enter the group when it was killed is in it by now. What isn't written now is at the
            // next tick.
            let _ = self.held.group.kill();
        }
        if self.held.ran() > self.held.bounds.wall {
            self.kill(KillReason::Wall);
        }
        let Some(watch) = DiskWatch::of(&self.held.folder, self.held.bounds.disk) else {
            return;
        };
        // What is frozen writes nothing, and the disk is its owner's alone then.
        if self.begun.is_none() && !self.held.is_running() {
            return;
        }
        if self.look.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(look) = self.look.take()
        {
            let (found, took) = look.await.unwrap_or_default();
            self.next_look = Instant::now() + took * LOOK_SHARE;
            if let Some(reason) = found {
                self.kill(reason);
            }
        }
        if self.look.is_none() && Instant::now() >= self.next_look {
            // Before it begins there is nobody but the sandbox itself, which changes what it may as it goes.
            let processes = match self.begun {
                None => self.held.group.processes(),
                Some(_) => Vec::new(),
            };
            self.look = Some(tokio::task::spawn_blocking(move || {
                let start = Instant::now();
                (watch.look(&processes), start.elapsed())
            }));
        }
    }

    fn kill(&self, reason: KillReason) {
        // What can't be written to is looked at again at the next tick.
        let _ = self.held.kill_for(reason);
    }

    /// Sees that no process is left, and removes the group.
    async fn close(&mut self) {
        while self.held.group.kill_and_see().await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        let _ = tokio::time::timeout(DRAIN_LIMIT, self.drain()).await;
        self.held.close();
        self.oom_kills = self.held.group.oom_kills();
        // An empty group that stays costs nothing, and is removed by the next sweep.
        let _ = self.held.group.remove().await;
    }

    /// Reads what is left of words and log.
    async fn drain(&mut self) {
        let mut buffer = vec![0u8; READ_BYTES];
        while self.words.is_some() {
            let count = read(self.words.as_mut(), &mut buffer).await.unwrap_or(0);
            self.heard(buffer.get(..count).unwrap_or_default());
        }
        while self.out.is_some() {
            let count = read(self.out.as_mut(), &mut buffer).await.unwrap_or(0);
            if !self.logged(buffer.get(..count).unwrap_or_default()) {
                self.out = None;
            }
        }
        while self.err.is_some() {
            let count = read(self.err.as_mut(), &mut buffer).await.unwrap_or(0);
            if !self.logged(buffer.get(..count).unwrap_or_default()) {
                self.err = None;
            }
        }
    }

    fn end(&mut self, code: i32) -> JobEnd {
        if let Some(begun) = self.begun.take() {
            let _ = begun.send(Err(self.not_begun()));
        }
        if let Some(reason) = self.held.reason() {
            JobEnd::Killed { reason }
        } else if self.oom_kills > 0 {
            JobEnd::OutOfMemory
        } else if let Some(why) = self
            .trapped
            .take()
            .or(self.unfit.take())
            .or(self.refused.take())
        {
            JobEnd::Trapped { why }
        } else {
            JobEnd::Exited { code }
        }
    }

    /// Why the job did not begin: in the words of undercroft-job, or of bubblewrap.
    fn not_begun(&mut self) -> SandboxError {
        if let Some(reason) = self.held.reason() {
            let why = match reason {
                KillReason::Disk { why } | KillReason::NoRoom { why } => why,
                KillReason::Log => "it said too much before it began".to_owned(),
                KillReason::Wall | KillReason::Asked => "it was killed before it began".to_owned(),
            };
            return SandboxError::Refused { why, hint: None };
        }
        if let Some(why) = self.unfit.take() {
            return SandboxError::Unfit { why, hint: None };
        }
        if let Some(why) = self.refused.take() {
            return SandboxError::Refused { why, hint: None };
        }
        if self.oom_kills > 0 {
            return SandboxError::Unfit {
                why: "its memory was used up before it began".to_owned(),
                hint: Some("give it more, or make its program smaller".to_owned()),
            };
        }
        let said = lock(&self.held.tail).text();
        bwrap::in_words(&said)
    }
}

/// Reads from what is there.
async fn read(
    from: Option<&mut (impl AsyncRead + Unpin)>,
    to: &mut [u8],
) -> std::io::Result<usize> {
    match from {
        Some(from) => from.read(to).await,
        None => Ok(0),
    }
}
