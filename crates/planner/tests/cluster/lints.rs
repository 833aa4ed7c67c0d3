//! What `check` finds in a plan whose cluster steps were changed.

use super::*;

/// A good plan, changed, and what is found wrong with it.
fn findings(change: impl FnOnce(&mut Plan)) -> String {
    let inventory = basement(5);
    let mut plan = all(&inventory, &prepared(&inventory)).0;
    change(&mut plan);
    plan.id = plan.content_id();
    let found: Vec<String> = check(&plan).iter().map(ToString::to_string).collect();
    found.join("\n")
}

fn change(plan: &mut Plan, node: &str, verb: &str, change: impl FnOnce(&mut Step)) {
    let id = step(plan, node, verb).id;
    change(&mut plan.steps[id.0 as usize]);
}

#[test]
fn the_order_of_the_cluster_is_linted() {
    assert_eq!(findings(|_| {}), "");
    let cases: [(&str, String); 9] = [
        (
            "early join",
            findings(|p| change(p, "gpu-01", "join", |s| s.after.truncate(1))),
        ),
        (
            "agent first",
            findings(|p| change(p, "gpu-01", "join", |s| s.after_settled.truncate(1))),
        ),
        (
            "argocd first",
            findings(|p| change(p, "control-01", "secrets", |s| s.after_settled.clear())),
        ),
        (
            "without a turn",
            findings(|p| change(p, "control-02", "join", |s| s.resource = None)),
        ),
        (
            "two at once",
            findings(|p| {
                p.limits.concurrency.insert(Resource::ServerJoin, 2);
            }),
        ),
        (
            "restarts",
            findings(|p| {
                let from = step(p, "gpu-01", "network-boot").id;
                change(p, "gpu-01", "join", |s| s.restart_from = Some(from));
            }),
        ),
        (
            "second founder",
            findings(|p| change(p, "control-02", "join", |s| s.action = Action::FoundCluster)),
        ),
        ("no cluster", findings(|p| p.cluster = None)),
        (
            "wrong role",
            findings(|p| {
                change(p, "gpu-02", "join", |s| {
                    s.action = Action::JoinCluster {
                        role: undercroft_model::ClusterRole::Server,
                        replaces: false,
                    }
                })
            }),
        ),
    ];
    let text: Vec<String> = cases
        .into_iter()
        .map(|(case, found)| {
            assert_ne!(found, "", "{case}");
            format!("{case}:\n{found}")
        })
        .collect();
    insta::assert_snapshot!(text.join("\n\n"));
}
