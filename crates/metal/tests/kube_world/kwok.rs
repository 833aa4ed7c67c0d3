//! Kubelets that kwok plays: Nodes that have registered become Ready, and so do pods.
//!
//! There is still no controller manager and no scheduler: the test makes the pods that they would
//! make, and counts those that are ready.

use std::{
    fs,
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use undercroft_model::{BootstrapPart, Evidence, Outcome, Work};
use undercroft_testkit::{OrSkip as _, peer};

use crate::{
    available, evidence,
    kube_common::{Running, free_port},
    machines::{LIMIT, Site, inside},
    make, part, parts, pod, ready,
};

/// Starts kwok for all Nodes, with the stages that it brings.
fn start_kwok(site: &Site) -> Running {
    let path = |name: &str| site.dir.path().join(name);
    fs::write(path("kwok.kubeconfig"), site.api.direct_kubeconfig()).unwrap();
    let server = format!("{}:{}", Ipv4Addr::LOCALHOST, free_port());
    let mut command = Command::new(peer("kwok").unwrap());
    command
        .arg("--kubeconfig")
        .arg(path("kwok.kubeconfig"))
        .args(["--manage-all-nodes=true", "--node-ip=127.0.0.1"])
        .args(["--server-address", &server])
        // It reads a configuration from the home folder, where there is one.
        .env("HOME", site.dir.path());
    Running::start(&mut command, &path("kwok.log"))
}

async fn wait_for_pod(site: &Site, labels: &str, node: &str) {
    let cluster = site.api.cluster();
    let until = Instant::now() + LIMIT;
    loop {
        let seen = cluster.has_ready_pod("kube-system", labels, node).await;
        if matches!(seen, Ok(true)) {
            return;
        }
        if Instant::now() > until {
            let log = fs::read_to_string(site.dir.path().join("kwok.log")).unwrap_or_default();
            panic!("no pod {labels} is ready on {node}: {seen:?}\n{log}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn nodes_and_pods_that_kwok_plays_become_ready() {
    if peer("kwok").or_skip().is_none() {
        return;
    }
    if !inside("kwok::nodes_and_pods_that_kwok_plays_become_ready") {
        return;
    }
    let mut site = Site::new(parts()).await;
    site.play_join("control-01").await;
    site.play_join("gpu-01").await;
    // Nobody has said yet that they are Ready.
    assert_eq!(site.probe("gpu-01", ready()).await, Outcome::NotDone);

    let kwok = start_kwok(&site);
    for machine in ["control-01", "gpu-01"] {
        site.start(machine, ready(), Work::Act);
        let Evidence::Ready {
            boot_id,
            kubelet_version,
        } = evidence(site.ended().await)
        else {
            panic!("{machine} isn't ready");
        };
        assert_eq!(boot_id, format!("boot-of-{machine}"));
        assert_eq!(kubelet_version, "v1.34.4");
    }

    site.start("control-01", part(BootstrapPart::Network), Work::Act);
    let labels = [
        ("cilium-x", "k8s-app", "cilium", "control-01"),
        ("cilium-y", "k8s-app", "cilium", "gpu-01"),
        ("cilium-operator-x", "app", "cilium-operator", "gpu-01"),
    ];
    for (name, key, value, node) in labels {
        let labels = Value::from_iter([(key, value)]);
        make(&site, &pod(name, labels, node)).await;
        wait_for_pod(&site, &format!("{key}={value}"), node).await;
    }
    let system = Some("kube-system");
    site.api
        .set_status("apps/v1/Deployment", system, "cilium-operator", available())
        .await;
    let network = evidence(site.ended().await);
    assert!(
        matches!(&network, Evidence::Bootstrapped { shown, .. } if shown == "Cilium is ready on control-01"),
        "{network:?}"
    );

    // It was kwok: without it a Node that registers stays as it is.
    drop(kwok);
    site.play_join("control-02").await;
    assert_eq!(site.probe("control-02", ready()).await, Outcome::NotDone);
    let node = site.api.cluster().node("control-02").await.unwrap();
    assert_eq!(node.map(|node| node.ready), Some(false));
}
