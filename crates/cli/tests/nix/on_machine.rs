//! What the command asks of an installed machine, and what the machine's own modules and scripts make of it.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;
use undercroft_model::{
    inventory::API_PORT,
    on_machine::{
        CLUSTER_LEAVE, CLUSTER_REPORT, JOIN_BEGAN, JOIN_ENV, JOIN_UNIT, JOINED, KUBEADM_ENDED,
        KUBEADM_ETCD,
    },
};

use crate::support::repository;

/// The scripts of a machine's part of the cluster know the places of its modules and of the command.
#[test]
fn the_clusters_scripts_have_the_places_that_are_asked_for() {
    let library = repository().join("nix/modules/scripts/cluster-lib.sh");
    let asked = "UNDERCROFT_SECRETS=; . \"$1\"; printf '%s\\n' \
        \"$marker\" \"$began\" \"$ended\" \"$join_env\" \"$report_file\" \"$unit\" \"$leave\" \"$starting\" \"$kubeadm_etcd\"";
    let output = Command::new("bash")
        .args(["-c", asked, "asked"])
        .arg(&library)
        .env_remove("UNDERCROFT_ROOT")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<&str> = said.lines().collect();
    let unit = format!("{JOIN_UNIT}.service");
    let starting = format!("{}/starting", JOIN_ENV.strip_suffix("/join.env").unwrap());
    let places = [
        JOINED,
        JOIN_BEGAN,
        KUBEADM_ENDED,
        JOIN_ENV,
        CLUSTER_REPORT,
        &unit,
        CLUSTER_LEAVE,
        &starting,
        KUBEADM_ETCD,
    ];
    assert_eq!(said, places);
    let text = fs::read_to_string(library).unwrap();
    assert!(text.contains(&format!("https://$1:{API_PORT}/version")));
}

/// Every file below a folder that one of these endings is of.
fn files(folder: &Path, endings: &[&str], found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, endings, found);
        } else if path
            .extension()
            .is_some_and(|ending| endings.iter().any(|one| ending == *one))
        {
            let name = path.strip_prefix(repository()).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            found.insert(name.display().to_string(), text);
        }
    }
}

/// A place has one home for each language: who spells it out has made a second one.
#[test]
fn nobody_spells_out_where_something_lies() {
    let places: Value = serde_json::from_str(
        &fs::read_to_string(repository().join("nix/lib/on-machine.json")).unwrap(),
    )
    .unwrap();
    let places: Vec<&str> = places
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_str)
        .collect();
    let mut sources = BTreeMap::new();
    files(&repository().join("nix/lib"), &["nix"], &mut sources);
    files(
        &repository().join("nix/modules"),
        &["nix", "sh"],
        &mut sources,
    );
    for entry in fs::read_dir(repository().join("crates")).unwrap() {
        files(&entry.unwrap().path().join("src"), &["rs"], &mut sources);
    }
    // Their homes; and the tests of a machine whose files lie elsewhere.
    sources.remove("crates/model/src/on_machine.rs");
    sources.remove("nix/modules/scripts/cluster-lib.sh");
    sources.retain(|name, _| !name.ends_with("tests.rs") && !name.contains("/tests/"));
    assert!(sources.len() > 400, "{}", sources.len());
    let mut spelled = Vec::new();
    for (name, text) in &sources {
        for (number, line) in text.lines().enumerate() {
            let is_comment = line.trim_start().starts_with(['#', '/']);
            if !is_comment && places.iter().any(|place| line.contains(place)) {
                spelled.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(spelled.is_empty(), "{}", spelled.join("\n"));
}
