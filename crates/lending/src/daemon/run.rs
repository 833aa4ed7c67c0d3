//! The daemon's loop.

use std::{collections::BTreeSet, path::Path, time::Duration};

use tokio::sync::{mpsc, oneshot, watch as channel};
use undercroft_lend::device::Input;

use super::{
    content::FREE_BYTES_MIN,
    core::{Daemon, Told},
    job::Wish,
    open::DaemonError,
    pause,
};
use crate::{
    clock::{self, Timer},
    idle::{self, Seat, Session},
    owner::{Listener, OwnerAnswer, OwnerAsk, Question},
    watch,
};

/// How often it is looked whether the owner wants the machine, while a job runs, in milliseconds.
const LOOK_MS_RUNNING: u64 = 2_000;
/// How often, while none runs, in milliseconds. A look is a few files; before a job begins there is one more.
const LOOK_MS_IDLE: u64 = 30_000;
/// Questions that wait, at most.
const QUESTIONS_MAX: usize = 8;
/// How long jobs are waited for when the daemon is to end, in milliseconds. What is left then dies with it.
const END_MS_MAX: u64 = 10_000;

impl Daemon {
    /// Runs until `stop` is ready, or the state folder can't be used.
    ///
    /// # Errors
    /// When the socket or the connection can't be made.
    pub async fn run(
        mut self,
        socket: &Path,
        session: Session,
        stop: impl Future<Output = ()>,
    ) -> Result<(), DaemonError> {
        let failed = |tried: String| move |source| DaemonError::Io { tried, source };
        let (to, mut questions) = mpsc::channel::<Question>(QUESTIONS_MAX);
        let _listener = Listener::open(socket, to)
            .map_err(failed(format!("listen at {}", socket.display())))?;
        let timer = Timer::new().map_err(failed("make a timer".to_owned()))?;
        self.connect().await?;
        self.start().await;
        self.session = Some(session);
        self.watch_seat();
        self.look().await;
        tokio::pin!(stop);
        let mut looked_ms = clock::mono_ms_now();
        loop {
            self.tell();
            let look_ms = match self.jobs.is_empty() {
                true => LOOK_MS_IDLE,
                false => LOOK_MS_RUNNING,
            };
            let look_at_ms = looked_ms.saturating_add(look_ms);
            let next_ms = self.next_ms().min(look_at_ms);
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(question) = questions.recv() => self.heed(question).await,
                Some(happened) = self.happened.recv() => self.take(happened).await,
                () = changed(&mut self.seat) => self.look().await,
                done = timer.until(next_ms) => {
                    done.map_err(failed("wait".to_owned()))?;
                    if clock::mono_ms_now() >= look_at_ms {
                        looked_ms = clock::mono_ms_now();
                        self.look().await;
                    }
                    self.tick().await;
                }
            }
        }
        self.end().await;
        Ok(())
    }

    /// Answers one question of the owner while no daemon runs. Nothing is lent meanwhile.
    ///
    /// # Errors
    /// When a timer can't be made.
    pub async fn answer(mut self, ask: OwnerAsk) -> Result<OwnerAnswer, DaemonError> {
        let failed = |source| DaemonError::Io {
            tried: "wait".to_owned(),
            source,
        };
        let timer = Timer::new().map_err(failed)?;
        self.start().await;
        let (answer, mut answered) = oneshot::channel();
        self.heed(Question { ask, answer }).await;
        loop {
            let next_ms = self.next_ms();
            tokio::select! {
                answer = &mut answered => {
                    let gone = OwnerAnswer::Refused { why: "there was no answer".to_owned(), hint: None };
                    return Ok(answer.unwrap_or(gone));
                }
                Some(happened) = self.happened.recv() => self.take(happened).await,
                done = timer.until(next_ms) => {
                    done.map_err(failed)?;
                    self.tick().await;
                }
            }
        }
    }

    /// When time changes something by itself.
    fn next_ms(&self) -> u64 {
        let now = clock::now();
        let pause_ms = self
            .paused
            .as_ref()
            .and_then(|paused| paused.until_ms)
            .map(|until_ms| now.mono_ms + until_ms.saturating_sub(now.wall_ms));
        let waits = self.waiting.iter().map(|waiting| waiting.until_ms);
        self.device
            .next_deadline()
            .into_iter()
            .chain(pause_ms)
            .chain(waits)
            .min()
            .unwrap_or(u64::MAX)
    }

    async fn tick(&mut self) {
        let wall_ms = clock::now().wall_ms;
        let is_over = self
            .paused
            .as_ref()
            .and_then(|paused| paused.until_ms)
            .is_some_and(|until_ms| until_ms <= wall_ms);
        if is_over {
            // Over is over, also where the disk can't be told: what is kept has an end, and is over at the next start, too.
            if let Err(error) = pause::write(&self.state, None) {
                self.trouble = Some(error.to_string());
            }
            self.go_on().await;
        }
        self.step(Input::Tick).await;
    }

    /// Looks whether the owner wants the machine.
    pub(super) async fn look(&mut self) {
        if self.bus.is_none() {
            return;
        }
        // What is known at once is told at once; files, and even more so the buses, may take a while.
        let mut why_not = self.no_yard.iter().cloned().collect::<BTreeSet<_>>();
        if self.policy.when.has_seat {
            let unknown = || Some("nobody has said yet whether its owner is there".to_owned());
            let seat = self.seat.as_ref().map(|seat| seat.borrow().why_not());
            why_not.extend(seat.unwrap_or_else(unknown));
        }
        if !why_not.is_empty() && self.why_not.is_empty() {
            self.why_not.clone_from(&why_not);
            self.step(Input::May(why_not.clone())).await;
        }
        let (roots, narrowed) = (self.roots.clone(), self.narrowed.clone());
        let (when, wall_ms) = (self.policy.when.clone(), clock::now().wall_ms);
        let folder = self.state.root().to_owned();
        let looked = tokio::task::spawn_blocking(move || {
            let mut reasons = watch::reasons(&roots, &when, &narrowed, wall_ms);
            reasons.extend(watch::room(&folder, FREE_BYTES_MIN));
            reasons
        });
        match looked.await {
            Ok(reasons) => why_not.extend(reasons),
            Err(error) => drop(why_not.insert(format!("nobody could look at it: {error}"))),
        }
        if !why_not.is_empty() && self.why_not.is_empty() {
            self.why_not.clone_from(&why_not);
            self.step(Input::May(why_not.clone())).await;
        }
        why_not.extend(self.buses.reasons().await);
        // It is said each time: a device that was just started waits for the first word.
        self.why_not.clone_from(&why_not);
        self.step(Input::May(why_not)).await;
    }

    /// Begins to watch the seat, or begins anew where the owner wants another time.
    pub(super) fn watch_seat(&mut self) {
        let Some(session) = self.session.clone().filter(|_| self.policy.when.has_seat) else {
            return;
        };
        let after_s = self.narrowed.idle_after_s(&self.policy.when);
        let why = "it was just started".to_owned();
        let (to, seat) = channel::channel(Seat::Unknown { why });
        self.seat = Some(seat);
        let after = Duration::from_secs(u64::from(after_s));
        tokio::spawn(idle::watch(session, after, to));
    }

    fn tell(&self) {
        let status = self.status();
        let told = Told {
            why_not: status.why_not,
            jobs: status.jobs.into_iter().map(|j| (j.job, j.phase)).collect(),
            is_connected: status.server.connected,
        };
        self.told.send_if_modified(|known| {
            let is_news = *known != told;
            *known = told;
            is_news
        });
    }

    /// Kills what runs, and waits for it. The next daemon signs that nothing is left, and reports it.
    async fn end(mut self) {
        for job in self.jobs.values() {
            job.wish.send_replace(Wish::Kill);
        }
        let all_gone = async {
            while !self.jobs.is_empty() {
                let Some(happened) = self.happened.recv().await else {
                    return;
                };
                self.take(happened).await;
            }
        };
        // What is left is killed as its handles are dropped.
        let _ = tokio::time::timeout(Duration::from_millis(END_MS_MAX), all_gone).await;
        if let Some(bus) = self.bus.take() {
            bus.close().await;
        }
    }
}

/// Waits until more is known of a seat; for ever where nobody watches one.
async fn changed(seat: &mut Option<channel::Receiver<Seat>>) {
    let is_watched = match seat {
        Some(seat) => seat.changed().await.is_ok(),
        None => false,
    };
    if !is_watched {
        std::future::pending::<()>().await;
    }
}
