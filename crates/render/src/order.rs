//! Order from declared dependencies: waves, and cycles with their members named.

use std::collections::{BTreeMap, BTreeSet};

/// What each thing waits for, by name. Names that aren't keys are ignored.
pub(crate) type Dependencies = BTreeMap<String, BTreeSet<String>>;

/// The wave of each thing: 0 where it waits for nothing, else one more than the highest wave of
/// what it waits for.
///
/// # Errors
/// When things wait for each other: each cycle that was found, its members in the order in which
/// each waits for the next.
pub(crate) fn waves(graph: &Dependencies) -> Result<BTreeMap<String, usize>, Vec<Vec<String>>> {
    let mut waves: BTreeMap<String, usize> = BTreeMap::new();
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    let mut waiters: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, needs) in graph {
        let known = needs.iter().filter(|need| graph.contains_key(*need));
        let mut count = 0;
        for need in known {
            waiters.entry(need).or_default().push(name);
            count += 1;
        }
        waiting.insert(name, count);
    }
    let mut ready: Vec<&str> = waiting
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(name, _)| *name)
        .collect();
    let mut wave = 0;
    while !ready.is_empty() {
        let mut next = Vec::new();
        for name in ready {
            waves.insert(name.to_owned(), wave);
            for waiter in waiters.get(name).into_iter().flatten() {
                if let Some(count) = waiting.get_mut(waiter) {
                    *count -= 1;
                    if *count == 0 {
                        next.push(*waiter);
                    }
                }
            }
        }
        ready = next;
        wave += 1;
    }
    if waves.len() == graph.len() {
        Ok(waves)
    } else {
        Err(cycles(graph, &waves))
    }
}

/// The cycles among what got no wave. From each such name the first unordered need is followed
/// until a name comes again; every name in a cycle is reported in one cycle at most.
fn cycles(graph: &Dependencies, ordered: &BTreeMap<String, usize>) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for start in graph.keys().filter(|name| !ordered.contains_key(*name)) {
        let mut path: Vec<&str> = Vec::new();
        let mut at = start.as_str();
        // Each turn adds a name to the path, and a name that was seen ends it.
        loop {
            if let Some(begin) = path.iter().position(|name| *name == at) {
                let members = path.iter().skip(begin);
                found.push(members.map(|name| (*name).to_owned()).collect());
                break;
            }
            if !seen.insert(at) {
                break;
            }
            path.push(at);
            let need = graph.get(at).and_then(|needs| {
                needs
                    .iter()
                    .find(|need| graph.contains_key(*need) && !ordered.contains_key(*need))
            });
            match need {
                Some(need) => at = need,
                None => break,
            }
        }
    }
    found
}

/// The dependencies that aren't implied by others: what a drawing shows. Needs a graph without
/// cycles.
pub(crate) fn reduced(graph: &Dependencies, waves: &BTreeMap<String, usize>) -> Dependencies {
    let mut names: Vec<&String> = graph.keys().collect();
    names.sort_by_key(|name| waves.get(*name));
    // What each name waits for, directly or not, in the order of the waves.
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut reduced = Dependencies::new();
    for name in names {
        let needs: Vec<&str> = graph
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|need| graph.get_key_value(need).map(|(key, _)| key.as_str()))
            .collect();
        let implied: BTreeSet<&str> = needs
            .iter()
            .filter_map(|need| all.get(need))
            .flatten()
            .copied()
            .collect();
        let kept = needs.iter().filter(|need| !implied.contains(*need));
        reduced.insert(name.clone(), kept.map(|need| (*need).to_owned()).collect());
        let mut below = implied;
        below.extend(needs);
        all.insert(name, below);
    }
    reduced
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Dependencies {
        edges
            .iter()
            .map(|(name, needs)| {
                let needs = needs.iter().map(|need| (*need).to_owned()).collect();
                ((*name).to_owned(), needs)
            })
            .collect()
    }

    #[test]
    fn a_wave_is_one_more_than_the_highest_below() {
        let graph = graph(&[
            ("a", &[]),
            ("b", &["a", "not-there"]),
            ("c", &["a", "b"]),
            ("d", &["a"]),
        ]);
        let waves = waves(&graph).unwrap();
        let flat: Vec<_> = waves.iter().map(|(n, w)| format!("{n}{w}")).collect();
        assert_eq!(flat.join(" "), "a0 b1 c2 d1");
        let reduced = reduced(&graph, &waves);
        assert_eq!(reduced["c"], BTreeSet::from(["b".to_owned()]));
    }

    #[test]
    fn every_cycle_is_named_once_and_what_only_waits_for_one_is_not() {
        let graph = graph(&[
            ("a", &["b"]),
            ("b", &["c"]),
            ("c", &["b"]),
            ("d", &["d"]),
            ("e", &[]),
        ]);
        let cycles = waves(&graph).unwrap_err();
        assert_eq!(cycles, [vec!["b", "c"], vec!["d"]]);
    }

    proptest! {
        #[test]
        fn a_graph_is_ordered_or_has_a_cycle(edges in prop::collection::vec((0u8..12, 0u8..12), 0..30)) {
            let mut graph = Dependencies::new();
            for (from, to) in edges {
                graph.entry(to.to_string()).or_default();
                graph.entry(from.to_string()).or_default().insert(to.to_string());
            }
            match waves(&graph) {
                Ok(waves) => {
                    let reduced = reduced(&graph, &waves);
                    for (name, needs) in &graph {
                        for need in needs {
                            prop_assert!(waves[need] < waves[name]);
                        }
                        prop_assert!(reduced[name].is_subset(needs));
                    }
                }
                Err(cycles) => {
                    prop_assert!(!cycles.is_empty());
                    for cycle in cycles {
                        for (i, name) in cycle.iter().enumerate() {
                            let next = &cycle[(i + 1) % cycle.len()];
                            prop_assert!(graph[name].contains(next));
                        }
                    }
                }
            }
        }
    }
}
