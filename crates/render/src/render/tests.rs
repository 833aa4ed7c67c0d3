//! What holds for any components.

use proptest::prelude::*;

use super::*;
use crate::{AppForm, AppSettings, Chart, DIGESTS, yaml};

const INVENTORY: &str = r#"
[fleet]
name = "cellar"

[network]
node_cidr = "10.0.0.0/24"
server_address = "10.0.0.2"

[kubernetes]
distribution = "k3s"
version = "1.34"
founder = "box-01"

[gitops]
repository = "https://git.example/cellar.git"

[classes.box]
kind = "control"
layout = "ext4"

[nodes.box-01]
class = "box"
macs = ["3c:ec:ef:10:00:01"]
address = "10.0.0.11"
disks = [{ serial = "S6S2NS0T834821" }]
"#;

fn inventory(text: &str) -> Inventory {
    let parsed = undercroft_model::inventory::parse("undercroft.toml", text.as_bytes());
    let findings: Vec<String> = parsed
        .diagnostics
        .iter()
        .map(|d| d.message.clone())
        .collect();
    parsed.inventory.unwrap_or_else(|| panic!("{findings:?}"))
}

fn chart(release: &'static str, values: Value) -> Option<Chart> {
    Some(Chart {
        release,
        values,
        known: "hubble.tls.auto.method\nhubble.enabled\nconfigs.cm.*\nname\n",
    })
}

/// A network, Argo CD, and two more.
fn components() -> Vec<Component> {
    vec![
        Component {
            chart: chart(
                "cilium",
                json!({ "hubble": { "tls": { "auto": { "method": "cronJob" } } } }),
            ),
            prune: false,
            ..Component::new("cilium", "The network.", "kube-system")
        },
        Component {
            chart: chart("argocd", json!({})),
            prune: false,
            ..Component::new("argo-cd", "Argo CD.", "argocd")
        },
        Component {
            manifests: vec![config("shared", "store")],
            ..Component::new("longhorn", "Volumes.", "longhorn-system")
        },
        Component {
            requires: vec!["longhorn"],
            after: vec!["not-there"],
            ..Component::new("grafana", "Dashboards.", "observability")
        },
    ]
}

fn config(name: &str, namespace: &str) -> ManifestObject {
    ManifestObject::new(
        "config.yaml",
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": namespace },
        }),
    )
}

fn app(name: &str, depends_on: &[&str]) -> App {
    App {
        name: name.to_owned(),
        folder: format!("apps/{name}"),
        form: AppForm::Plain,
        settings: AppSettings {
            depends_on: Some(depends_on.iter().map(|need| (*need).to_owned()).collect()),
            ..AppSettings::default()
        },
        objects: Vec::new(),
    }
}

fn rendered(components: Vec<Component>, apps: &[App]) -> Result<Tree, Vec<Problem>> {
    rendered_with(components, apps, &BTreeMap::new())
}

fn rendered_with(
    components: Vec<Component>,
    apps: &[App],
    overrides: &BTreeMap<String, Value>,
) -> Result<Tree, Vec<Problem>> {
    let inventory = inventory(INVENTORY);
    let lock = Lock::defaults();
    let input = RenderInput {
        inventory: &inventory,
        lock: &lock,
        apps,
        overrides,
        dev: None,
        standing: None,
    };
    render_components(&Context::new(&inventory, &lock), &input, components, &[])
}

fn messages(result: Result<Tree, Vec<Problem>>) -> String {
    let problems = result.unwrap_err().into_iter();
    problems
        .map(|p| format!("{}: {}\n", p.code, p.message))
        .collect()
}

#[test]
fn the_whole_of_a_small_tree() {
    let tree = rendered(components(), &[app("web", &["grafana"]), app("tool", &[])]).unwrap();
    assert_eq!(
        tree.waves,
        [
            vec!["cilium", "namespaces"],
            vec!["argo-cd"],
            vec!["longhorn", "tool"],
            vec!["grafana"],
            vec!["web"],
        ]
    );
    let mut text = String::new();
    for (path, content) in &tree.files {
        if !path.ends_with(".svg") && !path.ends_with(DIGESTS) {
            text.push_str(&format!("=== {path}\n{content}"));
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn an_object_with_two_owners_is_refused_and_both_are_named() {
    let mut all = components();
    all[3].manifests.push(config("shared", "store"));
    insta::assert_snapshot!(messages(rendered(all, &[])), @"two-owners: ConfigMap store/shared has two owners: grafana (gitops/components/grafana/manifests/config.yaml) and longhorn (gitops/components/longhorn/manifests/config.yaml)");

    // An app's own object counts, wherever its namespace is said.
    let mut web = app("store", &[]);
    let mut object = config("shared", "").object;
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("namespace");
    web.objects
        .push(("apps/store/config.yaml".to_owned(), object));
    insta::assert_snapshot!(messages(rendered(components(), &[web])), @"two-owners: ConfigMap store/shared has two owners: longhorn (gitops/components/longhorn/manifests/config.yaml) and store (apps/store/config.yaml)");

    // What a chart makes counts too.
    let mut all = components();
    all[0]
        .owns
        .push(ObjectId::namespaced("", "ConfigMap", "store", "shared"));
    assert!(messages(rendered(all, &[])).contains("(the chart of cilium)"));

    // And a component that makes the namespace that the tree makes already.
    let mut all = components();
    all[3].manifests.push(ManifestObject::new(
        "own.yaml",
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "observability" } }),
    ));
    assert!(messages(rendered(all, &[])).contains("Namespace observability has two owners"));
}

#[test]
fn an_application_without_its_wave_is_found() {
    let tree = rendered(components(), &[]).unwrap();
    let mut applications: BTreeMap<String, Value> = ["cilium", "argo-cd", "longhorn", "grafana"]
        .map(|name| {
            let text = &tree.files[&format!("gitops/applications/{name}.yaml")];
            (name.to_owned(), yaml::parse(text).unwrap())
        })
        .into();
    let graph: Dependencies = [(
        "grafana".to_owned(),
        BTreeSet::from(["longhorn".to_owned()]),
    )]
    .into();
    assert_eq!(lint::waves(&applications, &graph), []);

    let annotations = |applications: &mut BTreeMap<String, Value>| {
        applications.get_mut("grafana").unwrap()["metadata"]["annotations"].take()
    };
    let kept = annotations(&mut applications);
    let found = lint::waves(&applications, &graph);
    assert_eq!(found[0].message, "the Application grafana has no wave");

    applications.get_mut("grafana").unwrap()["metadata"]["annotations"] = kept;
    let wave = &mut applications.get_mut("grafana").unwrap()["metadata"]["annotations"]
        [crate::applications::WAVE];
    *wave = "2".into();
    let found = lint::waves(&applications, &graph);
    assert_eq!(
        found[0].message,
        "the Application grafana has wave 2 and waits for longhorn, which has wave 2"
    );
}

#[test]
fn certificates_that_are_made_anew_at_each_render_are_refused() {
    let method = |method: &str| {
        let over = json!({ "hubble": { "tls": { "auto": { "method": method } } } });
        rendered_with(components(), &[], &[("cilium".to_owned(), over)].into())
    };
    assert!(method("certmanager").is_ok());
    insta::assert_snapshot!(messages(method("helm")), @r#"drift: Hubble's certificates are made anew whenever Helm renders the chart (hubble.tls.auto.method is "helm")"#);
    // The chart's default is "helm".
    let mut all = components();
    all[0].chart = chart("cilium", json!({ "hubble": { "enabled": true } }));
    assert!(messages(rendered(all, &[])).starts_with("drift: "));
    let mut all = components();
    all[0].chart = chart("cilium", json!({ "hubble": { "enabled": false } }));
    assert!(rendered(all, &[]).is_ok());
}

#[test]
fn everything_that_is_wrong_comes_in_one_run() {
    let mut all = components();
    all[3].requires.push("cert-manager");
    let mut secret = app("leaky", &["longhron"]);
    secret.objects.push((
        "apps/leaky/secret.yaml".to_owned(),
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "password" }, "stringData": { "password": "hunter2" },
        }),
    ));
    let apps = [
        secret,
        app("a", &["b"]),
        app("b", &["c"]),
        app("c", &["a"]),
        app("grafana", &[]),
        app("root", &[]),
    ];
    let overrides = [
        (
            "cilium".to_owned(),
            json!({ "hubble": { "enabeld": true } }),
        ),
        ("nope".to_owned(), json!({})),
        ("argo-cd".to_owned(), json!([])),
    ];
    let text = messages(rendered_with(all, &apps, &overrides.into()));
    assert!(!text.contains("hunter2"));
    insta::assert_snapshot!(text);
}

#[test]
fn two_default_storage_classes_are_refused() {
    let class = |name: &str| {
        ManifestObject::new(
            "class.yaml",
            json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
                "metadata": { "name": name, "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
                "provisioner": "p",
            }),
        )
    };
    let mut all = components();
    all[2].manifests.push(class("one"));
    assert!(rendered(all.clone(), &[]).is_ok());
    all[3].manifests.push(class("two"));
    assert!(messages(rendered(all, &[])).starts_with("two-default-classes: "));
}

#[test]
fn without_a_repository_there_are_no_applications() {
    let inventory =
        inventory(&INVENTORY.replace("repository = \"https://git.example/cellar.git\"", ""));
    let lock = Lock::defaults();
    let input = RenderInput {
        inventory: &inventory,
        lock: &lock,
        apps: &[],
        overrides: &BTreeMap::new(),
        dev: None,
        standing: None,
    };
    let tree =
        render_components(&Context::new(&inventory, &lock), &input, components(), &[]).unwrap();
    assert!(tree.files.keys().all(|path| !path.contains("applications")));
    assert!(tree.files["gitops/README.md"].contains("There are no Applications here"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever apps and components there are: a cycle is refused, and else each is after all
    /// that it needs, and everything has one owner.
    #[test]
    fn order_and_owners_hold_for_any_graph(
        edges in prop::collection::vec((0usize..10, 0usize..10), 0..14),
        objects in prop::collection::vec((0usize..10, 0u8..20), 0..6),
    ) {
        let mut apps: Vec<App> = (0..10).map(|n| app(&format!("app-{n}"), &[])).collect();
        for (from, to) in &edges {
            let need = format!("app-{to}");
            apps[*from].settings.depends_on.as_mut().unwrap().push(need);
        }
        for (owner, object) in &objects {
            let object = config(&format!("o{object}"), "everywhere").object;
            apps[*owner].objects.push((format!("apps/app-{owner}/o.yaml"), object));
        }
        let names: BTreeSet<u8> = objects.iter().map(|(_, object)| *object).collect();
        let doubled = names.len() < objects.len();
        match rendered(components(), &apps) {
            Ok(tree) => {
                prop_assert!(!doubled);
                let wave = |name: &str| tree.waves.iter().position(|w| w.iter().any(|n| n == name)).unwrap();
                for (from, to) in edges {
                    let (need, name) = (format!("app-{to}"), format!("app-{from}"));
                    prop_assert!(wave(&need) < wave(&name));
                }
                prop_assert!(wave("argo-cd") < wave("app-0"));
                let again = rendered(components(), &apps).unwrap();
                prop_assert_eq!(again.files, tree.files);
            }
            Err(problems) => {
                let codes: BTreeSet<&str> = problems.iter().map(|p| p.code).collect();
                prop_assert_eq!(codes.contains("two-owners"), doubled);
                prop_assert!(codes.iter().all(|code| ["two-owners", "cycle"].contains(code)));
            }
        }
    }
}
