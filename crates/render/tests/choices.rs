//! What can't change in place, and what holds data: each as the API server and Argo CD have it, for
//! every key of an inventory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::string_slice,
    reason = "tests, which read files and the environment; the crate itself is pure"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use support::{GITOPS, fleet, one_machine, read, tree};
use undercroft_model::inventory::Inventory;
use undercroft_render::{
    App, AppForm, AppSettings, Choices, Lock, Problem, RenderInput, Tree, TreeLayout, render, yaml,
};

fn with(
    inventory: &Inventory,
    apps: &[App],
    overrides: &[(&str, Value)],
    standing: Option<&Choices>,
) -> Result<Tree, Vec<Problem>> {
    let overrides = overrides
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    let mut lock = Lock::defaults();
    lock.complete_for(inventory);
    render(&RenderInput {
        inventory,
        lock: &lock,
        apps,
        overrides: &overrides.collect(),
        dev: None,
        standing,
    })
}

fn check(before: &Choices, after: &Tree) -> Vec<Problem> {
    before.check(&after.choices, &BTreeSet::new(), &BTreeSet::new())
}

fn said(problems: &[Problem]) -> String {
    let lines = problems
        .iter()
        .map(|p| format!("{}: {}", p.code, p.message));
    lines.collect::<Vec<_>>().join("\n")
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// A small fleet on the nodes' own filesystems, as its owner begins.
fn begun() -> Inventory {
    one_machine()
}

/// A text of the fleet of `support`, to be changed key by key.
fn text(more: &str) -> String {
    // The fleet's own text isn't at hand here; the basement's is a whole one as well.
    format!(
        "{}{more}",
        include_str!("../../../examples/basement/undercroft.toml")
    )
}

#[test]
fn an_unchanged_inventory_has_nothing_to_refuse() {
    for (name, tree) in support::trees() {
        if name != "dev" {
            assert_eq!(check(&tree.choices, &tree), [], "{name}");
            let file = &tree.files["gitops/.choices"];
            assert_eq!(Choices::parse("f", file).unwrap(), tree.choices, "{name}");
        }
    }
}

#[test]
fn no_component_with_data_can_be_taken_out_by_a_line() {
    let before = tree(&fleet("k3s", GITOPS), false);
    for name in [
        "nats",
        "prometheus",
        "grafana",
        "loki",
        "cert-manager",
        "headscale",
        "kubevirt",
    ] {
        let without = GITOPS.replace(&format!("\"{name}\","), "");
        // What needs it goes with it, as its owner would do.
        let without = match name {
            "nats" => without.replace("\"lending-server\",", ""),
            "cert-manager" => without
                .replace("\"nats\",", "")
                .replace("\"lending-server\",", ""),
            "loki" => without.replace("\"alloy\",", ""),
            _ => without,
        };
        let after = tree(&fleet("k3s", &without), false);
        let problems = check(&before.choices, &after);
        let found = said(&problems);
        assert!(
            found.contains(&format!(
                "data-leaves: the component {name} is no longer there, and holds "
            )),
            "{name}: {found}"
        );
        assert!(
            problems[0]
                .hint
                .as_ref()
                .unwrap()
                .contains("undercroft render --leave")
        );
        let allowed =
            before
                .choices
                .check(&after.choices, &names([name, "nats"]), &BTreeSet::new());
        assert_eq!(allowed, [], "{name}");
    }
    // What holds nothing goes.
    let without = GITOPS.replace("\"alloy\",", "");
    assert_eq!(
        check(&before.choices, &tree(&fleet("k3s", &without), false)),
        []
    );
}

/// Argo CD's root prunes an Application whose file is gone, unless it says otherwise; the controller
/// adds a finalizer by itself where a chart has hooks of deletion.
#[test]
fn argo_cd_neither_prunes_nor_cascades_what_holds_data() {
    for (name, tree) in support::trees() {
        for (file, text) in &tree.files {
            let Some(application) = file
                .strip_prefix("gitops/applications/")
                .and_then(|file| file.strip_suffix(".yaml"))
                .filter(|name| *name != "projects")
            else {
                continue;
            };
            let object = yaml::parse(text).unwrap();
            let holds = tree.choices.data(application).is_some()
                || ["cilium", "argo-cd", "namespaces"].contains(&application);
            let annotations = &object["metadata"]["annotations"];
            let keeps = annotations["argocd.argoproj.io/sync-options"]
                == "Prune=false,Delete=false"
                && annotations["argocd.argoproj.io/compare-options"] == "IgnoreExtraneous"
                && object["metadata"].get("finalizers").is_none()
                && object["spec"]["syncPolicy"]["automated"]["prune"] == false
                && object["spec"]["syncPolicy"]["syncOptions"]
                    .as_array()
                    .unwrap()
                    .contains(&json!("Delete=false"));
            assert_eq!(keeps, holds, "{name}: {application}");
        }
    }
}

fn app(name: &str, form: AppForm, objects: &[Value]) -> App {
    App {
        name: name.to_owned(),
        folder: format!("apps/{name}"),
        form,
        settings: AppSettings::default(),
        objects: objects
            .iter()
            .map(|object| (format!("apps/{name}/all.yaml"), object.clone()))
            .collect(),
    }
}

fn claim(size: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": "data" },
        "spec": { "resources": { "requests": { "storage": size } } },
    })
}

fn database(class: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": { "name": "db" },
        "spec": {
            "serviceName": "db",
            "selector": { "matchLabels": { "a": "b" } },
            "volumeClaimTemplates": [{
                "metadata": { "name": "data" },
                "spec": { "storageClassName": class },
            }],
        },
    })
}

#[test]
fn an_app_with_volumes_is_kept_and_missed() {
    let inventory = fleet("k3s", GITOPS);
    let page = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "page" } });
    let apps = [
        app("files", AppForm::Plain, &[claim("1Gi"), page.clone()]),
        app(
            "db",
            AppForm::Plain,
            &[json!({ "apiVersion": "v1", "kind": "List", "items": [database("longhorn")] })],
        ),
        app("custom", AppForm::Kustomize, &[]),
        app("own-chart", AppForm::Helm, &[]),
        app("page", AppForm::Plain, std::slice::from_ref(&page)),
    ];
    let before = with(&inventory, &apps, &[], None).unwrap();
    for one in &apps {
        let object = &before.files[&format!("gitops/applications/{}.yaml", one.name)];
        let kept = object.contains("Prune=false,Delete=false")
            && !object.contains("finalizers")
            && object.contains("prune: false");
        assert_eq!(kept, one.name != "page", "{object}");
    }
    let after = with(&inventory, &[], &[], None).unwrap();
    insta::assert_snapshot!(said(&check(&before.choices, &after)), @r"
    data-leaves: the app custom is no longer there, and holds whatever its kustomization makes
    data-leaves: the app db is no longer there, and holds data: StatefulSet db/db
    data-leaves: the app files is no longer there, and holds data: PersistentVolumeClaim files/data
    data-leaves: the app own-chart is no longer there, and holds whatever its chart makes
    ");
    let changed = [
        app("files", AppForm::Plain, std::slice::from_ref(&page)),
        app("db", AppForm::Plain, &[database("local-path")]),
        app("custom", AppForm::Kustomize, &[]),
        app("own-chart", AppForm::Helm, &[]),
    ];
    let after = with(&inventory, &changed, &[], None).unwrap();
    insta::assert_snapshot!(said(&check(&before.choices, &after)), @r#"
    first-choice: db: StatefulSet db/db: spec.volumeClaimTemplates was [{"metadata":{"name":"data"},"spec":{"storageClassName":"longhorn"}}], and can't become [{"metadata":{"name":"data"},"spec":{"storageClassName":"local-path"}}] where it is
    data-leaves: the app files is no longer there, and holds data: PersistentVolumeClaim files/data
    "#);
    // A claim may grow, and nothing else of it.
    let sized = |size: &str| {
        with(
            &inventory,
            &[app("files", AppForm::Plain, &[claim(size)])],
            &[],
            None,
        )
        .unwrap()
    };
    let small = sized("1Gi").choices;
    assert_eq!(check(&small, &sized("2Gi")), []);
    assert_eq!(check(&small, &sized("1G")).len(), 1);
}

#[test]
fn the_first_longhorn_disk_moves_nobodys_volume() {
    let before = with(&begun(), &[], &[], None).unwrap();
    assert!(before.choices.has_component("local-path"));
    let grown = fleet("k3s", GITOPS);
    let after = with(&grown, &[], &[], Some(&before.choices)).unwrap();
    // What made the volumes stays, and only one class is the default.
    assert!(
        after
            .files
            .contains_key("gitops/applications/local-path.yaml")
    );
    let class = &after.files["gitops/components/local-path/manifests/local-path.yaml"];
    assert!(class.contains("is-default-class: \"false\""), "{class}");
    let mut problems = check(&before.choices, &after);
    problems.retain(|p| p.message.contains("lass"));
    insta::assert_snapshot!(said(&problems), @r#"
    first-choice: grafana: persistence.storageClassName was "local-path", and can't become "longhorn" where it is
    first-choice: loki: singleBinary.persistence.storageClass was "local-path", and can't become "longhorn" where it is
    first-choice: nats: config.jetstream.fileStore.pvc.storageClassName was "local-path", and can't become "longhorn-single" where it is
    first-choice: prometheus: alertmanager.alertmanagerSpec.storage.volumeClaimTemplate.spec.storageClassName was "local-path", and can't become "longhorn" where it is
    first-choice: prometheus: prometheus.prometheusSpec.storageSpec.volumeClaimTemplate.spec.storageClassName was "local-path", and can't become "longhorn" where it is
    "#);
}

#[test]
fn the_uninstaller_of_longhorn_is_never_let_loose() {
    let inventory = fleet("k3s", GITOPS);
    for value in [json!(true), json!("true"), json!(1), json!("1"), json!("T")] {
        let over = json!({ "defaultSettings": { "deletingConfirmationFlag": value } });
        let problems = with(&inventory, &[], &[("longhorn", over)], None).unwrap_err();
        assert_eq!(problems[0].code, "data-leaves", "{value}");
    }
    let over = json!({ "defaultSettings": { "deletingConfirmationFlag": false } });
    assert!(with(&inventory, &[], &[("longhorn", over)], None).is_ok());
}

#[test]
fn a_second_default_class_is_found_beside_a_charts_own() {
    let inventory = fleet("k3s", GITOPS);
    let class = |key: &str| {
        json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": { "name": "fast", "annotations": { key: "true" } },
            "provisioner": "x",
        })
    };
    for key in [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ] {
        let apps = [app("fast", AppForm::Plain, &[class(key)])];
        let problems = with(&inventory, &apps, &[], None).unwrap_err();
        assert_eq!(
            said(&problems),
            "two-default-classes: two storage classes are the default: longhorn (the chart of longhorn) and fast (apps/fast/all.yaml)"
        );
        // Where Longhorn's isn't, the app's is the one.
        let over = json!({ "persistence": { "defaultClass": false } });
        assert!(with(&inventory, &apps, &[("longhorn", over)], None).is_ok());
    }
}

/// Fields that the API server refuses to change, by kind, as a list of its own beside the crate's.
const HELD: &[(&str, &[&str])] = &[
    (
        "StatefulSet",
        &[
            "/spec/serviceName",
            "/spec/selector",
            "/spec/volumeClaimTemplates",
            "/spec/podManagementPolicy",
        ],
    ),
    ("Deployment", &["/spec/selector"]),
    ("DaemonSet", &["/spec/selector"]),
    (
        "Job",
        &["/spec/template", "/spec/selector", "/spec/completions"],
    ),
    ("Service", &["/spec/clusterIP"]),
    (
        "StorageClass",
        &[
            "/provisioner",
            "/parameters",
            "/reclaimPolicy",
            "/volumeBindingMode",
        ],
    ),
    ("ClusterRoleBinding", &["/roleRef"]),
    ("RoleBinding", &["/roleRef"]),
    ("RuntimeClass", &["/handler"]),
    ("Secret", &["/type"]),
    (
        "PersistentVolumeClaim",
        &["/spec/storageClassName", "/spec/accessModes"],
    ),
];

/// Values that end in such fields, or say where data lies, as a list of its own.
const HELD_VALUES: &[(&str, &str)] = &[
    ("loki", "/singleBinary/persistence/size"),
    ("loki", "/singleBinary/persistence/storageClass"),
    ("loki", "/loki/schemaConfig/configs/0"),
    ("grafana", "/persistence/storageClassName"),
    ("nats", "/config/jetstream/fileStore/pvc/size"),
    ("nats", "/config/jetstream/fileStore/pvc/storageClassName"),
    ("nats", "/config/cluster/replicas"),
    ("nats", "/config/cluster/enabled"),
    ("prometheus", "/prometheus/prometheusSpec/storageSpec"),
    ("prometheus", "/alertmanager/alertmanagerSpec/storage"),
    ("cilium", "/ipam/mode"),
    ("cilium", "/ipam/operator/clusterPoolIPv4PodCIDRList/0"),
    ("cilium", "/ipam/operator/clusterPoolIPv4MaskSize"),
];

/// What of a tree is held fast, by where it stands.
fn held(tree: &Tree) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (file, text) in &tree.files {
        let Some(inner) = file.strip_prefix("gitops/components/") else {
            continue;
        };
        let (component, file) = inner.split_once('/').unwrap();
        for object in yaml::parse_all(text).unwrap() {
            if file == "values.yaml" {
                for (of, at) in HELD_VALUES.iter().filter(|(of, _)| *of == component) {
                    if let Some(value) = object.pointer(at) {
                        found.insert(format!("{of} {at}"), value.clone());
                    }
                }
                continue;
            }
            let kind = object["kind"].as_str().unwrap_or_default();
            for at in HELD
                .iter()
                .filter(|(of, _)| *of == kind)
                .flat_map(|(_, at)| *at)
            {
                if let Some(value) = object.pointer(at) {
                    let id = format!(
                        "{kind} {} {}",
                        object["metadata"]["namespace"], object["metadata"]["name"]
                    );
                    found.insert(format!("{component}: {id} {at}"), value.clone());
                }
            }
        }
    }
    found
}

/// Every key of an inventory is changed, one by one, and what the API server would refuse is refused
/// before.
#[test]
fn no_key_changes_what_is_held_without_a_refusal() {
    let base = text("");
    let edits: &[(&str, &str)] = &[
        ("distribution = \"k3s\"", "distribution = \"kubeadm\""),
        ("pod_cidr = \"10.42.0.0/16\"", "pod_cidr = \"10.50.0.0/16\""),
        ("pod_cidr = \"10.42.0.0/16\"", "pod_cidr = \"10.40.0.0/14\""),
        (
            "service_cidr = \"10.43.0.0/16\"",
            "service_cidr = \"10.60.0.0/16\"",
        ),
        (
            "[kubernetes]\n",
            "[kubernetes]\ncluster_domain = \"basement.local\"\n",
        ),
        ("[gitops]\n", "[gitops]\nprune = false\n"),
        ("[gitops]\n", "[gitops]\npoll_s = 60\n"),
        ("[gitops]\n", "[gitops]\nlonghorn_replicas = 1\n"),
        ("[gitops]\n", "[gitops]\nrevision = \"other\"\n"),
        ("\"longhorn\",", ""),
        ("\"loki\",", ""),
        ("\"nats\",", ""),
        ("\"grafana\",", ""),
        ("\"prometheus\",", ""),
        ("\"alloy\",", ""),
        ("role = \"longhorn\"", "role = \"data\""),
        ("longhorn = {", "other_longhorn = {"),
    ];
    let before = tree(&read(&base), false);
    let old = held(&before);
    let (mut tried, mut changed) = (0, 0);
    let mut lines: Vec<String> = Vec::new();
    // Whole lines of every table, too: a node or a class less, a key at its default.
    for line in base
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#'))
    {
        lines.push(line.to_owned());
    }
    let mut texts: Vec<String> = edits
        .iter()
        .map(|(from, to)| base.replace(from, to))
        .collect();
    // What needs a component goes with it.
    texts.push(base.replace("\"loki\",", "").replace("\"alloy\",", ""));
    texts.push(
        base.replace("\"cert-manager\",", "")
            .replace("\"nats\",", ""),
    );
    texts.extend(
        lines
            .iter()
            .map(|line| base.replace(&format!("{line}\n"), "")),
    );
    for text in texts {
        if text == base {
            continue;
        }
        let parsed = undercroft_model::inventory::parse("undercroft.toml", text.as_bytes());
        let Some(inventory) = parsed.inventory else {
            continue;
        };
        let Ok(after) = with(&inventory, &[], &[], Some(&before.choices)) else {
            continue;
        };
        tried += 1;
        let new = held(&after);
        let differs = old
            .iter()
            .find(|(key, value)| new.get(*key).is_some_and(|new| new != *value));
        let lost = old.keys().find(|key| !new.contains_key(*key));
        if let Some(what) = differs.map(|(key, _)| key).or(lost) {
            changed += 1;
            let problems = check(&before.choices, &after);
            // An object that goes whole and holds nothing may go.
            let may_go = differs.is_none()
                && ["alloy", "nvidia-device-plugin", "node-feature-discovery"]
                    .iter()
                    .any(|name| what.starts_with(name));
            assert!(
                !problems.is_empty() || may_go,
                "{what} changed without a word"
            );
        }
    }
    assert!(tried >= 20, "{tried} inventories were tried");
    assert!(changed >= 5, "{changed} of {tried} changed something");
}

#[test]
fn what_the_user_sets_is_held_like_what_we_set() {
    let inventory = fleet("k3s", GITOPS);
    let before = with(&inventory, &[], &[], None).unwrap().choices;
    let cases = [
        (
            "loki",
            json!({ "singleBinary": { "persistence": { "size": "100Gi" } } }),
            false,
        ),
        (
            "loki",
            json!({ "singleBinary": { "persistence": { "size": "10Gi" } } }),
            false,
        ),
        (
            "loki",
            json!({ "loki": { "schemaConfig": { "configs": [{ "from": "2027-01-01", "schema": "v14" }] } } }),
            false,
        ),
        (
            "grafana",
            json!({ "persistence": { "size": "4Gi" } }),
            false,
        ),
        ("grafana", json!({ "persistence": { "size": "6Gi" } }), true),
        (
            "grafana",
            json!({ "persistence": { "enabled": false } }),
            false,
        ),
        ("alloy", json!({ "fullnameOverride": "gatherer" }), false),
        (
            "nats",
            json!({ "config": { "cluster": { "replicas": 5 } } }),
            false,
        ),
        (
            "nats",
            json!({ "config": { "jetstream": { "enabled": false } } }),
            false,
        ),
        (
            "nats",
            json!({ "container": { "merge": { "resources": { "requests": { "cpu": "1" } } } } }),
            true,
        ),
        (
            "prometheus",
            json!({ "alertmanager": { "alertmanagerSpec": { "storage": { "volumeClaimTemplate": { "spec": { "storageClassName": "x" } } } } } }),
            false,
        ),
        (
            "prometheus",
            json!({ "prometheus": { "prometheusSpec": { "retention": "30d" } } }),
            true,
        ),
        ("cilium", json!({ "ipam": { "mode": "kubernetes" } }), false),
        (
            "cilium",
            json!({ "ipam": { "operator": { "clusterPoolIPv4MaskSize": 25 } } }),
            false,
        ),
        ("cilium", json!({ "cluster": { "name": "other" } }), false),
        ("cilium", json!({ "operator": { "replicas": 1 } }), true),
        ("cert-manager", json!({ "crds": { "keep": false } }), false),
        (
            "longhorn",
            json!({ "defaultSettings": { "defaultDataPath": "/elsewhere" } }),
            false,
        ),
        ("argo-cd", json!({ "nameOverride": "cd" }), false),
    ];
    for (name, over, may) in cases {
        let after = with(&inventory, &[], &[(name, over.clone())], None)
            .unwrap_or_else(|problems| panic!("{name} {over}: {problems:?}"));
        let problems = check(&before, &after);
        assert_eq!(
            problems.is_empty(),
            may,
            "{name} {over}: {}",
            said(&problems)
        );
        if !may {
            assert!(
                problems[0].hint.as_ref().unwrap().contains("--moved"),
                "{problems:?}"
            );
            let moved = before.check(&after.choices, &BTreeSet::new(), &names([name]));
            assert_eq!(moved, [], "{name} {over}");
            // And back again: what has been taken out is a change as well.
            if over["persistence"]["size"] == "4Gi" {
                continue;
            }
            let back = with(&inventory, &[], &[], None).unwrap();
            assert!(
                !check(&after.choices, &back).is_empty(),
                "{name} {over} and back"
            );
        }
    }
}

/// A tree from before the choices were written down says them by its files.
#[test]
fn an_older_tree_is_read_by_its_files() {
    let before = tree(&fleet("k3s", GITOPS), false);
    let read = Choices::of_files(&TreeLayout::new("gitops"), &before.files);
    assert_eq!(
        read.check(&before.choices, &BTreeSet::new(), &BTreeSet::new()),
        []
    );
    let smaller = GITOPS.replace("\"loki\", \"alloy\",", "");
    let after = tree(&fleet("k3s", &smaller), false);
    assert_eq!(check(&read, &after)[0].code, "data-leaves");
    let over = json!({ "ipam": { "mode": "kubernetes" } });
    let after = with(&fleet("k3s", GITOPS), &[], &[("cilium", over)], None).unwrap();
    assert_eq!(check(&read, &after)[0].code, "first-choice");
}

#[test]
fn the_clusters_own_choices_are_told_once_each() {
    let base = text("");
    let before = tree(&read(&base), false);
    for (from, to) in [
        ("pod_cidr = \"10.42.0.0/16\"", "pod_cidr = \"10.50.0.0/16\""),
        (
            "service_cidr = \"10.43.0.0/16\"",
            "service_cidr = \"10.60.0.0/16\"",
        ),
        (
            "[kubernetes]\n",
            "[kubernetes]\ncluster_domain = \"b.local\"\n",
        ),
        ("name = \"basement\"", "name = \"cellar\""),
    ] {
        let changed = base.replacen(from, to, 1);
        assert_ne!(changed, base, "{from}");
        let after = tree(&read(&changed), false);
        let problems = check(&before.choices, &after);
        assert_eq!(problems.len(), 1, "{to}: {}", said(&problems));
        let moved = names(["cluster", "cilium"]);
        assert_eq!(
            before
                .choices
                .check(&after.choices, &BTreeSet::new(), &moved),
            [],
            "{to}"
        );
    }
}
