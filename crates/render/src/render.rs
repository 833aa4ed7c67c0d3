//! From what was read to the whole tree.

mod dependencies;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use undercroft_model::inventory::{Distribution, Inventory};

use self::dependencies::{cycle_problem, dependencies, is_component};
use crate::{
    App, BootstrapStep, Choices, Component, Context, DevUse, Lock, ManifestObject, ObjectId,
    Problem, Tree,
    applications::{APPLICATION_HEALTH, Applications},
    choices, components, graph,
    layout::{ARGOCD, ARGOCD_NAMESPACE, CILIUM, NAMESPACES, PROJECTS, TreeLayout},
    lint::{self, Owned},
    order::{self, Dependencies},
    readme, skew, tree, values,
};

/// What a tree is rendered from.
#[derive(Debug, Clone, Copy)]
pub struct RenderInput<'a> {
    /// The inventory.
    pub inventory: &'a Inventory,
    /// The versions.
    pub lock: &'a Lock,
    /// The user's own apps.
    pub apps: &'a [App],
    /// The user's own values, by component.
    pub overrides: &'a BTreeMap<String, Value>,
    /// The folder of the tree for a PC's k3d cluster, where it is for one.
    pub dev: Option<&'a str>,
    /// What the tree before this one laid down, where there was one.
    pub standing: Option<&'a Choices>,
}

/// What stands in files that follow from the inventory.
const DONT_EDIT: &str = "Don't edit: change undercroft.toml and render again.";
/// Objects that no Application looks at: what controllers make in great number, and what only
/// exists for a moment. Cilium's identities would otherwise be pruned from under its pods.
///
/// EndpointSlices, which Argo CD's chart excludes, aren't among them: Cilium's chart brings the one
/// that leads its Ingress' address to the proxy, and an excluded kind is never applied.
const EXCLUSIONS: &str = "\
- apiGroups: ['']
  kinds: [Endpoints]
- apiGroups: [coordination.k8s.io]
  kinds: [Lease]
- apiGroups: [authentication.k8s.io, authorization.k8s.io]
  kinds: ['*']
- apiGroups: [certificates.k8s.io]
  kinds: [CertificateSigningRequest]
- apiGroups: [cert-manager.io]
  kinds: [CertificateRequest]
- apiGroups: [cilium.io]
  kinds: [CiliumIdentity, CiliumEndpoint, CiliumEndpointSlice]
";

/// Namespaces that Kubernetes makes itself.
const BUILT_IN_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Kinds of the whole cluster that a plain app may well bring.
const CLUSTER_KINDS: &[&str] = &[
    "APIService",
    "ClusterIssuer",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "CSIDriver",
    "IngressClass",
    "GatewayClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeSnapshotClass",
];

/// Renders the whole tree. The same input always gives the same bytes.
///
/// # Errors
/// Everything that keeps the tree from being what it should, in one run.
pub fn render(input: &RenderInput<'_>) -> Result<Tree, Vec<Problem>> {
    let cx = Context {
        inventory: input.inventory,
        lock: input.lock,
        dev: input.dev.is_some(),
        standing: input.standing,
    };
    if input.inventory.kubernetes.distribution == Distribution::None {
        return Err(vec![
            Problem::new(
                "no-cluster",
                "the inventory has no Kubernetes cluster to render for",
            )
            .in_inventory(&["kubernetes", "distribution"])
            .hint("Set kubernetes.distribution to \"k3s\" or \"kubeadm\"."),
        ]);
    }
    let mut left_out = components::left_out(&cx);
    let mut components = components::all(&cx)?;
    components.retain(|component| match component.dev {
        DevUse::Same => true,
        DevUse::LeftOut(why) => {
            if cx.dev {
                left_out.push((component.name, why));
            }
            !cx.dev
        }
        DevUse::Only => cx.dev,
    });
    if cx.dev {
        let without = input.inventory.gitops.dev_without.iter();
        left_out.extend(without.map(|c| (c.as_str(), "`gitops.dev_without` has it")));
    }
    left_out.sort_unstable();
    left_out.dedup_by_key(|(name, _)| *name);
    render_components(&cx, input, components, &left_out)
}

/// Renders given components: the part of [`render`] that doesn't know what each of them is.
pub(crate) fn render_components(
    cx: &Context<'_>,
    input: &RenderInput<'_>,
    mut components: Vec<Component>,
    left_out: &[(&str, &str)],
) -> Result<Tree, Vec<Problem>> {
    components.sort_by_key(|component| component.name);
    let mut problems = skew::check(cx.inventory, cx.lock, &components);
    add_to_argo_cd(cx, &mut components);
    problems.extend(lint_values(cx, &components, input.overrides));
    for component in &mut components {
        if let (Some(chart), Some(over)) =
            (&mut component.chart, input.overrides.get(component.name))
        {
            values::merge(&mut chart.values, over);
        }
    }
    add_namespaces(&mut components, &mut problems);
    components.sort_by_key(|component| component.name);
    let apps: Vec<&App> = input
        .apps
        .iter()
        .filter(|app| !cx.dev || app.settings.dev)
        .collect();
    let graph = dependencies(cx, &components, &apps, input.apps, &mut problems);
    let waves = match order::waves(&graph) {
        Ok(waves) => waves,
        Err(cycles) => {
            problems.extend(cycles.iter().map(|cycle| cycle_problem(cycle, &apps)));
            BTreeMap::new()
        }
    };
    let work = Work {
        cx,
        layout: TreeLayout::new(input.dev.unwrap_or(&cx.inventory.gitops.path)),
        components: &components,
        left_out,
        apps: &apps,
        graph: &graph,
        waves: &waves,
    };
    let applications = work.applications(&mut problems);
    problems.extend(work.lint(applications.as_ref()));
    let tree = if problems.is_empty() {
        work.tree(applications.as_ref()).map_err(|p| vec![p])
    } else {
        Err(Vec::new())
    };
    tree.map_err(|more| {
        problems.extend(more);
        problems.sort();
        problems.dedup();
        problems
    })
}

/// Adds to Argo CD's settings what follows from all components and the inventory.
fn add_to_argo_cd(cx: &Context<'_>, components: &mut [Component]) {
    let mut settings: BTreeMap<String, Value> = BTreeMap::new();
    settings.insert(
        "resource.customizations.health.argoproj.io_Application".to_owned(),
        APPLICATION_HEALTH.into(),
    );
    settings.insert("resource.exclusions".to_owned(), EXCLUSIONS.into());
    settings.insert(
        "timeout.reconciliation".to_owned(),
        format!("{}s", cx.inventory.gitops.poll_s).into(),
    );
    for check in components.iter().flat_map(|component| &component.health) {
        let key = format!(
            "resource.customizations.health.{}_{}",
            check.group, check.kind
        );
        settings.insert(key, check.lua.into());
    }
    let argo_cd = components.iter_mut().find(|c| c.name == ARGOCD);
    if let Some(chart) = argo_cd.and_then(|component| component.chart.as_mut()) {
        for (key, value) in settings {
            values::set(&mut chart.values, &["configs", "cm", &key], value);
        }
    }
}

/// Looks for values that a chart doesn't have, in ours and in the user's.
fn lint_values(
    cx: &Context<'_>,
    components: &[Component],
    overrides: &BTreeMap<String, Value>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for component in components {
        if let Some(chart) = &component.chart {
            let file = format!("(Undercroft's own values of {})", component.name);
            problems.extend(values::lint(
                component.name,
                &file,
                chart.known,
                &chart.values,
            ));
        }
    }
    for (name, over) in overrides {
        let file = TreeLayout::overrides(name);
        let component = components.iter().find(|component| component.name == name);
        let Some(chart) = component.and_then(|component| component.chart.as_ref()) else {
            if cx.dev && component.is_none() && is_component(name) {
                continue;
            }
            let charts = components.iter().filter(|c| c.chart.is_some());
            let names: Vec<&str> = charts.map(|c| c.name).collect();
            problems.push(
                Problem::new(
                    "unknown-component",
                    format!("there is no component with a chart named {name:?}"),
                )
                .in_file(file)
                .hint(format!("There are {}.", names.join(", "))),
            );
            continue;
        };
        if over.is_object() {
            problems.extend(values::lint(name, &file, chart.known, over));
        } else {
            problems.push(
                Problem::new(
                    "values",
                    format!(
                        "the values are {}, and a chart's are keys with values",
                        values::kind(over)
                    ),
                )
                .in_file(file)
                .at(Some((1, 1)))
                .hint("Write `key: value` lines, as a chart's values.yaml has them."),
            );
        }
    }
    problems
}

/// Makes the component that brings the namespaces of all the others: one owner for each, so that
/// components may share one.
fn add_namespaces(components: &mut Vec<Component>, problems: &mut Vec<Problem>) {
    let mut namespaces: BTreeMap<&str, BTreeMap<&str, (&str, &str)>> = BTreeMap::new();
    namespaces.entry(ARGOCD_NAMESPACE).or_default();
    for component in components.iter() {
        let labels = namespaces.entry(component.namespace).or_default();
        for (key, value) in &component.namespace_labels {
            let new = (value.as_str(), component.name);
            let old = *labels.entry(key).or_insert(new);
            if old.0 != new.0 {
                problems.push(Problem::new(
                    "namespace-labels",
                    format!(
                        "{} and {} want the namespace {} to have different labels {key}: {} and {}",
                        old.1, new.1, component.namespace, old.0, new.0
                    ),
                ));
            }
        }
    }
    let manifests = namespaces
        .into_iter()
        .filter(|(name, _)| !BUILT_IN_NAMESPACES.contains(name))
        .map(|(name, labels)| {
            let mut metadata = json!({ "name": name });
            if !labels.is_empty() {
                let labels = labels.into_iter();
                let labels = labels.map(|(key, (value, _))| (key.to_owned(), Value::from(value)));
                values::set(&mut metadata, &["labels"], labels.collect());
            }
            ManifestObject::new(
                "namespaces.yaml",
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }),
            )
        })
        .collect();
    components.push(Component {
        manifests,
        prune: false,
        ..Component::new(
            NAMESPACES,
            "The namespaces of all components.",
            ARGOCD_NAMESPACE,
        )
    });
}

/// Everything that the files are made from.
struct Work<'a> {
    cx: &'a Context<'a>,
    layout: TreeLayout,
    components: &'a [Component],
    left_out: &'a [(&'a str, &'a str)],
    apps: &'a [&'a App],
    graph: &'a Dependencies,
    waves: &'a BTreeMap<String, usize>,
}

/// Argo CD's own objects.
struct ArgoCd {
    applications: BTreeMap<String, Value>,
    projects: Vec<Value>,
    root: Value,
}

impl Work<'_> {
    fn wave(&self, name: &str) -> usize {
        self.waves.get(name).copied().unwrap_or_default()
    }

    /// The Applications; none where no repository is named that Argo CD could read.
    fn applications(&self, problems: &mut Vec<Problem>) -> Option<ArgoCd> {
        for component in self.components.iter().filter(|c| c.chart.is_some()) {
            let locked = self.cx.locked(component.name);
            if locked.is_none_or(|l| l.repository.is_none() || l.chart.is_none()) {
                problems.push(
                    Problem::new(
                        "not-locked",
                        format!("the lock file has no chart for {}", component.name),
                    )
                    .in_file(crate::LOCK_FILE)
                    .hint(format!(
                        "`undercroft update {}` adds the version that this program brings.",
                        component.name
                    )),
                );
            }
        }
        let gitops = &self.cx.inventory.gitops;
        let make = Applications {
            layout: &self.layout,
            gitops,
            repository: gitops.repository.as_deref()?,
        };
        let mut applications = BTreeMap::new();
        for component in self.components {
            let locked = self.cx.locked(component.name);
            applications.insert(
                component.name.to_owned(),
                make.component(component, locked, self.wave(component.name)),
            );
        }
        let namespaces: BTreeSet<&str> = self.components.iter().map(|c| c.namespace).collect();
        for app in self.apps {
            let owned = namespaces.contains(app.namespace())
                || BUILT_IN_NAMESPACES.contains(&app.namespace());
            if namespaces.contains(app.namespace()) {
                problems.push(
                    Problem::new(
                        "app-namespace",
                        format!(
                            "{} can't use the namespace {}, which is a component's",
                            app.name,
                            app.namespace()
                        ),
                    )
                    .in_file(app.folder.clone())
                    .hint("Give it one of its own by `namespace` in its app.toml."),
                );
            }
            applications.insert(app.name.clone(), make.app(app, self.wave(&app.name), owned));
        }
        let charts = self.components.iter().filter(|c| c.chart.is_some());
        let charts = charts.filter_map(|c| self.cx.locked(c.name)?.repository.clone());
        let app_charts = self
            .apps
            .iter()
            .filter_map(|app| app.settings.chart.as_ref());
        let namespaces: Vec<&str> = namespaces.into_iter().collect();
        Some(ArgoCd {
            applications,
            projects: make.projects(
                charts,
                app_charts.map(|chart| chart.repository.clone()),
                &namespaces,
            ),
            root: make.root(),
        })
    }

    /// Everything that is known of what the components and apps bring, with who brings it.
    fn objects(&self) -> Vec<Owned<'_>> {
        let mut objects: Vec<Owned<'_>> = Vec::new();
        for component in self.components {
            for manifest in &component.manifests {
                let place = format!(
                    "{}/{}",
                    self.layout.manifests(component.name),
                    manifest.file
                );
                objects.extend(owned(component.name, place, &manifest.object));
            }
            objects.extend(component.owns.iter().map(|id| Owned {
                id: id.clone(),
                owner: component.name,
                place: format!("the chart of {}", component.name),
                object: None,
            }));
        }
        let cluster_wide: BTreeSet<(String, String)> = objects
            .iter()
            .filter(|owned| owned.id.namespace.is_empty())
            .map(|owned| (owned.id.group.clone(), owned.id.kind.clone()))
            .collect();
        for app in self.apps {
            for (file, object) in &app.objects {
                for mut owned in owned(&app.name, file.clone(), object) {
                    let ObjectId {
                        group,
                        kind,
                        namespace,
                        ..
                    } = &mut owned.id;
                    // An object without a namespace goes to its Application's, unless it is of a
                    // kind of the whole cluster.
                    if namespace.is_empty()
                        && !CLUSTER_KINDS.contains(&kind.as_str())
                        && !cluster_wide.contains(&(group.clone(), kind.clone()))
                    {
                        app.namespace().clone_into(namespace);
                    }
                    objects.push(owned);
                }
            }
        }
        objects
    }

    fn lint(&self, argo_cd: Option<&ArgoCd>) -> Vec<Problem> {
        let mut objects = self.objects();
        let mut problems = Vec::new();
        if let Some(argo_cd) = argo_cd {
            for (name, application) in &argo_cd.applications {
                let place = self.layout.application(name);
                objects.extend(owned(crate::layout::ROOT, place, application));
            }
            for project in &argo_cd.projects {
                let place = self.layout.application(PROJECTS);
                objects.extend(owned(crate::layout::ROOT, place, project));
            }
            let place = self.layout.root();
            objects.extend(owned("the bootstrap", place, &argo_cd.root));
            if !self.waves.is_empty() {
                problems.extend(lint::waves(&argo_cd.applications, self.graph));
            }
        }
        problems.extend(lint::app_objects(self.apps));
        problems.extend(lint::owners(&objects));
        problems.extend(lint::secrets(&objects));
        problems.extend(lint::storage_classes(
            &objects,
            &components::default_classes(self.cx, self.components),
        ));
        for component in self.components {
            if let Some(chart) = &component.chart {
                let file = TreeLayout::overrides(component.name);
                problems.extend(lint::drift(component.name, &file, &chart.values));
                problems.extend(choices::dangerous(component.name, &file, &chart.values));
            }
        }
        problems
    }

    fn tree(&self, argo_cd: Option<&ArgoCd>) -> Result<Tree, Problem> {
        let mut files = BTreeMap::new();
        self.add_components(&mut files)?;
        if let Some(argo_cd) = argo_cd {
            self.add_argo_cd(argo_cd, &mut files)?;
        }
        let bootstrap = self.bootstrap(argo_cd.is_some());
        let steps = serde_json::to_value(&bootstrap)
            .map_err(|e| Problem::new("yaml", format!("the bootstrap has no JSON form: {e}")))?;
        let order = json!({ "fieldManager": tree::FIELD_MANAGER, "steps": steps });
        files.insert(self.layout.order(), tree::document(DONT_EDIT, &order)?);
        let drawn = graph::draw(self.graph, self.waves, |name| self.is_app(name));
        files.insert(self.layout.file("graph.svg"), drawn);
        let readme = readme::write(&readme::About {
            cx: self.cx,
            layout: &self.layout,
            components: self.components,
            left_out: self.left_out,
            apps: self.apps,
            graph: &order::reduced(self.graph, self.waves),
            waves: self.waves,
            applications: argo_cd.is_some(),
        });
        files.insert(self.layout.file("README.md"), readme);
        let choices = Choices::of(self.cx.inventory, self.cx.lock, self.components, self.apps);
        if !self.cx.dev {
            let advice = "What this cluster was begun with and can't change in place: `undercroft render` compares.";
            files.insert(
                self.layout.choices(),
                tree::document(advice, &choices.value())?,
            );
        }
        let digests = tree::print_digests(&files);
        files.insert(self.layout.digests(), digests);
        let mut waves: Vec<Vec<String>> = Vec::new();
        for (name, wave) in self.waves {
            waves.resize(waves.len().max(wave + 1), Vec::new());
            if let Some(names) = waves.get_mut(*wave) {
                names.push(name.clone());
            }
        }
        Ok(Tree {
            files,
            waves,
            bootstrap,
            choices,
        })
    }

    /// The files of the components.
    fn add_components(&self, files: &mut BTreeMap<String, String>) -> Result<(), Problem> {
        for component in self.components {
            if let Some(chart) = &component.chart {
                let advice = format!(
                    "Don't edit: values of your own go to {}.",
                    TreeLayout::overrides(component.name)
                );
                let text = tree::document(&advice, &chart.values)?;
                files.insert(self.layout.values(component.name), text);
            }
            let mut by_file: BTreeMap<&str, Vec<(&str, &Value)>> = BTreeMap::new();
            for manifest in &component.manifests {
                let objects = by_file.entry(&manifest.file).or_default();
                objects.push((&manifest.comment, &manifest.object));
            }
            for (file, objects) in by_file {
                let path = format!("{}/{file}", self.layout.manifests(component.name));
                files.insert(path, tree::documents(DONT_EDIT, objects)?);
            }
        }
        Ok(())
    }

    /// The files of Argo CD's own objects.
    fn add_argo_cd(
        &self,
        argo_cd: &ArgoCd,
        files: &mut BTreeMap<String, String>,
    ) -> Result<(), Problem> {
        for (name, application) in &argo_cd.applications {
            let text = tree::document(DONT_EDIT, application)?;
            files.insert(self.layout.application(name), text);
        }
        let projects = argo_cd.projects.iter().map(|project| ("", project));
        let text = tree::documents(DONT_EDIT, projects)?;
        files.insert(self.layout.application(PROJECTS), text);
        let text = tree::document(DONT_EDIT, &argo_cd.root)?;
        files.insert(self.layout.root(), text);
        Ok(())
    }

    fn is_app(&self, name: &str) -> bool {
        self.apps.iter().any(|app| app.name == name)
    }

    /// The network and Argo CD have to be there before Argo CD can bring anything.
    fn bootstrap(&self, applications: bool) -> Vec<BootstrapStep> {
        let namespaces = format!("{}/namespaces.yaml", self.layout.manifests(NAMESPACES));
        let mut steps = vec![BootstrapStep::Apply { file: namespaces }];
        for name in [CILIUM, ARGOCD] {
            let component = self.components.iter().find(|c| c.name == name);
            let chart = component.and_then(|c| c.chart.as_ref().map(|chart| (c, chart)));
            if let (Some((component, chart)), Some(locked)) = (chart, self.cx.locked(name)) {
                steps.push(BootstrapStep::Chart {
                    component: name.to_owned(),
                    release: chart.release.to_owned(),
                    namespace: component.namespace.to_owned(),
                    repository: locked.repository.clone().unwrap_or_default(),
                    chart: locked.chart.clone().unwrap_or_default(),
                    version: locked.version.clone(),
                    digest: locked.digest.clone(),
                    values: self.layout.values(name),
                });
            }
        }
        if applications {
            for file in [self.layout.application(PROJECTS), self.layout.root()] {
                steps.push(BootstrapStep::Apply { file });
            }
        }
        steps
    }
}

/// An object with its owner; the parts of a `List` one by one. What has no kind or no name isn't
/// one, and is the API server's to refuse.
fn owned<'a>(owner: &'a str, place: String, object: &'a Value) -> Vec<Owned<'a>> {
    if let Some(items) = object.get("items").and_then(Value::as_array)
        && object.get("kind").and_then(Value::as_str) == Some("List")
    {
        let each = items.iter();
        return each
            .flat_map(|item| owned(owner, place.clone(), item))
            .collect();
    }
    let Some(id) = ObjectId::of(object) else {
        return Vec::new();
    };
    vec![Owned {
        id,
        owner,
        place,
        object: Some(object),
    }]
}

#[cfg(test)]
mod tests;
