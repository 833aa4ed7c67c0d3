//! What waits for what: components by their own declaration, apps by their owners'.

use std::collections::BTreeSet;

use undercroft_model::inventory;

use crate::{
    App, Component, Context, Problem,
    layout::{ARGOCD, CILIUM, NAMESPACES, RESERVED},
    order::Dependencies,
};

/// What each Application waits for.
pub(super) fn dependencies(
    cx: &Context<'_>,
    components: &[Component],
    apps: &[&App],
    all_apps: &[App],
    problems: &mut Vec<Problem>,
) -> Dependencies {
    let names: BTreeSet<&str> = components.iter().map(|component| component.name).collect();
    let mut graph = Dependencies::new();
    for component in components {
        let mut needs: BTreeSet<&str> = match component.name {
            NAMESPACES | CILIUM => BTreeSet::new(),
            ARGOCD => [NAMESPACES, CILIUM].into(),
            _ => [NAMESPACES, CILIUM, ARGOCD].into(),
        };
        for need in &component.requires {
            if !names.contains(need) {
                problems.push(
                    Problem::new(
                        "missing-component",
                        format!(
                            "{} needs {need}, which isn't among the components",
                            component.name
                        ),
                    )
                    .in_inventory(&["gitops", "components"])
                    .hint(format!("Add {need:?} to gitops.components.")),
                );
            }
            needs.insert(need);
        }
        needs.extend(component.after.iter().filter(|name| names.contains(*name)));
        let needs = needs.into_iter().map(str::to_owned).collect();
        graph.insert(component.name.to_owned(), needs);
    }
    for app in apps {
        if names.contains(app.name.as_str()) || RESERVED.contains(&app.name.as_str()) {
            problems.push(
                Problem::new(
                    "app-name",
                    format!("an app can't be named {}: that name is taken", app.name),
                )
                .in_file(app.folder.clone())
                .hint("Rename the app's folder."),
            );
            continue;
        }
        let mut needs: BTreeSet<String> = [NAMESPACES, CILIUM, ARGOCD].map(str::to_owned).into();
        match &app.settings.depends_on {
            None => needs.extend(names.iter().map(|name| (*name).to_owned())),
            Some(declared) => {
                for need in declared {
                    let known = names.contains(need.as_str())
                        || (cx.dev && is_component(need))
                        || all_apps.iter().any(|app| app.name == *need);
                    if !known {
                        problems.push(unknown_need(app, need, &names, all_apps));
                    }
                    needs.insert(need.clone());
                }
            }
        }
        graph.insert(app.name.clone(), needs);
    }
    graph
}

/// Whether a name is a component's that a tree for a PC may leave out.
pub(super) fn is_component(name: &str) -> bool {
    inventory::Component::ALL
        .iter()
        .any(|component| component.as_str() == name)
}

fn unknown_need(app: &App, need: &str, names: &BTreeSet<&str>, apps: &[App]) -> Problem {
    /// How alike two names are, from 0 to 1, for one to be a hint at the other.
    const ALIKE: f64 = 0.8;
    let known = names
        .iter()
        .copied()
        .chain(apps.iter().map(|a| a.name.as_str()));
    let nearest = known
        .map(|name| (strsim::jaro_winkler(need, name), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((_, name)) => format!("Did you mean {name:?}?"),
        None => format!(
            "Components are {}.",
            names.iter().copied().collect::<Vec<_>>().join(", ")
        ),
    };
    let declared = app.settings.depends_on.iter().flatten();
    let at = declared.take_while(|name| *name != need).count();
    Problem::new(
        "unknown-dependency",
        format!(
            "{} depends on {need:?}, which is neither a component nor an app",
            app.name
        ),
    )
    .in_file(format!("{}/{}", app.folder, crate::APP_FILE))
    .at_keys(["depends_on".to_owned(), at.to_string()])
    .hint(hint)
}

pub(super) fn cycle_problem(cycle: &[String], apps: &[&App]) -> Problem {
    let mut members: Vec<&str> = cycle.iter().map(String::as_str).collect();
    members.extend(cycle.first().map(String::as_str));
    let problem = if cycle.len() == 1 {
        let name = members.first().unwrap_or(&"");
        Problem::new("cycle", format!("{name} waits for itself"))
            .hint("Take it out of its own depends_on.")
    } else {
        let members = members.join(" → ");
        Problem::new("cycle", format!("these wait for each other: {members}"))
            .hint("Take one of them out of another's depends_on.")
    };
    match apps.iter().find(|app| cycle.contains(&app.name)) {
        Some(app) => problem
            .in_file(format!("{}/{}", app.folder, crate::APP_FILE))
            .at_keys(["depends_on"]),
        None => problem,
    }
}
