//! A sign of life where something takes long and has no figures to show.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::ui::Ui;

/// How long something may take in silence.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a line says that it goes on, where nobody watches a terminal.
const AGAIN: Duration = Duration::from_secs(30);
/// How often the sign on a terminal moves.
const TICK: Duration = Duration::from_millis(120);

/// Something that goes on until this is dropped.
pub(crate) struct Busy {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    /// As [`Busy::new`], with plain lines on a terminal too: for work in the middle of which somebody
    /// may be asked something.
    pub(crate) fn in_lines(ui: Ui, what: &str) -> Self {
        Self::new(Ui { live: false, ..ui }, what)
    }

    /// Says what goes on, once it has taken a moment: on a terminal as a line that moves and is
    /// taken away in the end, elsewhere as plain lines on standard error.
    pub(crate) fn new(ui: Ui, what: &str) -> Self {
        if ui.quiet {
            return Self {
                done: None,
                thread: None,
            };
        }
        let (done, ended) = mpsc::channel::<()>();
        let what = what.to_owned();
        let thread = std::thread::Builder::new()
            .name("busy".to_owned())
            .spawn(move || {
                let begun = Instant::now();
                if ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                if ui.live {
                    let bar =
                        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
                    while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                        bar.set_style(indicatif::ProgressStyle::default_spinner());
                        bar.set_message(format!("{what}, {}", crate::text::duration(ms)));
                        bar.tick();
                    }
                    bar.finish_and_clear();
                    return;
                }
                ui.note(&format!("{what} …"));
                while ended.recv_timeout(AGAIN) == Err(RecvTimeoutError::Timeout) {
                    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    ui.note(&format!("{what}: {} so far", crate::text::duration(ms)));
                }
            });
        Self {
            done: Some(done),
            // Without the thread there is no sign of life, and the work goes on all the same.
            thread: thread.ok(),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
