//! The components, one file each.

mod alloy;
mod argo_cd;
mod cert_manager;
mod cilium;
mod common;
mod controller;
mod grafana;
mod hats;
mod headscale;
mod kubevirt;
mod lending_server;
mod local_path;
mod loki;
mod longhorn;
mod nats;
mod node_feature_discovery;
mod nvidia;
mod prometheus;
mod secrets;

use serde_json::Value;
use undercroft_model::inventory::{self, SecretsBackend};

use crate::{Component, Context, Problem, fixed, lint::DefaultClass};

/// Every component of the tree that the inventory asks for, in any order.
pub(crate) fn all(cx: &Context<'_>) -> Result<Vec<Component>, Vec<Problem>> {
    use inventory::Component as C;

    let mut made = vec![cilium::cilium(cx), Ok(argo_cd::argo_cd(cx))];
    match cx.inventory.secrets.backend {
        // The bootstrap delivers them; nothing runs in the cluster for it.
        SecretsBackend::Sops => {}
        SecretsBackend::SealedSecrets => made.push(Ok(secrets::sealed_secrets())),
        // A PC has no Vault that trusts it.
        SecretsBackend::Vault if cx.is_dev() => {}
        SecretsBackend::Vault => made.push(secrets::external_secrets(cx)),
    }
    if cx.inventory.has_longhorn() {
        made.push(Ok(longhorn::longhorn(cx)));
    }
    // Volumes that lie on nodes' own filesystems stay there when Longhorn comes, and need what
    // made them until nobody uses them any more.
    if !cx.is_dev() && (!cx.inventory.has_longhorn() || cx.had(local_path::NAME)) {
        made.push(local_path::local_path(cx));
    }
    let without: Vec<&str> = left_out(cx).into_iter().map(|(name, _)| name).collect();
    for component in C::ALL {
        if !cx.wants(*component) || without.contains(&component.as_str()) {
            continue;
        }
        made.push(match component {
            // These are there in any case, or were decided above.
            C::Cilium | C::Longhorn => continue,
            C::NvidiaDevicePlugin => Ok(nvidia::nvidia(cx)),
            C::NodeFeatureDiscovery => Ok(node_feature_discovery::node_feature_discovery(cx)),
            C::CertManager => Ok(cert_manager::cert_manager(cx)),
            C::Prometheus => Ok(prometheus::prometheus(cx)),
            C::Grafana => Ok(grafana::grafana(cx)),
            C::Loki => Ok(loki::loki(cx)),
            C::Alloy => Ok(alloy::alloy(cx)),
            C::Nats => Ok(nats::nats(cx)),
            C::LendingServer => lending_server::lending_server(cx),
            C::Headscale => headscale::headscale(cx),
            C::HatDevicePlugin => hats::hat_device_plugin(cx),
            C::Kubevirt => kubevirt::kubevirt(cx),
        });
    }
    let mut components = gathered(made)?;
    for component in &mut components {
        component.data = fixed::data_of(component.name);
    }
    Ok(components)
}

/// The storage classes that charts make the default, as their values say, and k3s' own on a PC.
pub(crate) fn default_classes(cx: &Context<'_>, components: &[Component]) -> Vec<DefaultClass> {
    let on = |values: &Value, key: &str| {
        // The chart's own defaults are true.
        crate::values::get(values, &["persistence", key]).is_none_or(|v| v.as_bool() != Some(false))
    };
    let mut found = Vec::new();
    for component in components.iter().filter(|c| c.name == "longhorn") {
        if let Some(chart) = &component.chart
            && on(&chart.values, "createStorageClass")
            && on(&chart.values, "defaultClass")
        {
            found.push(DefaultClass {
                name: "longhorn".to_owned(),
                place: "the chart of longhorn".to_owned(),
            });
        }
    }
    if cx.is_dev() {
        found.push(DefaultClass {
            name: local_path::NAME.to_owned(),
            place: "k3s' own".to_owned(),
        });
    }
    found
}

/// The components that the inventory asks for and that the tree leaves out, each with why: a
/// whole sentence without its end. A PC's cluster has none of the inventory's nodes.
pub(crate) fn left_out(cx: &Context<'_>) -> Vec<(&'static str, &'static str)> {
    use inventory::Component as C;

    let mut left_out = Vec::new();
    if cx.wants(C::Longhorn) && !cx.is_dev() && !cx.inventory.has_longhorn() {
        left_out.push((
            C::Longhorn.as_str(),
            "no node of the cluster gives Longhorn a disk, so that volumes lie on the nodes' own filesystems",
        ));
    }
    let cards = || cx.cluster_nodes().any(|(_, node)| node.gpu.is_some());
    if cx.wants(C::NvidiaDevicePlugin) && !cx.is_dev() && !cards() {
        left_out.push((
            C::NvidiaDevicePlugin.as_str(),
            "no node of the cluster has an NVIDIA card",
        ));
    }
    if cx.wants(C::HatDevicePlugin) {
        if !cx.cluster_nodes().any(|(_, node)| !node.hats.is_empty()) {
            left_out.push((
                C::HatDevicePlugin.as_str(),
                "no node of the cluster has an AI board",
            ));
        } else if cx.locked(hats::NAME).is_none() {
            left_out.push((
                C::HatDevicePlugin.as_str(),
                "the lock file names no image for it, and none is published yet",
            ));
        }
    }
    left_out
}

/// All components, or the problems of all of them.
fn gathered(made: Vec<Result<Component, Vec<Problem>>>) -> Result<Vec<Component>, Vec<Problem>> {
    let mut components = Vec::new();
    let mut problems = Vec::new();
    for one in made {
        match one {
            Ok(component) => components.push(component),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        Ok(components)
    } else {
        Err(problems)
    }
}
