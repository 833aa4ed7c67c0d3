//! The drawing of the crates in ARCHITECTURE.md, held against their manifests.

use std::collections::{BTreeMap, BTreeSet};

/// Which crates of the workspace each crate uses.
pub(crate) type Edges = BTreeMap<String, BTreeSet<String>>;

/// The line that the drawing begins with.
const BEGINS: &str = "flowchart TD";

/// Adds a finding for each arrow that the drawing lacks, and for each that the tree doesn't have. An arrow that follows
/// from others isn't drawn. A circle can't be drawn at all, and cargo refuses one.
pub(crate) fn check(architecture: &str, edges: &Edges, findings: &mut Vec<String>) {
    let drawn: BTreeSet<(String, String)> = architecture
        .lines()
        .skip_while(|line| *line != BEGINS)
        .take_while(|line| *line != "```")
        .filter_map(|line| line.trim().split_once(" --> "))
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .collect();
    let is = reduced(edges);
    for (from, to) in is.difference(&drawn) {
        findings.push(format!("ARCHITECTURE.md doesn't draw {from} --> {to}"));
    }
    for (from, to) in drawn.difference(&is) {
        findings.push(format!(
            "ARCHITECTURE.md draws {from} --> {to}, which isn't so or follows from other arrows"
        ));
    }
}

/// The edges that don't follow from others.
fn reduced(edges: &Edges) -> BTreeSet<(String, String)> {
    let mut left = BTreeSet::new();
    for (from, to) in edges {
        for one in to {
            let others = to.iter().filter(|other| *other != one);
            if !others.into_iter().any(|other| reaches(edges, other, one)) {
                left.insert((from.clone(), one.clone()));
            }
        }
    }
    left
}

fn reaches(edges: &Edges, from: &str, to: &str) -> bool {
    let mut open = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            open.extend(edges.get(at).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Edges {
        let edges = [("a", vec!["b", "c"]), ("b", vec!["c"]), ("c", vec![])];
        let owned = |(from, to): (&str, Vec<&str>)| {
            (from.to_owned(), to.into_iter().map(str::to_owned).collect())
        };
        edges.into_iter().map(owned).collect()
    }

    fn found(drawing: &str) -> Vec<String> {
        let mut findings = Vec::new();
        let page = format!("text\n```mermaid\n{BEGINS}\n{drawing}\n```\n    x --> y\n");
        check(&page, &tree(), &mut findings);
        findings
    }

    #[test]
    fn the_drawing_is_the_tree_without_what_follows_from_it() {
        assert_eq!(found("    a --> b\n    b --> c"), [""; 0]);
        assert_eq!(
            found("    a --> b"),
            ["ARCHITECTURE.md doesn't draw b --> c"]
        );
        let all = found("    a --> b\n    b --> c\n    a --> c");
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(found("    a --> b\n    b --> c\n    c --> d")[0].contains("draws c --> d"));
    }
}
