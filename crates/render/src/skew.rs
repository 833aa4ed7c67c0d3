//! Versions that don't go together.
//!
//! Kubernetes is raised one minor version at a time, and never lowered; a kubelet may be up to
//! three minor versions older than the API server, and never newer
//! (kubernetes.io/releases/version-skew-policy).

use undercroft_model::inventory::{Distribution, Inventory};

use crate::{Component, Context, LOCK_FILE, Lock, Minor, Problem, allows, components};

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
    fn kubernetes_is_raised_one_minor_version_at_a_time() {
        assert!(step(Minor(1, 33), Minor(1, 33)).is_ok());
        assert!(step(Minor(1, 33), Minor(1, 34)).is_ok());
        let skipped = step(Minor(1, 33), Minor(1, 35)).unwrap_err();
        assert!(skipped.hint.unwrap().contains("\"1.34\""));
        assert!(step(Minor(1, 34), Minor(1, 33)).is_err());
    }
}
