//! What holds for every inventory: the tree is a function of what it is rendered from, has no
//! cycle and one owner for each object, and what is needed comes first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests, which read files, the environment, and start a program"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use proptest::prelude::*;
use serde_json::Value;
use undercroft_model::{
    PcName,
    inventory::{Inventory, parse},
};
use undercroft_render::{
    BootstrapStep, Lock, Problem, RenderInput, Tree, dev_cluster, digest, parse_digests, render,
    yaml,
};
use undercroft_testkit::{OrSkip as _, schemas};

fn basement() -> String {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/basement/undercroft.toml");
    std::fs::read_to_string(file).unwrap()
}

fn inventory(text: &str) -> Inventory {
    let parsed = parse("undercroft.toml", text.as_bytes());
    let findings: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    match parsed.inventory {
        Some(inventory) => inventory,
        None => panic!("{}\n{text}", findings.join("\n")),
    }
}

fn rendered(inventory: &Inventory, dev: Option<&str>) -> Result<Tree, Vec<Problem>> {
    let mut lock = Lock::defaults();
    lock.complete_for(inventory);
    render(&RenderInput {
        inventory,
        lock: &lock,
        apps: &[],
        overrides: &BTreeMap::new(),
        dev,
        standing: None,
    })
}

/// What holds for a tree of any inventory.
fn check(tree: &Tree) {
    // Every YAML file reads, and has one head.
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut applications: BTreeMap<String, Value> = BTreeMap::new();
    for (path, text) in &tree.files {
        if !path.ends_with(".yaml") {
            continue;
        }
        assert!(
            text.starts_with("# Rendered by `undercroft render`."),
            "{path}"
        );
        let objects = yaml::parse_all(text).unwrap();
        let no_objects = ["/values.yaml", "/order.yaml", "/kustomization.yaml"];
        if no_objects.iter().any(|end| path.ends_with(end)) {
            assert_eq!(objects.len(), 1, "{path}");
            continue;
        }
        for object in objects {
            let word = |pointer: &str| {
                let value = object.pointer(pointer).and_then(Value::as_str);
                value.unwrap_or_default().to_owned()
            };
            let (kind, name) = (word("/kind"), word("/metadata/name"));
            assert!(!kind.is_empty() && !name.is_empty(), "{path}: {object}");
            let api = word("/apiVersion");
            let group = api.rsplit_once('/').map_or("", |(group, _)| group);
            let id = format!("{group}/{kind}/{}/{name}", word("/metadata/namespace"));
            let before = owners.insert(id.clone(), path.clone());
            assert_eq!(before, None, "{id} is in {path} too");
            if kind == "Application" {
                applications.insert(name, object);
            }
        }
    }
    // The waves of the Applications are those of the tree, and the network comes first.
    let ordered: BTreeSet<&String> = tree.waves.iter().flatten().collect();
    for (wave, names) in tree.waves.iter().enumerate() {
        for name in names {
            if let Some(application) = applications.get(name) {
                let pointer = "/metadata/annotations/argocd.argoproj.io~1sync-wave";
                let said = application.pointer(pointer).and_then(Value::as_str);
                assert_eq!(said, Some(wave.to_string().as_str()), "{name}");
            }
        }
    }
    if !applications.is_empty() {
        applications.remove("root").unwrap();
        assert_eq!(applications.keys().collect::<BTreeSet<_>>(), ordered);
    }
    assert_eq!(tree.waves[0], ["cilium", "namespaces"]);
    assert_eq!(tree.waves[1], ["argo-cd"]);
    // What is never pruned.
    for name in ["cilium", "longhorn", "argo-cd", "namespaces"] {
        if let Some(application) = applications.get(name) {
            let prune = application.pointer("/spec/syncPolicy/automated/prune");
            assert_eq!(prune, Some(&Value::Bool(false)), "{name}");
            assert_eq!(application.pointer("/metadata/finalizers"), None, "{name}");
        }
    }
    // Every path that an Application or the bootstrap reads is there.
    let folder_of = |path: &str| {
        tree.files
            .keys()
            .any(|f| f.starts_with(&format!("{path}/")))
    };
    for (name, application) in &applications {
        for source in application
            .pointer("/spec/sources")
            .unwrap()
            .as_array()
            .unwrap()
        {
            if let Some(path) = source.get("path").and_then(Value::as_str) {
                assert!(folder_of(path), "{name}: {path}");
            }
            if let Some(files) = source.pointer("/helm/valueFiles").and_then(Value::as_array) {
                for file in files {
                    let file = file.as_str().unwrap().strip_prefix("$values/").unwrap();
                    assert!(tree.files.contains_key(file), "{name}: {file}");
                }
            }
        }
    }
    for step in &tree.bootstrap {
        let (BootstrapStep::Apply { file } | BootstrapStep::Chart { values: file, .. }) = step;
        assert!(tree.files.contains_key(file), "{file}");
    }
    // The digests are those of the files.
    let (path, text) = tree
        .files
        .iter()
        .find(|(p, _)| p.ends_with("/.rendered"))
        .unwrap();
    let digests = parse_digests(text);
    assert_eq!(digests.len() + 1, tree.files.len());
    for (file, text) in tree.files.iter().filter(|(p, _)| *p != path) {
        assert_eq!(digests[file], digest(text.as_bytes()), "{file}");
    }
}

#[test]
fn the_basement_under_both_distributions() {
    let text = basement();
    let k3s = rendered(&inventory(&text), None).unwrap();
    check(&k3s);
    let text = text.replace("distribution = \"k3s\"", "distribution = \"kubeadm\"");
    let kubeadm = rendered(&inventory(&text), None).unwrap();
    check(&kubeadm);
    let values =
        |tree: &Tree| yaml::parse(&tree.files["gitops/components/cilium/values.yaml"]).unwrap();
    let api = |tree: &Tree| {
        let values = values(tree);
        (
            values["k8sServiceHost"].clone(),
            values["k8sServicePort"].clone(),
        )
    };
    assert_eq!(api(&k3s), ("127.0.0.1".into(), 6444.into()));
    assert_eq!(api(&kubeadm), ("10.20.0.10".into(), 6443.into()));
    check(&rendered(&inventory(&basement()), Some("dev")).unwrap());
}

/// An inventory from a few choices, its tables in the order of `shuffle`.
fn text(choices: &Choices, shuffle: u64) -> String {
    let mut tables = vec![
        "[fleet]\nname = \"cellar\"\n".to_owned(),
        "[network]\nnode_cidr = \"10.20.0.0/22\"\nserver_address = \"10.20.0.2\"\n".to_owned(),
        format!(
            "[kubernetes]\ndistribution = \"{}\"\nversion = \"1.34\"\nfounder = \"control-0\"\n{}{}",
            if choices.kubeadm { "kubeadm" } else { "k3s" },
            if choices.virtual_ip {
                "virtual_ip = \"10.20.0.10\"\n"
            } else {
                ""
            },
            "load_balancer_cidrs = [\"10.20.3.0/24\"]\n",
        ),
        format!(
            "[gitops]\n{}{}prune = {}\ncomponents = {:?}\n",
            if choices.repository {
                "repository = \"https://git.example/cellar.git\"\n"
            } else {
                ""
            },
            if choices.pages {
                "ingress_domain = \"apps.example\"\n"
            } else {
                ""
            },
            choices.prune,
            COMPONENTS
                .iter()
                .zip(&choices.components)
                .filter(|(name, wanted)| **wanted || **name == "cilium")
                .map(|(name, _)| *name)
                .collect::<Vec<_>>(),
        ),
        format!(
            "[classes.control]\nkind = \"control\"\nlayout = \"ext4\"\n{}",
            if choices.storage {
                "longhorn = { partition_gb = 100 }\n"
            } else {
                ""
            },
        ),
        format!(
            "[classes.gpu]\nkind = \"gpu\"\nlayout = \"ext4\"\ngpu = {}\n",
            [
                "{ model = \"rtx-4090\" }",
                "{ model = \"rtx-4090\", sharing = \"mps\", replicas = 3 }",
                "{ model = \"a100-80gb\", sharing = \"mig\", mig_config = \"all-1g.10gb\" }"
            ][choices.sharing],
        ),
        "[classes.pi]\nkind = \"pi\"\nrole = \"agent\"\nhats = [\"hailo-8\"]\n".to_owned(),
        "[lending]\nenabled = true\nnats_url = \"tls://nats.cellar.example:4222\"\n\
         server_key = \"UCZ6VTJTIM5TDNJFENIQGLE3HZ5C46VHOOGV33G7BXLMMJUAQU6ANX4L\"\n\
         server_image = \"registry.cellar.example/lending-server\"\n"
            .to_owned(),
    ];
    let mut number = 0;
    for (class, count) in [
        ("control", choices.controls * 2 + 1),
        ("gpu", choices.gpus),
        ("pi", choices.pis),
    ] {
        for n in 0..count {
            number += 1;
            tables.push(format!(
                "[nodes.{class}-{n}]\nclass = \"{class}\"\nmacs = [\"3c:ec:ef:10:00:{number:02x}\"]\naddress = \"10.20.1.{number}\"\ndisks = [{{ serial = \"S{number}\" }}]\n"
            ));
        }
    }
    // A simple shuffle: where each table goes follows from the seed alone.
    let mut keyed: Vec<(u64, String)> = tables
        .into_iter()
        .zip(1u64..)
        .map(|(table, i)| (i.wrapping_mul(shuffle | 1).rotate_left(17) % 1009, table))
        .collect();
    if shuffle != 0 {
        keyed.sort_by_key(|(key, _)| *key);
    }
    keyed.into_iter().map(|(_, table)| table + "\n").collect()
}

const COMPONENTS: [&str; 13] = [
    "cilium",
    "longhorn",
    "nvidia-device-plugin",
    "node-feature-discovery",
    "cert-manager",
    "prometheus",
    "grafana",
    "loki",
    "alloy",
    "nats",
    "lending-server",
    "hat-device-plugin",
    "kubevirt",
];

#[derive(Debug, Clone)]
struct Choices {
    kubeadm: bool,
    virtual_ip: bool,
    repository: bool,
    pages: bool,
    prune: bool,
    storage: bool,
    sharing: usize,
    components: Vec<bool>,
    controls: usize,
    gpus: usize,
    pis: usize,
}

prop_compose! {
    fn choices()(
        flags in prop::collection::vec(any::<bool>(), 6),
        sharing in 0usize..3,
        components in prop::collection::vec(any::<bool>(), COMPONENTS.len()),
        controls in 0usize..3,
        gpus in 0usize..4,
        pis in 0usize..3,
    ) -> Choices {
        Choices {
            kubeadm: flags[0],
            virtual_ip: flags[1],
            repository: flags[2],
            pages: flags[3],
            prune: flags[4],
            storage: flags[5],
            sharing,
            components,
            controls,
            gpus,
            pis,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_inventory_gives_an_ordered_tree_or_says_what_is_missing(
        choices in choices(),
        shuffle in 1u64..,
        dev in any::<bool>(),
    ) {
        let dev = dev.then_some("dev");
        let tree = rendered(&inventory(&text(&choices, 0)), dev);
        let again = rendered(&inventory(&text(&choices, shuffle)), dev);
        prop_assert_eq!(&tree, &again);
        match tree {
            Ok(tree) => check(&tree),
            // What was chosen may not go together, which is told; nothing else may be wrong.
            Err(problems) => {
                for problem in problems {
                    let told = ["missing-component", "not-locked"].contains(&problem.code);
                    prop_assert!(told, "{problem:?}");
                }
            }
        }
    }
}

#[test]
fn k3d_files_follow_k3ds_own_schema() {
    let Some(folder) = schemas().or_skip() else {
        return;
    };
    let file = folder.join("k3d/simpleconfig-v1alpha5.schema.json");
    let mut schema: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    // The published schema has `additionalProperties` as a property of this name by mistake,
    // which a strict reader of schemas refuses.
    let registries = schema.pointer_mut("/properties/registries").unwrap();
    registries["properties"]
        .as_object_mut()
        .unwrap()
        .remove("additionalProperties");
    registries["additionalProperties"] = false.into();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mirrors =
        "[kubernetes.registry_mirrors]\n\"docker.io\" = [\"https://mirror.example\"]\n\n[gitops]";
    for text in [
        basement(),
        basement().replace("[gitops]", mirrors),
        basement().replace("version = \"1.34\"", "version = \"1.34.2\""),
    ] {
        let inventory = inventory(&text);
        let pc: PcName = "ada-laptop".parse().unwrap();
        for pc in [None, Some(&pc)] {
            let cluster = dev_cluster(&inventory, &Lock::defaults(), pc).unwrap();
            let config = yaml::parse(&cluster.config).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&config)
                .map(|e| e.to_string())
                .collect();
            assert_eq!(errors, Vec::<String>::new(), "{}", cluster.config);
            assert_eq!(cluster.context, format!("k3d-{}", cluster.name));
            assert_eq!(
                config["options"]["kubeconfig"]["switchCurrentContext"],
                false
            );
        }
    }
}

#[test]
fn the_k3d_cluster_of_the_basement() {
    let cluster = dev_cluster(&inventory(&basement()), &Lock::defaults(), None).unwrap();
    insta::assert_snapshot!(cluster.config);
    insta::assert_snapshot!("mounts", cluster.mounts);
    // Nothing of production is in it, nor what a laptop can't run.
    let tree = rendered(&inventory(&basement()), Some("dev")).unwrap();
    for (path, text) in &tree.files {
        for component in ["longhorn", "nvidia-device-plugin", "hat-device-plugin"] {
            assert!(!path.contains(component), "{path}");
        }
        for stranger in ["10.20.", "k8s.basement.example", "longhorn"] {
            if path.ends_with(".yaml") {
                assert!(!text.contains(stranger), "{path} has {stranger}");
            }
        }
    }
}

/// Runs the health check of Applications in a Lua interpreter, over what Argo CD would hand it.
#[test]
fn an_application_is_healthy_only_when_its_sync_is_done() {
    let Some(lua) = ["lua5.1", "lua5.4", "lua", "luajit"]
        .into_iter()
        .find(|lua| {
            let found = Command::new(lua).arg("-v").output();
            found.is_ok_and(|output| output.status.success())
        })
    else {
        println!(
            "SKIPPED: an_application_is_healthy_only_when_its_sync_is_done: there is no Lua interpreter (Debian's package lua5.1)"
        );
        return;
    };
    let tree = rendered(&inventory(&basement()), None).unwrap();
    let values = yaml::parse(&tree.files["gitops/components/argo-cd/values.yaml"]).unwrap();
    let key = "resource.customizations.health.argoproj.io_Application";
    let check = values["configs"]["cm"][key].as_str().unwrap();
    let cases = [
        ("{}", "Progressing"),
        (
            "{ status = { health = { status = 'Healthy' }, sync = { status = 'Synced' }, operationState = { phase = 'Succeeded' } } }",
            "Healthy",
        ),
        (
            "{ status = { health = { status = 'Healthy' }, sync = { status = 'Synced' } } }",
            "Healthy",
        ),
        (
            "{ status = { health = { status = 'Healthy' }, sync = { status = 'OutOfSync' }, operationState = { phase = 'Succeeded' } } }",
            "Progressing",
        ),
        // argo-cd#27917: a failed sync that calls itself healthy.
        (
            "{ status = { health = { status = 'Healthy' }, sync = { status = 'OutOfSync' }, operationState = { phase = 'Failed', message = 'no such kind' } } }",
            "Degraded",
        ),
        (
            "{ status = { health = { status = 'Healthy' }, sync = { status = 'Synced' }, operationState = { phase = 'Running' } } }",
            "Progressing",
        ),
        (
            "{ status = { health = { status = 'Degraded', message = 'pod crashes' }, sync = { status = 'Synced' }, operationState = { phase = 'Succeeded' } } }",
            "Degraded",
        ),
        // Its version was raised a moment ago: all that is said is about the one before.
        (
            "{ spec = { sources = { { chart = 'a', targetRevision = '2' } } }, status = { health = { status = 'Healthy' }, sync = { status = 'Synced', comparedTo = { sources = { { chart = 'a', targetRevision = '1' } } } } } }",
            "Progressing",
        ),
        (
            "{ spec = { sources = { { chart = 'a', targetRevision = '2' } } }, status = { health = { status = 'Healthy' }, sync = { status = 'Synced', comparedTo = { sources = { { chart = 'a', targetRevision = '2' } } } } } }",
            "Healthy",
        ),
        (
            "{ spec = { sources = { {}, {} } }, status = { health = { status = 'Healthy' }, sync = { status = 'Synced', comparedTo = { source = {} } } } }",
            "Progressing",
        ),
        // Something is too much, which this Application isn't to prune.
        (
            "{ spec = { syncPolicy = { automated = { prune = false } } }, status = { health = { status = 'Healthy' }, sync = { status = 'OutOfSync' }, resources = { { status = 'Synced' }, { status = 'OutOfSync', requiresPruning = true } } } }",
            "Healthy",
        ),
        (
            "{ spec = { syncPolicy = { automated = { prune = true } } }, status = { health = { status = 'Healthy' }, sync = { status = 'OutOfSync' }, resources = { { status = 'OutOfSync', requiresPruning = true } } } }",
            "Progressing",
        ),
        (
            "{ spec = { syncPolicy = { automated = {} } }, status = { health = { status = 'Healthy' }, sync = { status = 'OutOfSync' }, resources = { { status = 'OutOfSync' }, { status = 'OutOfSync', requiresPruning = true } } } }",
            "Progressing",
        ),
        // What won't become right by waiting ends the root's sync, so that a mended commit gets in.
        (
            "{ status = { health = { status = 'Healthy' }, sync = { status = 'Unknown' }, conditions = { { type = 'ComparisonError', message = 'no such chart' } } } }",
            "Degraded",
        ),
        (
            "{ status = { health = { status = 'Healthy' }, sync = { status = 'OutOfSync' }, operationState = { phase = 'Running', retryCount = 2, startedAt = ago(60) } } }",
            "Progressing",
        ),
        (
            "{ status = { health = { status = 'Healthy' }, sync = { status = 'OutOfSync' }, operationState = { phase = 'Running', retryCount = 3, startedAt = ago(60) } } }",
            "Degraded",
        ),
        (
            "{ status = { health = { status = 'Healthy' }, sync = { status = 'OutOfSync' }, operationState = { phase = 'Running', startedAt = ago(7200) } } }",
            "Degraded",
        ),
        (
            "{ status = { health = { status = 'Progressing', lastTransitionTime = ago(60) }, sync = { status = 'Synced' }, operationState = { phase = 'Succeeded', finishedAt = ago(7200) } } }",
            "Progressing",
        ),
        (
            "{ status = { health = { status = 'Progressing', lastTransitionTime = ago(7200) }, sync = { status = 'Synced' }, operationState = { phase = 'Succeeded', finishedAt = ago(7300) } } }",
            "Degraded",
        ),
    ];
    // The libraries that Argo CD's interpreter has not.
    let head = "local os = os\n\
        local function ago(s) return os.date('!%Y-%m-%dT%H:%M:%SZ', os.time() - s) end\n\
        local object = OBJECT\n\
        local print = print\n\
        math, string, io, coroutine, debug = nil\n";
    for (object, expected) in cases {
        let head = head.replace("OBJECT", object);
        let program =
            format!("{head}local function check(obj)\n{check}\nend\nprint(check(object).status)\n");
        let mut child = Command::new(lua)
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(program.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            expected,
            "{object}"
        );
    }
}
