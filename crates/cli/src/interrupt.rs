//! Ctrl-C, and other wishes to stop.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{cmd_up::Interrupted, error::Kind, progress::Progress};

/// Listens for the wish to stop: the first asks the run to end, the second ends the program. Both
/// are safe, since what was begun stands in the journal.
pub(crate) fn listen(progress: Progress, again: &'static str) -> Interrupted {
    let (sender, receiver) = watch::channel(false);
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
        let mut asked = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = quit.recv() => {}
            }
            if asked {
                std::process::exit(i32::from(Kind::Failed.exit_code()));
            }
            asked = true;
            progress.say(&format!(
                "Stopping. A second Ctrl-C stops at once; either way `{again}` goes on from here."
            ));
            // Nobody is left to tell only when the run has ended already.
            let _ = sender.send(true);
        }
    });
    receiver
}
