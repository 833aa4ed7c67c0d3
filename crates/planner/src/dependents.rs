//! Who waits for whom, step by step.

use undercroft_model::StepId;

/// For each step of a plan, those that wait for it. They stand one behind the other, so that a plan of any size
/// needs two allocations.
#[derive(Debug, Clone, Default)]
pub struct Dependents {
    /// Where each step's begin, and at the end where the last one's end.
    starts: Vec<u32>,
    all: Vec<StepId>,
}

impl Dependents {
    /// Collects those of so many steps from pairs of a step and one that waits for it, in the order of the pairs,
    /// which are gone through twice.
    pub fn new<I>(steps: usize, pairs: impl Fn() -> I) -> Self
    where
        I: Iterator<Item = (StepId, StepId)>,
    {
        let mut starts = vec![0u32; steps.saturating_add(1)];
        for (step, _) in pairs() {
            if let Some(count) = starts.get_mut(step.index().saturating_add(1)) {
                *count = count.saturating_add(1);
            }
        }
        let mut sum = 0u32;
        for start in &mut starts {
            sum = sum.saturating_add(*start);
            *start = sum;
        }
        let mut next = starts.clone();
        let mut all = vec![StepId(0); usize::try_from(sum).unwrap_or(0)];
        for (step, dependent) in pairs() {
            let place = next.get_mut(step.index()).and_then(|next| {
                let place = usize::try_from(*next).ok()?;
                *next = next.saturating_add(1);
                all.get_mut(place)
            });
            if let Some(place) = place {
                *place = dependent;
            }
        }
        Self { starts, all }
    }

    /// Those that wait for a step; none for a step that there isn't.
    pub fn of(&self, step: StepId) -> &[StepId] {
        let at = |place: usize| usize::try_from(*self.starts.get(place)?).ok();
        let place = step.index();
        let range = at(place).zip(place.checked_add(1).and_then(at));
        range
            .and_then(|(from, to)| self.all.get(from..to))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_own_in_their_order() {
        let pairs = [(2, 7), (0, 1), (2, 3), (9, 9), (0, 5)];
        let pairs = pairs.map(|(step, dependent)| (StepId(step), StepId(dependent)));
        let dependents = Dependents::new(4, || pairs.iter().copied());
        assert_eq!(dependents.of(StepId(0)), [StepId(1), StepId(5)]);
        assert_eq!(dependents.of(StepId(1)), []);
        assert_eq!(dependents.of(StepId(2)), [StepId(7), StepId(3)]);
        assert_eq!(dependents.of(StepId(3)), []);
        assert_eq!(dependents.of(StepId(9)), [], "there is no such step");
        assert_eq!(dependents.of(StepId(u32::MAX)), []);
        assert_eq!(Dependents::default().of(StepId(0)), []);
    }
}
