//! What has drifted, look by look: of each kind, a thing that two looks found counts, one that comes back doesn't,
//! and an answer that never comes begins nothing and ends nothing.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

mod fleet;

use std::collections::{BTreeMap, BTreeSet};

use undercroft_model::{NodeName, SystemTarget, inventory::Inventory};
use undercroft_planner::drift::{
    ApplicationLook, AuthorizedKey, BootReport, CheckLook, ClusterLook, DriftHold, DriftKind,
    DriftLook, DriftMemory, DriftReport, FINDINGS_KIND_MAX, FellBack, FoundKeys, HealthReport,
    HoldError, MachineLook, NodeLook, Room,
};
use undercroft_planner::node_wants;

use fleet::{inventory_with, name, target};

const NODE: &str = "n00000";
const DAY_MS: u64 = 86_400_000;

struct Scene {
    inventory: Inventory,
    targets: BTreeMap<NodeName, Result<SystemTarget, String>>,
    memory: DriftMemory,
    now_ms: u64,
}

impl Scene {
    fn new() -> Self {
        let class = "labels = { \"cellar.example/rack\" = \"1\" }";
        let mut inventory = inventory_with(2, "ext4", "k3s", class);
        let node = inventory.nodes.get_mut(&name(NODE)).unwrap();
        node.taints = vec!["gpu=yes:NoSchedule".to_owned()];
        let names = inventory.nodes.keys();
        let targets = names.map(|n| (n.clone(), Ok(target(n)))).collect();
        Self {
            inventory,
            targets,
            memory: DriftMemory::default(),
            now_ms: 1_767_225_600_000,
        }
    }

    fn look(&mut self, look: &DriftLook) -> DriftReport {
        self.now_ms += DAY_MS;
        let (inventory, targets) = (&self.inventory, &self.targets);
        // What is kept is kept as JSON.
        let kept = serde_json::to_string(&self.memory).unwrap();
        self.memory = serde_json::from_str(&kept).unwrap();
        self.memory.take_in(inventory, targets, look, self.now_ms)
    }

    /// A look at a fleet that is as it should be.
    fn well(&self) -> DriftLook {
        let wants = node_wants(&self.inventory, &name(NODE));
        let cluster = ClusterLook {
            version: "v1.34.2+k3s1".to_owned(),
            nodes: BTreeMap::from([(
                name(NODE),
                NodeLook {
                    labels: wants.labels,
                    // An annotation that somebody else put there is theirs.
                    annotations: BTreeMap::from([("theirs".to_owned(), "1".to_owned())]),
                    taints: wants.taints,
                    cordoned: false,
                    kubelet_version: "v1.33.9+k3s1".to_owned(),
                },
            )]),
            applications: Some(Ok(vec![app("Synced", "Healthy")])),
        };
        DriftLook {
            asked: BTreeSet::from([name(NODE)]),
            machines: BTreeMap::from([(name(NODE), Ok(self.machine()))]),
            cluster: Some(Ok(cluster)),
        }
    }

    fn machine(&self) -> MachineLook {
        let system = target(&name(NODE)).toplevel;
        MachineLook {
            boot_id: "b-1".to_owned(),
            time_s: Some(1000),
            asked_ms: 999_500,
            answered_ms: 1_002_000,
            current: Some(system.clone()),
            booted: Some(system.clone()),
            default_system: Some(system.clone()),
            proven_system: Some(system),
            boot: Some(Ok(BootReport::default())),
            health: Some(Ok(HealthReport {
                boot_id: "b-1".to_owned(),
                checked_at_s: 960,
                checks: vec![
                    check("network", true, true),
                    check("kubernetes", true, true),
                ],
            })),
            failed_units: Some(vec![]),
            keys: Some(FoundKeys {
                named: BTreeSet::from([("root".to_owned(), "SHA256:ada".to_owned())]),
                authorized: vec![key("SHA256:ada", "/etc/ssh/authorized_keys.d/root")],
            }),
            store: Some(Room {
                total_kib: 100 << 20,
                free_kib: 50 << 20,
            }),
            esp: Some(Room {
                total_kib: 1 << 20,
                free_kib: 200 << 10,
            }),
            boot_files_bytes: Some(150 << 20),
        }
    }
}

fn check(name: &str, ok: bool, answered: bool) -> CheckLook {
    CheckLook {
        name: name.to_owned(),
        ok,
        answered,
        output: if ok { "" } else { "no route to host" }.to_owned(),
    }
}

fn key(fingerprint: &str, file: &str) -> AuthorizedKey {
    AuthorizedKey {
        user: "root".to_owned(),
        file: file.to_owned(),
        fingerprint: fingerprint.to_owned(),
        comment: "eve@laptop".to_owned(),
    }
}

fn app(sync: &str, health: &str) -> ApplicationLook {
    ApplicationLook {
        name: "argocd/grafana".to_owned(),
        sync: sync.to_owned(),
        health: health.to_owned(),
        message: String::new(),
    }
}

fn machine(look: &mut DriftLook) -> &mut MachineLook {
    look.machines
        .get_mut(&name(NODE))
        .unwrap()
        .as_mut()
        .unwrap()
}

fn cluster(look: &mut DriftLook) -> &mut ClusterLook {
    look.cluster.as_mut().unwrap().as_mut().unwrap()
}

fn node(look: &mut DriftLook) -> &mut NodeLook {
    cluster(look).nodes.get_mut(&name(NODE)).unwrap()
}

/// How each kind drifts, and how whoever tells of it falls silent.
type Change = fn(&mut DriftLook);

fn other(text: &str) -> Option<String> {
    Some(format!("/nix/store/{text}"))
}

/// The kinds but annotations, which take disks for Longhorn: how each drifts, and how it can't be told.
const KINDS: &[(DriftKind, Change, Change)] = &[
    (
        DriftKind::System,
        |l| {
            machine(l).current = other("old");
            machine(l).booted = other("old");
        },
        |l| machine(l).current = None,
    ),
    (
        DriftKind::Booted,
        |l| machine(l).booted = other("old"),
        |l| machine(l).booted = None,
    ),
    (
        DriftKind::BootDefault,
        |l| machine(l).default_system = other("new"),
        |l| machine(l).default_system = None,
    ),
    (
        DriftKind::FellBack,
        |l| {
            let left = FellBack {
                system: "/nix/store/new".to_owned(),
                to_system: "/nix/store/old".to_owned(),
                failed: vec!["network".to_owned()],
            };
            machine(l).boot = Some(Ok(BootReport {
                fell_back: Some(left),
            }));
        },
        |l| machine(l).boot = Some(Err("it is of version 2".to_owned())),
    ),
    (
        DriftKind::Unit,
        |l| machine(l).failed_units = Some(vec!["nginx.service".to_owned()]),
        |l| machine(l).failed_units = None,
    ),
    (
        DriftKind::Health,
        |l| {
            machine(l).health.as_mut().unwrap().as_mut().unwrap().checks[0] =
                check("network", false, true);
        },
        |l| {
            machine(l).health.as_mut().unwrap().as_mut().unwrap().checks[0] =
                check("network", false, false);
        },
    ),
    (
        DriftKind::Key,
        |l| {
            machine(l)
                .keys
                .as_mut()
                .unwrap()
                .authorized
                .push(key("SHA256:eve", "/root/.ssh/authorized_keys"));
        },
        |l| machine(l).keys = None,
    ),
    (
        DriftKind::StoreRoom,
        |l| machine(l).store.as_mut().unwrap().free_kib = 9 << 20,
        |l| machine(l).store = None,
    ),
    (
        DriftKind::EspRoom,
        |l| machine(l).esp.as_mut().unwrap().free_kib = 149 << 10,
        |l| machine(l).esp = None,
    ),
    (
        DriftKind::Clock,
        |l| machine(l).time_s = Some(1009),
        |l| machine(l).time_s = None,
    ),
    (
        DriftKind::Label,
        |l| {
            node(l)
                .labels
                .insert("undercroft.dev/class".to_owned(), "gpu".to_owned());
        },
        |l| cluster(l).nodes.clear(),
    ),
    (
        DriftKind::Taint,
        |l| node(l).taints.clear(),
        |l| cluster(l).nodes.clear(),
    ),
    (
        DriftKind::Cordon,
        |l| node(l).cordoned = true,
        |l| l.cluster = Some(Err("no route to host".to_owned())),
    ),
    (
        DriftKind::Kubelet,
        |l| node(l).kubelet_version = "v1.32.9".to_owned(),
        |l| node(l).kubelet_version.clear(),
    ),
    (
        DriftKind::Application,
        |l| {
            cluster(l).applications = Some(Ok(vec![app("OutOfSync", "Degraded")]));
        },
        |l| {
            cluster(l).applications = Some(Ok(vec![app("Unknown", "Healthy")]));
        },
    ),
];

fn only_kind(report: &DriftReport, kind: DriftKind) {
    let kinds: Vec<DriftKind> = report.findings.iter().map(|f| f.kind).collect();
    assert_eq!(kinds, [kind]);
}

#[test]
fn what_two_looks_had_counts_and_what_is_well_again_is_gone() {
    for (kind, drifts, _) in KINDS {
        let mut scene = Scene::new();
        let well = scene.well();
        assert_eq!(scene.look(&well), DriftReport::default(), "{kind}");
        let mut drifted = well.clone();
        drifts(&mut drifted);
        let first = scene.look(&drifted);
        let since_ms = scene.now_ms;
        only_kind(&first, *kind);
        assert!(!first.is_drift(), "{kind}");
        let second = scene.look(&drifted);
        only_kind(&second, *kind);
        assert!(second.is_drift(), "{kind}");
        assert_eq!(second.counts()[kind], 1);
        let finding = &second.findings[0];
        assert_eq!(
            (finding.since_ms, finding.looks, finding.seen),
            (since_ms, 2, true)
        );
        assert_eq!(scene.look(&well), DriftReport::default(), "{kind}");
        // It begins anew.
        assert!(!scene.look(&drifted).is_drift(), "{kind}");
    }
}

#[test]
fn silence_begins_nothing_and_ends_nothing() {
    for (kind, drifts, silence) in KINDS {
        let mut scene = Scene::new();
        let well = scene.well();
        let mut drifted = well.clone();
        drifts(&mut drifted);
        let mut silent = well.clone();
        silence(&mut silent);
        let report = scene.look(&silent);
        assert_eq!(report.findings, [], "{kind}");
        // Not every machine has an EFI system partition: that there is none is no news.
        let is_news = *kind != DriftKind::EspRoom;
        let is_told = report.unseen.iter().any(|u| u.kinds.contains(kind));
        assert_eq!(is_told, is_news, "{kind}: {report:?}");
        scene.look(&drifted);
        let report = scene.look(&silent);
        assert!(
            !report.is_drift(),
            "{kind}: a look that saw nothing is no second one"
        );
        only_kind(&report, *kind);
        assert!(!report.findings[0].seen);
        assert!(scene.look(&drifted).is_drift(), "{kind}");
        // It stays drift while nobody tells that it has ended.
        assert!(scene.look(&silent).is_drift(), "{kind}");
        let mut away = well.clone();
        away.machines
            .insert(name(NODE), Err("timed out".to_owned()));
        away.cluster = Some(Err("no answer".to_owned()));
        assert!(scene.look(&away).is_drift(), "{kind}");
        assert!(!scene.look(&well).is_drift(), "{kind}");
    }
}

#[test]
fn every_kind_is_tried_but_those_that_have_a_test_of_their_own() {
    let tried: BTreeSet<DriftKind> = KINDS.iter().map(|(kind, ..)| *kind).collect();
    let missing: Vec<DriftKind> = DriftKind::ALL
        .into_iter()
        .filter(|k| !tried.contains(k))
        .collect();
    assert_eq!(missing, [DriftKind::Annotation]);
    for kind in DriftKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}

#[test]
fn what_is_said_of_each_kind() {
    let mut scene = Scene::new();
    let mut look = scene.well();
    for (_, drifts, _) in KINDS {
        drifts(&mut look);
    }
    node(&mut look).labels.clear();
    scene.look(&look);
    let said: Vec<String> = scene
        .look(&look)
        .findings
        .iter()
        .map(|f| {
            let node = f.node.as_ref().map_or("cluster", NodeName::as_str);
            format!(
                "{node} {} ({}): {}\n    {}",
                f.kind,
                f.fix.as_str(),
                f.sentence,
                f.next
            )
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn annotations_are_wanted_where_disks_are_longhorns() {
    let text = include_str!("../../../examples/basement/undercroft.toml");
    let parsed = undercroft_model::inventory::parse("undercroft.toml", text.as_bytes());
    let mut scene = Scene::new();
    scene.inventory = parsed.inventory.unwrap();
    let wants = scene
        .inventory
        .nodes
        .keys()
        .map(|n| (n.clone(), node_wants(&scene.inventory, n)));
    let (with, wants) = wants
        .into_iter()
        .find(|(_, w)| !w.annotations.is_empty())
        .unwrap();
    scene.targets = BTreeMap::from([(with.clone(), Ok(target(&name(NODE))))]);
    let mut look = scene.well();
    let of_machine = look.machines.remove(&name(NODE)).unwrap();
    look.asked = BTreeSet::from([with.clone()]);
    look.machines.insert(with.clone(), of_machine);
    let mut of_node = NodeLook {
        labels: wants.labels,
        annotations: wants.annotations,
        taints: wants.taints,
        kubelet_version: "v1.34.2".to_owned(),
        ..NodeLook::default()
    };
    cluster(&mut look).nodes = BTreeMap::from([(with.clone(), of_node.clone())]);
    assert_eq!(scene.look(&look).findings, []);
    of_node.annotations.clear();
    cluster(&mut look).nodes.insert(with, of_node);
    only_kind(&scene.look(&look), DriftKind::Annotation);
}

#[test]
fn kubelets_may_be_one_minor_behind_and_never_ahead() {
    for (kubelet, drifts) in [
        ("v1.34.0", false),
        ("v1.34.9+k3s1", false),
        ("v1.33.0", false),
        ("v1.32.9", true),
        ("v1.35.0-rc1", true),
        ("v2.33.0", true),
    ] {
        let mut scene = Scene::new();
        let mut look = scene.well();
        node(&mut look).kubelet_version = kubelet.to_owned();
        assert_eq!(!scene.look(&look).findings.is_empty(), drifts, "{kubelet}");
    }
}

#[test]
fn a_clock_is_off_only_if_it_was_at_every_moment_of_the_look() {
    // Asked at 999.5 s, answered at 1002 s, told in whole seconds.
    for (told, drifts) in [
        (1007, false),
        (1008, true),
        (994, false),
        (993, true),
        (0, true),
    ] {
        let mut scene = Scene::new();
        let mut look = scene.well();
        machine(&mut look).time_s = Some(told);
        let found = scene.look(&look).findings;
        assert_eq!(
            found.iter().any(|f| f.kind == DriftKind::Clock),
            drifts,
            "{told}: {found:?}"
        );
    }
}

#[test]
fn a_report_of_another_boot_or_an_old_one_says_nothing() {
    for (boot_id, checked_at_s) in [("b-0", 960), ("b-1", 399)] {
        let mut scene = Scene::new();
        let mut look = scene.well();
        let report = machine(&mut look)
            .health
            .as_mut()
            .unwrap()
            .as_mut()
            .unwrap();
        (report.boot_id, report.checked_at_s) = (boot_id.to_owned(), checked_at_s);
        report.checks[0] = check("network", false, true);
        let report = scene.look(&look);
        assert_eq!(report.findings, []);
        assert_eq!(report.unseen[0].kinds, [DriftKind::Health]);
    }
}

#[test]
fn a_hold_is_shown_and_is_no_drift_until_it_is_taken_back() {
    let mut scene = Scene::new();
    let mut look = scene.well();
    node(&mut look).cordoned = true;
    machine(&mut look).failed_units = Some(vec!["a.service".to_owned()]);
    let hold = DriftHold {
        node: Some(name(NODE)),
        kind: DriftKind::Cordon,
        owner: "ada".to_owned(),
        reason: "its fan is on order".to_owned(),
        since_ms: 1,
    };
    scene.memory.hold(hold.clone()).unwrap();
    scene.look(&look);
    let report = scene.look(&look);
    let of = |kind| report.findings.iter().find(|f| f.kind == kind).unwrap();
    assert_eq!(of(DriftKind::Cordon).hold, Some(hold.clone()));
    assert!(!of(DriftKind::Cordon).is_drift() && of(DriftKind::Unit).is_drift());
    assert!(scene.memory.release(Some(&name(NODE)), DriftKind::Cordon));
    assert!(!scene.memory.release(Some(&name(NODE)), DriftKind::Cordon));
    let report = scene.look(&look);
    assert_eq!(report.counts()[&DriftKind::Cordon], 1);
    let empty = DriftHold {
        reason: " ".to_owned(),
        ..hold
    };
    assert_eq!(scene.memory.hold(empty), Err(HoldError::Words));
}

#[test]
fn of_machines_that_werent_asked_for_nothing_begins_or_ends() {
    let mut scene = Scene::new();
    let mut drifted = scene.well();
    machine(&mut drifted).failed_units = Some(vec!["a.service".to_owned()]);
    scene.look(&drifted);
    scene.look(&drifted);
    let mut elsewhere = scene.well();
    elsewhere.asked = BTreeSet::from([name("n00001")]);
    elsewhere.machines.clear();
    assert_eq!(scene.look(&elsewhere).findings, []);
    assert!(scene.look(&drifted).is_drift());
    // A machine that has left the inventory is forgotten, with what was held of it.
    scene.inventory.nodes.remove(&name(NODE));
    elsewhere.asked.insert(name(NODE));
    assert_eq!(scene.look(&elsewhere).findings, []);
    let kept = serde_json::to_string(&scene.memory).unwrap();
    assert_eq!(kept, "{\"version\":1,\"findings\":[],\"holds\":[]}");
}

#[test]
fn more_than_is_told_is_said_and_what_is_kept_has_an_end() {
    let mut scene = Scene::new();
    let mut look = scene.well();
    let units = (0..500).map(|n| format!("u{n:03}.service"));
    machine(&mut look).failed_units = Some(units.collect());
    let report = scene.look(&look);
    assert_eq!(report.findings.len(), FINDINGS_KIND_MAX);
    assert_eq!(report.unseen.len(), 1, "{:?}", report.unseen);
    for _ in 0..20 {
        scene.look(&look);
    }
    assert_eq!(scene.look(&look).findings.len(), FINDINGS_KIND_MAX);
}

#[test]
fn what_could_not_be_built_is_not_seen() {
    let mut scene = Scene::new();
    let mut look = scene.well();
    machine(&mut look).current = other("old");
    scene
        .targets
        .insert(name(NODE), Err("no such attribute".to_owned()));
    let report = scene.look(&look);
    assert_eq!(report.unseen[0].kinds, [DriftKind::System]);
    assert!(report.unseen[0].why.contains("no such attribute"));
}
