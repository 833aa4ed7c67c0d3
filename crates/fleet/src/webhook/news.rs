//! What is news: another reason to wait, a failure, a recovery; and not that one is tried again.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_model::NodeName;

use crate::standing::{Course, Told};

/// The word of a machine that failed and is tried again later.
const NEXT_TRY: &str = "next-try";

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct News {
    course: Course,
    failing: bool,
    waits: BTreeSet<(NodeName, String)>,
    drift: BTreeMap<String, u64>,
}

/// Something new.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct New {
    pub(crate) before: Course,
    pub(crate) told: Told,
}

impl News {
    /// What is new in what is told now, if anything is.
    pub(crate) fn of(&mut self, told: Told) -> Option<New> {
        let failing = told.course == Course::Failing;
        let waits = match told.course {
            // Nothing was decided: what was waited for is as it was.
            Course::Failing | Course::Starting => self.waits.clone(),
            Course::Well | Course::Waiting | Course::Working => {
                let mut waits: BTreeSet<_> = told
                    .waits
                    .iter()
                    .map(|wait| (wait.node.clone(), wait.waits_for.clone()))
                    .collect();
                if told.course == Course::Working {
                    // That it is tried again is no recovery yet.
                    let tried = self.waits.iter().filter(|(_, word)| word == NEXT_TRY);
                    waits.extend(tried.cloned());
                }
                waits
            }
        };
        if failing == self.failing && waits == self.waits && told.drift == self.drift {
            return None;
        }
        let before = std::mem::replace(&mut self.course, told.course);
        (self.failing, self.waits) = (failing, waits);
        self.drift.clone_from(&told.drift);
        Some(New { before, told })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::standing::ToldWait;

    fn told(course: Course, waits: &[(&str, &str)]) -> Told {
        Told {
            course,
            sentence: format!("it is {}", course.as_str()),
            waits: waits
                .iter()
                .map(|(node, word)| ToldWait {
                    node: NodeName::new(*node).unwrap(),
                    waits_for: (*word).to_owned(),
                    reason: "a reason".to_owned(),
                })
                .collect(),
            drift: BTreeMap::new(),
        }
    }

    #[test]
    fn failures_recoveries_and_other_waits_are_news_and_what_stays_is_not() {
        use Course::{Failing, Starting, Waiting, Well, Working};
        let a = [("box-1", "unreachable")];
        let both = [("box-1", "unreachable"), ("box-2", "approval")];
        let tried = [("box-1", "next-try")];
        let mut news = News::default();
        type Waits<'a> = &'a [(&'a str, &'a str)];
        let steps: [(Course, Waits<'_>, bool); 16] = [
            (Starting, &[], false),
            // That all is well is no news to who was told nothing else.
            (Well, &[], false),
            (Working, &[], false),
            (Failing, &[], true),
            (Failing, &[], false),
            (Well, &[], true),
            (Waiting, &a, true),
            (Waiting, &a, false),
            // It says nothing of whom it waits for.
            (Failing, &[], true),
            (Waiting, &a, true),
            (Working, &both, true),
            (Waiting, &tried, true),
            // It is tried again, fails again, and then is done.
            (Working, &[], false),
            (Waiting, &tried, false),
            (Working, &[], false),
            (Well, &[], true),
        ];
        let mut before = Starting;
        for (n, (course, waits, is_news)) in steps.into_iter().enumerate() {
            let new = news.of(told(course, waits));
            assert_eq!(new.is_some(), is_news, "{n}: {course:?}");
            if let Some(new) = new {
                assert_eq!(new.before, before, "{n}");
                before = course;
            }
        }
    }

    #[test]
    fn what_has_drifted_is_news_once_and_so_is_its_end() {
        let mut news = News::default();
        let well = told(Course::Well, &[]);
        let mut drifted = well.clone();
        drifted.drift.insert("cordon".to_owned(), 1);
        for (told, is_news) in [
            (&well, false),
            (&drifted, true),
            (&drifted, false),
            (&well, true),
        ] {
            assert_eq!(news.of(told.clone()).is_some(), is_news, "{told:?}");
        }
    }

    #[test]
    fn other_words_for_the_same_reason_are_no_news() {
        let mut news = News::default();
        let first = told(Course::Waiting, &[("box-1", "unreachable")]);
        assert!(news.of(first.clone()).is_some());
        let mut again = first;
        again.waits[0].reason = "another port was closed".to_owned();
        assert_eq!(news.of(again), None);
    }
}
