//! Ctrl-C, and other wishes to stop.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    done::Done,
    error::{CliError, Kind},
    memory_scratch,
    progress::Progress,
};

/// How long the program is given to end what it has started once it was told to stop for the second time.
pub(crate) const INSISTED_MAX: Duration = Duration::from_secs(3);

/// Whether it was told to stop for the second time.
static INSISTED: AtomicBool = AtomicBool::new(false);

/// The receiver of a wish.
pub(crate) type Wish = watch::Receiver<bool>;

/// The wishes to stop of a command that works for long.
pub(crate) struct Signals {
    asked: Wish,
    insisted: Wish,
    again: &'static str,
}

/// Listens for the wish to stop, whichever of the signals for it comes: the first asks the run to end, the
/// second ends the program. Both are safe, since what was begun stands in the journal.
pub(crate) fn listen(progress: Progress, again: &'static str) -> Signals {
    let (ask, asked) = watch::channel(false);
    let (insist, insisted) = watch::channel(false);
    tokio::spawn(async move {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        let mut signals: Vec<_> = kinds
            .into_iter()
            .filter_map(|kind| signal(kind).ok())
            .collect();
        let [interrupt, terminate, hangup, quit] = signals.as_mut_slice() else {
            // Without handlers the signals end the program by themselves, which is as safe.
            return;
        };
        for wish in [&ask, &insist] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = quit.recv() => {}
            }
            if !*ask.borrow() {
                progress.say(&format!(
                    "Stopping. A second Ctrl-C stops at once; either way `{again}` goes on from here."
                ));
            } else {
                INSISTED.store(true, Ordering::Relaxed);
            }
            // Nobody is left to tell only when the run has ended already.
            let _ = wish.send(true);
        }
        // What waits for an answer on the terminal hears nothing.
        tokio::time::sleep(INSISTED_MAX).await;
        undercroft_process::end_programs();
        memory_scratch::wipe_own();
        std::process::exit(i32::from(Kind::Failed.exit_code()));
    });
    Signals {
        asked,
        insisted,
        again,
    }
}

/// Whether the program was told to stop for the second time: what is under way is called off, and its
/// programs end with it.
pub(crate) fn is_insisted() -> bool {
    INSISTED.load(Ordering::Relaxed)
}

/// Waits for a wish; for ever where nobody can have it any longer.
async fn wished(mut wish: Wish) {
    if wish.wait_for(|wished| *wished).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Signals {
    /// The first wish to stop.
    pub(crate) fn asked(&self) -> Wish {
        self.asked.clone()
    }

    /// Does the whole work of a command, until it is told to stop for the second time.
    pub(crate) async fn unless_insisted(
        &self,
        work: impl Future<Output = Result<Done, CliError>>,
    ) -> Result<Done, CliError> {
        tokio::select! {
            biased;
            () = wished(self.insisted.clone()) => Err(CliError::failed("stopped at once")
                .hint(format!("`{}` goes on from here.", self.again))),
            done = work => done,
        }
    }

    /// Does a part of the work that can be done again at any time; `None` where it was told to stop.
    pub(crate) async fn unless_asked<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = wished(self.asked.clone()) => None,
            done = work => Some(done),
        }
    }
}
