//! The files that the Nix library gives kubeadm.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use undercroft_testkit::{OrSkip as _, peer, program, repository};

/// The version of Kubernetes that the peers are.
pub(crate) const VERSION: &str = "1.34.4";

/// What each machine of examples/kubeadm gives kubeadm, evaluated now.
pub(crate) fn of_the_example() -> BTreeMap<String, Value> {
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--readonly-mode"])
        .arg(repository().join("nix/tests/kubeadm.nix"))
        .arg("--arg")
        .arg("src")
        .arg(
            repository()
                .join("examples/kubeadm")
                .canonicalize()
                .unwrap(),
        )
        .args(["--argstr", "version", VERSION])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nix-instantiate: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// What the join script makes of a machine's file, with a token that nobody gave.
fn joining(join: &str) -> String {
    let mut join: Value = serde_json::from_str(join).unwrap();
    let token = "abcdef.0123456789abcdef";
    join["discovery"] = serde_json::json!({
        "bootstrapToken": {
            "token": token,
            "apiServerEndpoint": "10.44.0.11:6443",
            "caCertHashes": [format!("sha256:{}", "0".repeat(64))],
        },
        "tlsBootstrapToken": token,
    });
    join.to_string()
}

fn validate(file: &Path, text: &str) -> Output {
    std::fs::write(file, text).unwrap();
    Command::new(peer("kubeadm").unwrap())
        .args(["config", "validate", "--config"])
        .arg(file)
        .output()
        .unwrap()
}

#[test]
fn kubeadm_takes_every_file_of_the_example_and_warns_of_nothing() {
    if peer("kubeadm").or_skip().is_none()
        || program("nix-instantiate", "nix-bin").or_skip().is_none()
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let machines = of_the_example();
    assert!(machines.len() >= 5, "{machines:?}");
    for (name, machine) in &machines {
        let mut files = vec![joining(text(machine, "join"))];
        if text(machine, "role") == "server" {
            files.push(text(machine, "init").to_owned());
        }
        for config in files {
            let output = validate(&file, &config);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}: {said}\n{config}");
            assert_eq!(said, "", "{name}: {config}");
        }
    }
}

#[test]
fn kubeadm_refuses_a_misspelt_key_of_each_document() {
    if peer("kubeadm").or_skip().is_none()
        || program("nix-instantiate", "nix-bin").or_skip().is_none()
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let machines = of_the_example();
    let founder = text(&machines["head-01"], "init");
    let joiner = joining(text(&machines["head-02"], "join"));
    for (config, right, wrong) in [
        (founder, "advertiseAddress", "advertizeAddress"),
        (founder, "skipPhases", "skipPhase"),
        (founder, "certSANs", "certSans"),
        (founder, "podSubnet", "podSubnets"),
        (founder, "shutdownGracePeriod\"", "shutdownGraceTime\""),
        (&joiner, "caCertHashes", "caCertHash"),
        (&joiner, "controlPlane\"", "controlPlanes\""),
        (&joiner, "taints", "taint"),
    ] {
        assert!(config.contains(right), "{right}: {config}");
        let output = validate(&file, &config.replace(right, wrong));
        let said = String::from_utf8_lossy(&output.stderr);
        let wrong = wrong.trim_end_matches('"');
        assert!(!output.status.success(), "{wrong}: {said}");
        assert!(said.contains(wrong), "{said}");
    }
}
