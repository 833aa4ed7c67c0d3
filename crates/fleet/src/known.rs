//! What a controller knows from its journal: read once, kept, and gone on with.

use std::ops::ControlFlow;

use undercroft_engine::{Engine, ResumeError, Resumption};
use undercroft_journal::{Store, StoreError};
use undercroft_model::{Entry, view::FleetView};

/// The folds of a journal that a controller needs. Each entry is read, checked and folded once, however often
/// it is asked for what is new, and none of them is held.
#[derive(Debug)]
pub struct Known {
    view: FleetView,
    /// What contradicted the entries before it ended the fold: then no plan can be gone on with.
    resumption: Result<Resumption, ResumeError>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            view: FleetView::default(),
            resumption: Ok(Resumption::default()),
        }
    }
}

impl Known {
    /// Takes in what the journal has gained since it was last asked.
    ///
    /// # Errors
    /// When it can't be read, or isn't what was written; what was taken in until then stays.
    pub fn extend(&mut self, journal: &Store) -> Result<(), StoreError> {
        journal.for_each_entry(self.view.next_seq, |entry| {
            self.apply(&entry);
            ControlFlow::Continue(())
        })
    }

    fn apply(&mut self, entry: &Entry) {
        self.view.apply(entry);
        if let Ok(resumption) = &mut self.resumption
            && let Err(error) = resumption.apply(entry)
        {
            self.resumption = Err(error);
        }
    }

    /// What the journal says of the fleet.
    pub fn view(&self) -> &FleetView {
        &self.view
    }

    /// An engine that goes on with the plan that was accepted last.
    ///
    /// # Errors
    /// When there is none, or the journal contradicts itself.
    pub fn engine(&self) -> Result<Engine, ResumeError> {
        match &self.resumption {
            Ok(resumption) => resumption.engine(),
            Err(error) => Err(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use undercroft_journal::FleetJournal;
    use undercroft_model::{Observation, Record, RunEnd, inventory::parse};

    use super::*;

    fn bring_up() -> Vec<Record> {
        let text = include_bytes!("../../../examples/basement/undercroft.toml");
        let inventory = parse("undercroft.toml", text).inventory.unwrap();
        let (plan, _) = undercroft_planner::plan(&inventory, &Observation::default(), None);
        let id = plan.id.clone();
        let accepted = Record::PlanAccepted {
            plan: Arc::new(plan),
        };
        let started = Record::RunStarted {
            plan: id,
            undercroft: "0.1.0".to_owned(),
        };
        let end = RunEnd::Interrupted;
        vec![accepted, started, Record::RunEnded { end }]
    }

    #[test]
    fn each_entry_is_read_once_however_often_it_is_asked_for_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = FleetJournal::open(dir.path(), "basement", "a test").unwrap();
        let mut known = Known::default();
        for round in 1..=3 {
            journal.append_records(round, bring_up()).unwrap();
            for _ in 0..4 {
                known.extend(journal.store()).unwrap();
            }
            assert_eq!(journal.store().entries_read(), 1 + 3 * round);
        }
        let entries = journal.store().entries(0, usize::MAX).unwrap();
        assert_eq!(*known.view(), FleetView::fold(&entries));
        let whole = Engine::resume(&entries);
        assert_eq!(format!("{:?}", known.engine()), format!("{whole:?}"));
    }

    #[test]
    fn a_journal_that_contradicts_itself_is_seen_and_not_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = FleetJournal::open(dir.path(), "basement", "a test").unwrap();
        let mut known = Known::default();
        known.extend(journal.store()).unwrap();
        assert_eq!(known.engine().unwrap_err(), ResumeError::NoPlan);
        let mut records = bring_up();
        records.remove(0);
        journal.append_records(1, records).unwrap();
        known.extend(journal.store()).unwrap();
        let refused = known.engine().unwrap_err();
        assert!(matches!(refused, ResumeError::Contradiction { seq: 1, .. }));
        journal.append_records(2, bring_up()).unwrap();
        known.extend(journal.store()).unwrap();
        assert_eq!(known.view().next_seq, 6);
        assert_eq!(known.engine().unwrap_err(), refused);
    }
}
