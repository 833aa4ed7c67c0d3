//! Versions that don't go together.
//!
//! Kubernetes is raised one minor version at a time, and never lowered; a kubelet may be up to
//! three minor versions older than the API server, and never newer
//! (kubernetes.io/releases/version-skew-policy).

use undercroft_model::inventory::{Distribution, Inventory};

use crate::{Component, Context, LOCK_FILE, Lock, Problem, components};

/// A minor version of Kubernetes: 1.34 is `Minor(1, 34)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor(pub u32, pub u32);

impl Minor {
    /// Reads "1.34", "v1.34.2", "1.34.2+k3s1".
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().trim_start_matches('v').split(['.', '-', '+']);
        Some(Self(
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        ))
    }
}

impl std::fmt::Display for Minor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Whether a range of versions as Helm writes it allows any patch of a minor version; `None`
/// where the range is of a form that this doesn't know.
///
/// Known are `>=`, `>`, `<=`, `<`, `=`, `^`, `~` with one to three numbers, joined by commas or
/// blanks, alternatives by `||`, and hyphen ranges (`1.25 - 1.34`).
pub fn allows(range: &str, minor: Minor) -> Option<bool> {
    let mut any = false;
    for alternative in range.split("||") {
        any |= alternative_allows(alternative, minor)?;
    }
    Some(any)
}

fn alternative_allows(range: &str, minor: Minor) -> Option<bool> {
    if let Some((low, high)) = range.split_once(" - ") {
        return Some(Minor::parse(low)? <= minor && minor <= Minor::parse(high)?);
    }
    let mut all = true;
    let mut words = range.split([',', ' ']).filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let version = word.trim_start_matches(['>', '<', '=', '^', '~', '!']);
        let operator = word.strip_suffix(version)?;
        // An operator may stand apart from its version.
        let version = if version.is_empty() {
            words.next()?
        } else {
            version
        };
        if version == "*" {
            continue;
        }
        let bound = Minor::parse(version)?;
        let patch = version
            .trim_start_matches('v')
            .split(['.', '-', '+'])
            .nth(2)
            .is_some_and(|patch| patch.parse::<u32>().is_ok_and(|patch| patch > 0));
        all &= match operator {
            ">=" => minor >= bound,
            ">" => minor > bound || (minor == bound && version.split('.').count() > 2),
            "<=" => minor <= bound,
            // Below 1.35.3 there are patches of 1.35; below 1.35.0 there are none.
            "<" => minor < bound || (patch && minor == bound),
            "" | "=" | "~" => minor == bound,
            "^" => minor.0 == bound.0 && minor >= bound,
            _ => return None,
        };
    }
    Some(all)
}

/// Version pairs that don't go together in an inventory and a lock file, without rendering anything.
/// An inventory without a cluster has none.
pub fn check_versions(inventory: &Inventory, lock: &Lock) -> Vec<Problem> {
    if inventory.kubernetes.distribution == Distribution::None {
        return Vec::new();
    }
    let cx = Context {
        inventory,
        lock,
        dev: false,
        standing: None,
    };
    components::all(&cx).map_or_else(|problems| problems, |all| check(inventory, lock, &all))
}

/// Version pairs that don't go together: Kubernetes against what was there before, and against
/// what each component runs on.
pub(crate) fn check(inventory: &Inventory, lock: &Lock, components: &[Component]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let wanted = inventory
        .kubernetes
        .version
        .as_deref()
        .and_then(Minor::parse);
    let before = lock.kubernetes.as_deref().and_then(Minor::parse);
    if let (Some(wanted), Some(before)) = (wanted, before)
        && let Err(problem) = step(before, wanted)
    {
        problems.push(problem);
    }
    let Some(minor) = wanted.or(before) else {
        return problems;
    };
    for component in components {
        let Some(locked) = lock.components.get(component.name) else {
            continue;
        };
        let range = locked.kubernetes.as_deref();
        if let Some(range) = range
            && allows(range, minor) == Some(false)
        {
            problems.push(
                Problem::new(
                    "version-skew",
                    format!(
                        "{} {} runs on Kubernetes {range}, and the cluster's is {minor}",
                        component.name, locked.version
                    ),
                )
                .in_file(LOCK_FILE)
                .at_keys(["components", component.name, "kubernetes"])
                .hint(format!(
                    "`undercroft update {}` looks for a version that does; or change kubernetes.version.",
                    component.name
                )),
            );
        }
    }
    problems
}

/// Whether Kubernetes may go from a minor version to another at once.
fn step(from: Minor, to: Minor) -> Result<(), Problem> {
    let next = Minor(from.0, from.1 + 1);
    if to == from || to == next {
        return Ok(());
    }
    let problem = if to < from {
        Problem::new(
            "version-skew",
            format!(
                "Kubernetes can't go back from {from} to {to}: etcd's content may be too new for it"
            ),
        )
        .hint(format!("Set kubernetes.version to \"{from}\"."))
    } else {
        Problem::new(
            "version-skew",
            format!("Kubernetes can't go from {from} to {to} at once: it is raised one minor version at a time"),
        )
        .hint(format!(
            "Set kubernetes.version to \"{next}\", render, commit, and let every node come up with it; then take the next step."
        ))
    };
    Err(problem.in_inventory(&["kubernetes", "version"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_charts_write_them() {
        let cases = [
            (">=1.25.0-0", "1.34", Some(true)),
            (">= 1.25.0-0", "1.24", Some(false)),
            (">=1.22.0-0 <1.35.0", "1.35", Some(false)),
            (">=1.22, <1.35.3", "1.35", Some(true)),
            ("<=1.33", "1.34", Some(false)),
            ("^1.28", "1.34", Some(true)),
            ("~1.28.0 || ~1.34.0", "1.34", Some(true)),
            ("1.25 - 1.33", "1.34", Some(false)),
            (">1.34.1", "1.34", Some(true)),
            (">1.34", "1.34", Some(false)),
            ("*", "1.34", Some(true)),
            ("around 1.30", "1.34", None),
        ];
        for (range, version, expected) in cases {
            let minor = Minor::parse(version).unwrap();
            assert_eq!(allows(range, minor), expected, "{range} {version}");
        }
        assert_eq!(Minor::parse("v1.34.2+k3s1"), Some(Minor(1, 34)));
    }

    #[test]
    fn kubernetes_is_raised_one_minor_version_at_a_time() {
        assert!(step(Minor(1, 33), Minor(1, 33)).is_ok());
        assert!(step(Minor(1, 33), Minor(1, 34)).is_ok());
        let skipped = step(Minor(1, 33), Minor(1, 35)).unwrap_err();
        assert!(skipped.hint.unwrap().contains("\"1.34\""));
        assert!(step(Minor(1, 34), Minor(1, 33)).is_err());
    }
}
