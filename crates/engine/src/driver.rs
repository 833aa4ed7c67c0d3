//! The driver: it makes records durable before it starts what follows them.

use undercroft_model::{Entry, Now, Record, RunEnd};

use crate::{Effect, Engine, Event, Journal, JournalError, World};

/// Carries an engine's effects out.
pub struct Driver<J> {
    engine: Engine,
    journal: J,
    observer: Box<dyn FnMut(&Entry) + Send>,
    broken: Option<JournalError>,
}

impl<J: std::fmt::Debug> std::fmt::Debug for Driver<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("engine", &self.engine)
            .field("journal", &self.journal)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl<J: Journal> Driver<J> {
    /// A driver that keeps the engine's records in that journal.
    pub fn new(engine: Engine, journal: J) -> Self {
        Self {
            engine,
            journal,
            observer: Box::new(|_| {}),
            broken: None,
        }
    }

    /// The same driver, which shows every entry when it is durable and before anything that
    /// follows it is done.
    #[must_use]
    pub fn with_observer(mut self, observer: impl FnMut(&Entry) + Send + 'static) -> Self {
        self.observer = Box::new(observer);
        self
    }

    /// Takes an event: steps the engine, appends all records of the step at once, and then starts
    /// and cancels operations in order. Gives how the run ended, once it has.
    ///
    /// # Errors
    /// When the records could not be made durable. Then nothing was started, what runs was called
    /// off, and every later call gives the same error: what the engine knows is no longer what the
    /// journal says. A new run goes on from the journal.
    pub fn handle(
        &mut self,
        now: Now,
        event: Event,
        world: &mut impl World,
    ) -> Result<Option<RunEnd>, JournalError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let mut records: Vec<Record> = Vec::new();
        let mut rest: Vec<Effect> = Vec::new();
        for effect in self.engine.step(now, event) {
            match effect {
                Effect::Journal(record) => records.push(record),
                other => rest.push(other),
            }
        }
        if !records.is_empty() {
            match self.journal.append(now.wall_ms, records) {
                Ok(entries) => entries.iter().for_each(|entry| (self.observer)(entry)),
                Err(error) => {
                    // Among them may be some that were never started; a world ignores those.
                    self.engine.running().for_each(|op| world.cancel(op));
                    for effect in rest {
                        if let Effect::Cancel(op) = effect {
                            world.cancel(op);
                        }
                    }
                    self.broken = Some(error.clone());
                    return Err(error);
                }
            }
        }
        let mut end = None;
        for effect in rest {
            match effect {
                Effect::Start(order) => world.start(*order),
                Effect::Cancel(op) => world.cancel(op),
                Effect::Finished(how) => end = Some(how),
                Effect::Journal(_) => {}
            }
        }
        Ok(end)
    }

    /// When [`Event::Tick`] is due at the latest, in milliseconds of the monotonic clock.
    pub fn next_deadline(&self) -> Option<u64> {
        self.engine.next_deadline()
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The journal.
    pub fn journal(&self) -> &J {
        &self.journal
    }

    /// The journal, when the run is over.
    pub fn into_journal(self) -> J {
        self.journal
    }
}
