//! Many seeds, one after the other, until one fails.

use std::ops::RangeInclusive;

/// What a run of one seed has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedOutcome<F> {
    /// What went wrong, if anything did.
    pub failure: Option<F>,
    /// The last events, oldest first; empty where nobody asked for them.
    pub trace: Vec<String>,
}

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstFailure<F> {
    /// The seed.
    pub seed: u64,
    /// What went wrong.
    pub failure: F,
    /// The last events before that, oldest first.
    pub trace: Vec<String>,
}

/// Runs each seed of the range up to the first that fails. That one is run a second time, with its
/// trace: the same seed does the same again, and a trace costs too much to be kept always.
///
/// `run` gets a seed and whether its trace is wanted.
///
/// # Errors
/// The first that `run` gives; no further seed is run then.
///
/// ```
/// use undercroft_simkit::{Rng, SeedOutcome, Trace, first_failure};
///
/// let run = |seed, traced| {
///     let mut trace = Trace::new(traced);
///     let drawn = Rng::new(seed).below(100);
///     trace.note(0, "rng", || format!("drew {drawn}"));
///     let failure = (drawn > 90).then(|| format!("{drawn} is too much"));
///     Ok::<_, std::convert::Infallible>(SeedOutcome { failure, trace: trace.into_lines() })
/// };
/// let failed = first_failure(1..=1000, run).unwrap().expect("one in ten");
/// assert!(failed.trace[0].ends_with(&failed.failure[..2]));
/// ```
pub fn first_failure<F, E>(
    seeds: RangeInclusive<u64>,
    mut run: impl FnMut(u64, bool) -> Result<SeedOutcome<F>, E>,
) -> Result<Option<FirstFailure<F>>, E> {
    for seed in seeds {
        if let Some(failure) = run(seed, false)?.failure {
            let trace = run(seed, true)?.trace;
            return Ok(Some(FirstFailure {
                seed,
                failure,
                trace,
            }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fails_is_run_again_with_its_trace_and_is_the_last() {
        let mut runs = Vec::new();
        let failed = first_failure(1..=9, |seed, traced| {
            runs.push((seed, traced));
            let trace = traced.then(|| format!("{seed} failed"));
            Ok::<_, ()>(SeedOutcome {
                failure: (seed >= 3).then_some("odd"),
                trace: trace.into_iter().collect(),
            })
        });
        let expected = FirstFailure {
            seed: 3,
            failure: "odd",
            trace: vec!["3 failed".to_owned()],
        };
        assert_eq!(failed, Ok(Some(expected)));
        assert_eq!(runs, [(1, false), (2, false), (3, false), (3, true)]);
    }

    #[test]
    fn what_cannot_be_run_ends_the_search() {
        let error = first_failure(1..=9, |seed, _| match seed {
            1 => Ok(SeedOutcome::<()> {
                failure: None,
                trace: Vec::new(),
            }),
            _ => Err(seed),
        });
        assert_eq!(error, Err(2));
    }
}
