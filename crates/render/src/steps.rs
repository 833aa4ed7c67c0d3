//! How far a component may go at once: what its makers say of upgrades, in one table.
//!
//! As with Kubernetes itself ([`crate::check_versions`]), a step that is too long isn't undone by
//! going back.

use semver::Version;

use crate::{LOCK_FILE, Lock, Problem, update::version};

/// The largest step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// To the next minor version, from any patch to any patch.
    Minor,
    /// To the next major version.
    Major,
}

/// How far back it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// Not at all, not even a patch.
    Never,
    /// Within a minor version.
    Patch,
    /// As far as forwards.
    Step,
}

/// A component's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StepRule {
    component: &'static str,
    unit: Unit,
    back: Back,
    /// Why, as a phrase.
    why: &'static str,
    /// Where that is said.
    source: &'static str,
}

/// The rules of those components that have one of their own.
const RULES: &[StepRule] = &[
    StepRule {
        component: "longhorn",
        unit: Unit::Minor,
        back: Back::Never,
        why: "Longhorn is raised from one minor version to the next, and never goes back",
        source: "longhorn.io/docs/latest/deploy/upgrade; the chart's README",
    },
    StepRule {
        component: "cilium",
        unit: Unit::Minor,
        back: Back::Step,
        why: "Cilium's upgrades and rollbacks are tested between consecutive minor versions alone",
        source: "docs.cilium.io/en/stable/operations/upgrade",
    },
    StepRule {
        component: "cert-manager",
        unit: Unit::Minor,
        back: Back::Step,
        why: "cert-manager is to be raised one minor version at a time",
        source: "cert-manager.io/docs/installation/upgrade",
    },
    StepRule {
        component: "external-secrets",
        unit: Unit::Minor,
        back: Back::Step,
        why: "External Secrets is to be raised one minor version at a time",
        source: "external-secrets.io/latest/introduction/stability-support",
    },
    StepRule {
        component: "kubevirt",
        unit: Unit::Minor,
        back: Back::Patch,
        why: "KubeVirt is updated from one release to the next alone",
        source: "kubevirt.io/user-guide/cluster_admin/updating_and_deletion",
    },
    StepRule {
        component: "headscale",
        unit: Unit::Minor,
        back: Back::Patch,
        why: "Headscale's database is migrated by each minor version, and isn't migrated back",
        source: "our own caution: no page was read that asks for it",
    },
    StepRule {
        component: "prometheus",
        unit: Unit::Major,
        back: Back::Step,
        why: "each major version of kube-prometheus-stack has steps of its own",
        source: "kube-prometheus-stack's UPGRADE.md",
    },
    StepRule {
        component: "argo-cd",
        unit: Unit::Major,
        back: Back::Step,
        why: "each major version of Argo CD's chart has steps of its own",
        source: "argo-cd.readthedocs.io, \"Upgrading\"; the chart's README, \"Changelog\"",
    },
    StepRule {
        component: "loki",
        unit: Unit::Major,
        back: Back::Step,
        why: "each major version of Loki's chart has steps of its own",
        source: "grafana.com/docs/loki/latest/setup/upgrade; the chart's README",
    },
    StepRule {
        component: "grafana",
        unit: Unit::Major,
        back: Back::Step,
        why: "each major version of Grafana's chart has steps of its own",
        source: "the chart's README, \"Upgrading\"",
    },
    StepRule {
        component: "nats",
        unit: Unit::Minor,
        back: Back::Patch,
        why: "JetStream's files of a newer minor version may not be read by an older one, and servers of a cluster are raised one by one",
        source: "our own caution: no page was read that asks for it",
    },
];

/// The rule of everything else: nothing is skipped that may break something by its number.
const OTHERS: StepRule = StepRule {
    component: "",
    unit: Unit::Major,
    back: Back::Step,
    why: "each major version may have steps of its own",
    source: "semver.org, 8",
};

/// Why a step can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{component} can't go from {from} to {to} at once: {why} ({source_of})")]
pub struct TooFar {
    component: String,
    from: String,
    to: String,
    why: &'static str,
    source_of: &'static str,
    /// The version that comes first, such as "1.11"; `None` where the way leads back.
    pub next: Option<String>,
}

fn rule_of(component: &str) -> &'static StepRule {
    RULES
        .iter()
        .find(|rule| rule.component == component)
        .unwrap_or(&OTHERS)
}

/// Whether a component may go from one version to another at once. Versions that can't be told apart
/// by their numbers are left to whoever sets them.
///
/// # Errors
/// When the step is too far.
pub fn check_step(component: &str, from: &str, to: &str) -> Result<(), Box<TooFar>> {
    let (Some(old), Some(new)) = (version(from), version(to)) else {
        return Ok(());
    };
    let rule = rule_of(component);
    if may(rule, &old, &new) {
        return Ok(());
    }
    Err(Box::new(TooFar {
        component: component.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        why: rule.why,
        source_of: rule.source,
        next: (new > old).then(|| match rule.unit {
            Unit::Minor => format!("{}.{}", old.major, old.minor + 1),
            Unit::Major if old.major == 0 => format!("0.{}", old.minor + 1),
            Unit::Major => (old.major + 1).to_string(),
        }),
    }))
}

fn may(rule: &StepRule, old: &Version, new: &Version) -> bool {
    if new >= old {
        return within(rule.unit, old, new);
    }
    match rule.back {
        Back::Never => false,
        Back::Patch => (new.major, new.minor) == (old.major, old.minor),
        Back::Step => within(rule.unit, new, old),
    }
}

/// Whether the higher of two versions is at most one step from the lower.
fn within(unit: Unit, low: &Version, high: &Version) -> bool {
    match unit {
        // The first minor version of the next major one follows the last of this one, whichever
        // that is.
        Unit::Minor => {
            (high.major == low.major && high.minor <= low.minor + 1)
                || (high.major == low.major + 1 && high.minor == 0)
        }
        // Below 1.0 each minor version may break something (semver.org, 4).
        Unit::Major if low.major == 0 && high.major == 0 => high.minor <= low.minor + 1,
        Unit::Major => high.major <= low.major + 1,
    }
}

/// Steps from one lock file's versions to another's that are too far, whoever wrote them: those
/// whose makers forbid them, not those that merely want their notes read.
pub fn check_steps(
    before: &std::collections::BTreeMap<String, String>,
    lock: &Lock,
) -> Vec<Problem> {
    let strict = |name: &str| rule_of(name).unit == Unit::Minor;
    let mut problems = Vec::new();
    for (name, from) in before.iter().filter(|(name, _)| strict(name)) {
        let Some(locked) = lock.components.get(name) else {
            continue;
        };
        if let Err(far) = check_step(name, from, &locked.version) {
            let hint = match &far.next {
                Some(next) => format!(
                    "`undercroft update {name}` takes the newest {next} first; render, commit, and let it come up before the next step."
                ),
                None => format!("Set it to {from} again."),
            };
            problems.push(
                Problem::new("version-step", far.to_string())
                    .in_file(LOCK_FILE)
                    .at_keys(["components", name.as_str(), "version"])
                    .hint(hint),
            );
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_allows_what_its_makers_do() {
        let ok = |component: &str, from: &str, to: &str| check_step(component, from, to).is_ok();
        assert!(ok("longhorn", "1.10.0", "1.11.3"));
        assert!(ok("longhorn", "1.10.3", "2.0.0"));
        assert!(!ok("longhorn", "1.10.0", "1.12.0"));
        assert!(!ok("longhorn", "1.12.1", "1.12.0"));
        assert!(!ok("longhorn", "1.12.0", "1.11.0"));
        assert!(!ok("longhorn", "1.12.0", "2.1.0"));
        assert!(ok("cilium", "1.20.0", "1.19.6"));
        assert!(ok("cilium", "v1.18.4", "1.19.0"));
        assert!(!ok("cilium", "1.18.4", "1.20.0"));
        assert!(!ok("cilium", "1.20.0", "1.18.4"));
        assert!(!ok("cert-manager", "v1.19.0", "v1.21.0"));
        assert!(!ok("headscale", "v0.27.1", "v0.29.2"));
        assert!(!ok("headscale", "v0.29.0", "v0.28.0"));
        assert!(ok("headscale", "v0.29.2", "v0.29.0"));
        assert!(ok("prometheus", "87.1.0", "88.5.3"));
        assert!(!ok("prometheus", "86.1.0", "88.5.3"));
        assert!(ok("node-feature-discovery", "0.18.0", "0.19.3"));
        assert!(!ok("node-feature-discovery", "0.17.0", "0.19.3"));
        assert!(!ok("anything", "1.2.0", "3.0.0"));
        assert!(ok("anything", "nightly", "3.0.0"));
    }

    #[test]
    fn the_next_step_is_named() {
        let far = check_step("longhorn", "1.10.2", "1.12.0").unwrap_err();
        assert_eq!(far.next.as_deref(), Some("1.11"));
        insta::assert_snapshot!(far, @"longhorn can't go from 1.10.2 to 1.12.0 at once: Longhorn is raised from one minor version to the next, and never goes back (longhorn.io/docs/latest/deploy/upgrade; the chart's README)");
        assert_eq!(
            check_step("longhorn", "1.12.0", "1.11.0").unwrap_err().next,
            None
        );
    }

    #[test]
    fn every_component_of_the_lock_file_has_a_rule_that_lets_it_stay() {
        for (name, locked) in &Lock::defaults().components {
            assert_eq!(
                check_step(name, &locked.version, &locked.version),
                Ok(()),
                "{name}"
            );
        }
    }
}
