//! The README of the tree: what is in it, in which order, and how it is changed.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    App, Component, Context,
    layout::{OVERRIDES, TreeLayout},
    order::Dependencies,
};

/// What the README tells of.
pub(crate) struct About<'a> {
    pub(crate) cx: &'a Context<'a>,
    pub(crate) layout: &'a TreeLayout,
    pub(crate) components: &'a [Component],
    /// Components that were asked for and aren't here, with why.
    pub(crate) left_out: &'a [(&'a str, &'a str)],
    pub(crate) apps: &'a [&'a App],
    pub(crate) graph: &'a Dependencies,
    pub(crate) waves: &'a BTreeMap<String, usize>,
    /// Whether there are Applications.
    pub(crate) applications: bool,
}

/// Writes the README.
pub(crate) fn write(about: &About<'_>) -> String {
    let inventory = about.cx.inventory;
    let fleet = &inventory.fleet.name;
    let apps_path = &inventory.gitops.apps_path;
    let mut out = String::from("<!-- Rendered by `undercroft render`. Don't edit. -->\n\n");
    let whose = if about.cx.dev {
        format!("the k3d cluster of a PC of {fleet}")
    } else {
        format!("{fleet}'s cluster")
    };
    let _ = writeln!(
        out,
        "# What {whose} runs\n\n\
         Argo CD keeps the cluster equal to this folder. `undercroft render` writes it, from\n\
         `undercroft.toml`, `{lock}`, the folder `{OVERRIDES}/` and the folders in `{apps_path}/`.\n\
         A file here that was edited by hand is kept, shown, and not overwritten without `--force`.\n\n\
         | to change | do |\n\
         | --- | --- |\n\
         | which components there are | `gitops.components` in `undercroft.toml` |\n\
         | a value of a component's chart | `{OVERRIDES}/NAME.yaml`, as the chart's own `values.yaml` has it |\n\
         | a version | `undercroft update NAME` |\n\
         | apps of your own | a folder in `{apps_path}/` |\n\n\
         Then `undercroft render`, look at the difference, and commit.",
        lock = crate::LOCK_FILE,
    );
    if !about.applications {
        out.push_str(
            "\nThere are no Applications here: `gitops.repository` isn't set, so Argo CD would have\n\
             nothing to read. The values and manifests can be used by hand all the same.\n",
        );
    }
    out.push_str(
        "\n## Order\n\n\
         What is left of an arrow is healthy before what is right of it is synced. The waves follow\n\
         from what each component and app says that it needs.\n\n\
         ![What comes before what](graph.svg)\n\n\
         ## Components\n\n\
         | component | what it is | version | namespace | wave | waits for |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for component in about.components {
        let version = match about.cx.locked(component.name) {
            Some(locked) => match &locked.app_version {
                Some(app) if *app != locked.version => format!("{} ({app})", locked.version),
                _ => locked.version.clone(),
            },
            None => String::new(),
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {version} | `{}` | {} | {} |",
            component.name,
            component.about,
            component.namespace,
            about.wave(component.name),
            about.needs(component.name),
        );
    }
    if !about.left_out.is_empty() {
        out.push_str("\nLeft out:\n\n");
        for (name, why) in about.left_out {
            let _ = writeln!(out, "- `{name}`: {why}.");
        }
    }
    if !about.apps.is_empty() {
        out.push_str(
            "\n## Apps\n\n| app | folder | namespace | wave | waits for |\n| --- | --- | --- | --- | --- |\n",
        );
        let mut apps = about.apps.to_vec();
        apps.sort_by(|a, b| a.name.cmp(&b.name));
        for app in apps {
            let _ = writeln!(
                out,
                "| `{}` | `{}` | `{}` | {} | {} |",
                app.name,
                app.folder,
                app.namespace(),
                about.wave(&app.name),
                about.needs(&app.name),
            );
        }
    }
    let who = if about.cx.dev {
        "on a PC\nthat is done by hand, as docs/gitops.md shows."
    } else {
        "`undercroft up` does so."
    };
    let _ = writeln!(
        out,
        "\n## Bootstrap\n\n\
         Argo CD can't bring the network that it runs on. `{order}`\n\
         says what is applied before it, and in which order; {who} Argo CD then\n\
         finds the same objects, made from the same values, and keeps them.",
        order = about.layout.order(),
    );
    out
}

impl About<'_> {
    fn wave(&self, name: &str) -> usize {
        self.waves.get(name).copied().unwrap_or_default()
    }

    fn needs(&self, name: &str) -> String {
        let needs = self.graph.get(name).into_iter().flatten();
        let needs: Vec<String> = needs.map(|need| format!("`{need}`")).collect();
        needs.join(", ")
    }
}
