//! One cause, one finding: what several checks, or one check of several machines, find because of
//! the same slip is told once, with all that it touches.

use std::{collections::BTreeMap, net::Ipv4Addr, ops::Range};

use super::state::Check;
use crate::inventory::{
    source::Finding,
    words::{listed, nearest},
};

/// Things that a message names before it only counts.
const MAX_NAMED: usize = 8;

/// A word for what is at a path, and the path.
type Use = (&'static str, Vec<String>);
/// A word for what is claimed, and the finding that it gives alone.
type Claim = (&'static str, Finding);

/// Findings that wait for others of the same cause.
#[derive(Default)]
pub(super) struct Causes {
    /// References to what isn't there, by section and name.
    unknown: BTreeMap<(&'static str, String), Vec<Use>>,
    /// What two entries of a section both claim, by section and names.
    shared: BTreeMap<(&'static str, String, String), Vec<Claim>>,
    /// Faults of nodes that come from their class, by code and class.
    of_class: BTreeMap<(&'static str, String), Vec<(String, Finding)>>,
    /// Addresses that the nodes' network hasn't got.
    pub(super) outside: Vec<(String, Ipv4Addr, Finding)>,
}

/// Names in a message: all of a few, the first of many.
pub(super) fn named(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().map(String::as_str).take(MAX_NAMED).collect();
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl Check<'_, '_> {
    /// Reports a reference to something that isn't there.
    pub(super) fn unknown(
        &mut self,
        what: &'static str,
        section: &'static str,
        name: &str,
        path: &[&str],
    ) {
        // Where not all names could be read, it may be there all the same; and where it is there, what
        // is wrong with it is reported there.
        if !self.cx.knows_names(section) || self.names(section).contains(&name) {
            return;
        }
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        let key = (section, name.to_owned());
        self.causes
            .unknown
            .entry(key)
            .or_default()
            .push((what, path));
    }

    /// Whether an entry is a copy of another: how many there are is then not certain.
    pub(super) fn has_copies(&self, section: &'static str) -> bool {
        let mut shared = self.causes.shared.iter();
        shared.any(|((s, a, b), claims)| *s == section && a != b && claims.len() > 1)
    }

    /// Whether an entry is spoken of that isn't there.
    pub(super) fn misses(&self, section: &'static str) -> bool {
        self.causes.unknown.keys().any(|(of, _)| *of == section)
    }

    /// Whether a node's own parts contradict each other by being there twice.
    pub(super) fn is_copy(&self, section: &'static str, name: &str) -> bool {
        let key = |a: &str, b: &str| (section, a.to_owned(), b.to_owned());
        self.causes.shared.contains_key(&key(name, name))
    }

    /// Reports what two entries of a section both claim; `what` is a word for it.
    pub(super) fn claimed_twice(
        &mut self,
        code: &'static str,
        what: &'static str,
        first: &[&str],
        second: &[&str],
        message: String,
        hint: &str,
    ) {
        let finding = self.doubled(code, first, second, message, hint);
        let (Some(a), Some(b)) = (first.get(1), second.get(1)) else {
            self.report(finding);
            return;
        };
        let section = match first.first() {
            Some(&"users") => "users",
            _ => "nodes",
        };
        let (a, b) = if self.at_name(section, a) <= self.at_name(section, b) {
            (a, b)
        } else {
            (b, a)
        };
        let key = (section, (*a).to_owned(), (*b).to_owned());
        self.causes
            .shared
            .entry(key)
            .or_default()
            .push((what, finding));
    }

    fn at_name(&self, section: &str, name: &str) -> usize {
        self.at(&[section, name]).start
    }

    /// Reports a fault of a node that comes from its class.
    pub(super) fn error_by_class(
        &mut self,
        class: &str,
        node: &str,
        code: &'static str,
        place: Range<usize>,
        (message, hint): (impl Into<String>, impl Into<String>),
    ) {
        let finding = Finding::error(code, place, message.into()).hint(hint);
        let key = (code, class.to_owned());
        self.causes
            .of_class
            .entry(key)
            .or_default()
            .push((node.to_owned(), finding));
    }

    /// Reports what has waited.
    pub(super) fn tell_causes(&mut self) {
        let causes = std::mem::take(&mut self.causes);
        for ((section, name), uses) in causes.unknown {
            self.tell_unknown(section, &name, uses);
        }
        for ((section, first, second), claims) in causes.shared {
            self.tell_shared(section, &first, &second, claims);
        }
        for ((_, class), faults) in causes.of_class {
            self.tell_class(&class, faults);
        }
    }

    fn tell_unknown(
        &mut self,
        section: &'static str,
        name: &str,
        uses: Vec<(&'static str, Vec<String>)>,
    ) {
        let names = self.names(section);
        let hint = match (nearest(name, names.iter().copied()), names.is_empty()) {
            (Some(near), _) => format!("Did you mean `{near}`?"),
            (None, true) => format!("Add [{section}.{name}]."),
            (None, false) => format!(
                "Known are {}; or add [{section}.{name}].",
                listed(names.iter().copied())
            ),
        };
        let mut places: Vec<(usize, Vec<&str>, &'static str)> = uses
            .iter()
            .map(|(what, path)| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                (self.at(&path).start, path, *what)
            })
            .collect();
        places.sort();
        let Some((_, path, what)) = places.first() else {
            return;
        };
        let mut message = format!("there is no {what} `{name}`");
        let others: Vec<String> = places
            .iter()
            .skip(1)
            .map(|(_, path, _)| format!("`{}`", path.join(".")))
            .collect();
        if !others.is_empty() {
            message.push_str(&format!(", which {} name too", named(&others)));
        }
        self.error("unknown-name", path, message, hint);
    }

    fn tell_shared(
        &mut self,
        section: &'static str,
        first: &str,
        second: &str,
        mut claims: Vec<(&'static str, Finding)>,
    ) {
        if claims.len() == 1 || first == second {
            if !claims.is_empty() {
                let (_, finding) = claims.swap_remove(0);
                self.report(finding);
            }
            return;
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (what, _) in &claims {
            *counts.entry(what).or_default() += 1;
        }
        let shared: Vec<String> = counts
            .iter()
            .map(|(what, n)| match n {
                1 => format!("the same {what}"),
                n => format!("{n} times the same {what}"),
            })
            .collect();
        let message = format!("`{second}` is a copy of `{first}`: {}", shared.join(", "));
        let hint = match section {
            "users" => "A key says who somebody is: give each person their own.".to_owned(),
            _ => format!("Give `{second}` what its own machine has, or take it out."),
        };
        let finding = Finding::error("copied-entry", self.at(&[section, second]), message)
            .related("the other one is here", self.at(&[section, first]))
            .hint(hint);
        self.report(finding);
    }

    fn tell_class(&mut self, class: &str, mut faults: Vec<(String, Finding)>) {
        let all = self
            .draft
            .nodes
            .values()
            .filter(|node| node.class.as_str() == class)
            .count();
        // Where most nodes of a class have a fault, it is the class's.
        if faults.len() > 1 && faults.len() * 2 > all {
            let names: Vec<String> = faults
                .iter()
                .skip(1)
                .map(|(node, _)| format!("`{node}`"))
                .collect();
            faults.truncate(1);
            for (_, finding) in &mut faults {
                finding.add(&format!(
                    "; so it is with {}, of the same class `{class}`",
                    named(&names)
                ));
            }
        }
        for (_, finding) in faults {
            self.report(finding);
        }
    }
}
