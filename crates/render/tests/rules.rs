//! The rules over the controller's numbers, by the real promtool: that it reads them, and that each fires when it
//! should and not before; and the dashboard beside them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::string_slice,
    reason = "tests, which start programs; the crate itself is pure"
)]

mod support;

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::{Value, json};
use undercroft_render::Tree;
use undercroft_testkit::{OrSkip as _, peer};

/// The fleet with a port for the controller's numbers.
fn fleet_with_numbers(dev: bool) -> Tree {
    let inventory = support::fleet("k3s", support::GITOPS);
    let mut with = inventory.clone();
    with.network.metrics_port = Some(9110);
    support::tree(&with, dev)
}

fn rules() -> Value {
    let rules = support::object(&fleet_with_numbers(false), "PrometheusRule", JOB);
    rules.unwrap()["spec"].clone()
}

const JOB: &str = "undercroft-controller";

#[test]
fn the_controller_is_watched_where_it_gives_numbers_and_only_from_the_cluster() {
    let tree = fleet_with_numbers(false);
    let scrape = support::object(&tree, "ScrapeConfig", JOB).unwrap();
    let target = &scrape["spec"]["staticConfigs"][0];
    assert_eq!(target["targets"], json!(["10.20.0.2:9110"]));
    assert_eq!(target["labels"], json!({ "job": JOB, "fleet": "cellar" }));
    let board = support::object(&tree, "ConfigMap", "undercroft-controller-dashboard").unwrap();
    assert_eq!(board["metadata"]["labels"]["grafana_dashboard"], "1");

    let without = support::tree(&support::fleet("k3s", support::GITOPS), false);
    for tree in [without, fleet_with_numbers(true)] {
        assert_eq!(support::object(&tree, "ScrapeConfig", JOB), None);
        assert_eq!(support::object(&tree, "PrometheusRule", JOB), None);
        let board = support::object(&tree, "ConfigMap", "undercroft-controller-dashboard");
        assert_eq!(board, None);
    }
}

#[test]
fn the_dashboards_panels_lie_beside_each_other_and_ask_prometheus() {
    let tree = fleet_with_numbers(false);
    let board = support::object(&tree, "ConfigMap", "undercroft-controller-dashboard").unwrap();
    let text = board["data"]["undercroft-controller.json"]
        .as_str()
        .unwrap();
    let board: Value = serde_json::from_str(text).unwrap();
    // The uid of the data source that Grafana is given.
    let sources = support::must(&tree, "grafana")["datasources"]["datasources.yaml"].clone();
    let uid = &sources["datasources"][0]["uid"];
    let mut taken: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for panel in board["panels"].as_array().unwrap() {
        assert_eq!(panel["datasource"]["uid"], *uid);
        let id = panel["id"].as_u64().unwrap();
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert_eq!(taken.insert((x, y), id), None, "{}", panel["title"]);
            }
        }
    }
    assert_eq!(board["panels"].as_array().unwrap().len(), 10);
}

/// Runs promtool in a folder; what it said, where it isn't content.
fn promtool(program: &Path, folder: &Path, words: &[&str]) -> Result<(), String> {
    let ran = Command::new(program)
        .args(words)
        .current_dir(folder)
        .output();
    let ran = ran.unwrap();
    if ran.status.success() {
        return Ok(());
    }
    let said = [ran.stdout, ran.stderr].concat();
    Err(String::from_utf8_lossy(&said).into_owned())
}

/// Where the controller is, and what it gives when all is well; a case replaces some of it.
const WELL: [(&str, &str); 8] = [
    ("up{job=\"undercroft-controller\"}", "1x300"),
    ("undercroft_serve_wedged", "0x300"),
    ("undercroft_serve_failures_in_a_row", "2x300"),
    ("undercroft_serve_since_good_round_seconds", "900x300"),
    ("undercroft_serve_course{course=\"working\"}", "0x300"),
    ("undercroft_serve_builds_failing", "0x300"),
    ("undercroft_serve_alarms{kind=\"flood\"}", "0x300"),
    ("undercroft_serve_faults_total", "0x300"),
];

/// One case: which numbers differ, the minute to look at, and which rules fire then. All are looked at: none
/// may fire beside those that should.
struct Case(
    &'static [(&'static str, &'static str)],
    u32,
    &'static [&'static str],
);

const CASES: [Case; 20] = [
    Case(&[], 299, &[]),
    Case(&[(WELL[0].0, "1x5 0x300")], 15, &[]),
    Case(
        &[(WELL[0].0, "1x5 0x300")],
        17,
        &["UndercroftControllerDown"],
    ),
    Case(&[(WELL[0].0, "_x300")], 11, &["UndercroftControllerDown"]),
    Case(&[(WELL[1].0, "1x300")], 4, &[]),
    Case(&[(WELL[1].0, "1x300")], 6, &["UndercroftRoundStuck"]),
    Case(&[(WELL[2].0, "3x300")], 4, &[]),
    Case(&[(WELL[2].0, "3x300")], 6, &["UndercroftRoundsFail"]),
    Case(&[(WELL[3].0, "7300x300")], 6, &["UndercroftNoGoodRound"]),
    // A plan that is carried out takes as long as it takes.
    Case(&[(WELL[3].0, "7300x300"), (WELL[4].0, "1x300")], 6, &[]),
    Case(&[(UNREACHABLE, "1x300")], 29, &[]),
    Case(&[(UNREACHABLE, "1x300")], 31, &["UndercroftMachinesWait"]),
    // What it tries again by itself is nobody's business.
    Case(&[(NEXT_TRY, "1x300")], 299, &[]),
    Case(&[(APPROVAL, "1x300")], 9, &[]),
    Case(&[(APPROVAL, "1x300")], 31, &["UndercroftApprovalWaits"]),
    Case(&[(WELL[5].0, "1x300")], 29, &[]),
    Case(&[(WELL[5].0, "1x300")], 31, &["UndercroftBuildsFail"]),
    Case(&[(WELL[6].0, "1x300")], 1, &["UndercroftAlarm"]),
    Case(&[(WELL[7].0, "0x5 1x300")], 10, &["UndercroftFault"]),
    Case(&[(WELL[7].0, "0x5 1x300")], 90, &[]),
];
const UNREACHABLE: &str = "undercroft_serve_waiting{reason=\"unreachable\"}";
const NEXT_TRY: &str = "undercroft_serve_waiting{reason=\"next-try\"}";
const APPROVAL: &str = "undercroft_serve_waiting{reason=\"approval\"}";

impl Case {
    fn test(&self) -> Value {
        let Self(differs, minute, fires) = self;
        let mut series: BTreeMap<&str, &str> = WELL.into();
        series.extend(differs.iter().copied());
        let input: Vec<Value> = series
            .iter()
            .map(|(series, values)| {
                // As Prometheus adds it to all that a target gives.
                let with = match series.strip_suffix('}') {
                    Some(head) => format!("{head},instance=\"10.20.0.2:9110\"}}"),
                    None => format!("{series}{{instance=\"10.20.0.2:9110\"}}"),
                };
                json!({ "series": with, "values": values })
            })
            .collect();
        let samples: Vec<Value> = fires
            .iter()
            .map(|name| json!({ "labels": format!("{{alertname=\"{name}\"}}"), "value": 1 }))
            .collect();
        json!({
            "interval": "1m",
            "input_series": input,
            "promql_expr_test": [{
                "expr": "count by (alertname) (ALERTS{alertstate=\"firing\"})",
                "eval_time": format!("{minute}m"),
                "exp_samples": samples,
            }],
        })
    }
}

#[test]
fn every_rule_is_read_by_promtool_and_fires_when_it_should_and_not_before() {
    let Some(program) = peer("promtool").or_skip() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| {
        // JSON is YAML.
        fs::write(folder.path().join(name), value.to_string()).unwrap();
    };
    let rules = rules();
    write("rules.yaml", &rules);
    let read = promtool(
        &program,
        folder.path(),
        &["check", "rules", "--lint-fatal", "rules.yaml"],
    );
    assert_eq!(read, Ok(()));
    let tests: Vec<Value> = CASES.iter().map(Case::test).collect();
    let all = json!({ "rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests });
    write("tests.yaml", &all);
    let tried = promtool(&program, folder.path(), &["test", "rules", "tests.yaml"]);
    assert_eq!(tried, Ok(()));
    // Each of them has a case in which it fires.
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        let fires = CASES.iter().any(|Case(_, _, fires)| fires.contains(&name));
        assert!(fires, "no case of {name}");
    }
    // It finds something where there is something to find.
    let wrong = json!({
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [Case(&[], 20, &["UndercroftFault"]).test()],
    });
    write("tests.yaml", &wrong);
    let tried = promtool(&program, folder.path(), &["test", "rules", "tests.yaml"]);
    assert!(tried.unwrap_err().contains("UndercroftFault"));
}
