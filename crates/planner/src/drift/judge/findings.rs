//! Where what is found and what wasn't told goes.

use std::collections::BTreeMap;

use undercroft_model::{NodeName, text::visible_line};

use crate::drift::{DriftKind, Unseen};

/// The most findings of one kind on one machine that are told. Of more, the rest isn't seen.
pub const FINDINGS_KIND_MAX: usize = 32;
/// The longest text of a finding, in bytes.
const TEXT_BYTES_MAX: usize = 400;

/// What a finding is known by from look to look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::drift) struct Key {
    /// The machine; `None` for what is the cluster's.
    pub(in crate::drift) node: Option<NodeName>,
    pub(in crate::drift) kind: DriftKind,
    /// Which of these: a unit, a check, a label's key. Empty where there is but one.
    pub(in crate::drift) subject: String,
}

/// What should be, and what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::drift) struct Differs {
    pub(in crate::drift) want: String,
    pub(in crate::drift) have: String,
}

/// What a look comes to.
#[derive(Debug, Default)]
pub(in crate::drift) struct Judged {
    pub(in crate::drift) found: BTreeMap<Key, Differs>,
    pub(in crate::drift) unseen: Vec<Unseen>,
    /// What wasn't told, and needn't be: it is no news, and ends nothing.
    quiet: Vec<(Option<NodeName>, DriftKind)>,
}

impl Judged {
    /// Whether what is known by this could be seen by a look of that machine or of the cluster.
    pub(in crate::drift) fn saw(&self, key: &Key) -> bool {
        let hides = |unseen: &Unseen| {
            (unseen.node.is_none() || unseen.node == key.node)
                && unseen.kinds.contains(&key.kind)
                && unseen.subject.as_ref().is_none_or(|s| *s == key.subject)
        };
        let is_quiet =
            |(node, kind): &(Option<NodeName>, DriftKind)| *node == key.node && *kind == key.kind;
        !self.unseen.iter().any(hides) && !self.quiet.iter().any(is_quiet)
    }
}

/// Where the findings of one machine, or of the cluster, go.
pub(super) struct Of<'a> {
    pub(super) node: Option<&'a NodeName>,
    pub(super) judged: &'a mut Judged,
}

impl Of<'_> {
    /// Something isn't as it should be.
    pub(super) fn found(&mut self, kind: DriftKind, subject: &str, want: &str, have: &str) {
        let key = |subject: String| Key {
            node: self.node.cloned(),
            kind,
            subject,
        };
        let beyond = FINDINGS_KIND_MAX;
        let of_kind = self.judged.found.range(key(String::new())..);
        let of_kind = of_kind.take_while(|(k, _)| k.node.as_ref() == self.node && k.kind == kind);
        if of_kind.count() >= beyond {
            let why = format!("there is more of it than the {beyond} that are told");
            let told = self.judged.unseen.iter();
            let is_told =
                |u: &Unseen| u.node.as_ref() == self.node && u.why == why && u.kinds == [kind];
            if !told.into_iter().any(is_told) {
                self.unseen(kind, None, &why);
            }
            return;
        }
        let differs = Differs {
            want: bounded(want),
            have: bounded(have),
        };
        self.judged.found.insert(key(bounded(subject)), differs);
    }

    /// Something wasn't told.
    pub(super) fn unseen(&mut self, kind: DriftKind, subject: Option<&str>, why: &str) {
        self.judged.unseen.push(Unseen {
            node: self.node.cloned(),
            kinds: vec![kind],
            subject: subject.map(bounded),
            why: bounded(why),
        });
    }

    pub(super) fn unseen_quietly(&mut self, kind: DriftKind) {
        self.judged.quiet.push((self.node.cloned(), kind));
    }

    pub(super) fn unseen_all(&mut self, kinds: impl IntoIterator<Item = DriftKind>, why: &str) {
        self.judged.unseen.push(Unseen {
            node: self.node.cloned(),
            kinds: kinds.into_iter().collect(),
            subject: None,
            why: bounded(why),
        });
    }
}

/// What came from a machine or the API, fit to be shown and to be kept.
fn bounded(text: &str) -> String {
    let text = visible_line(text);
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
