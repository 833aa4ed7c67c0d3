//! NVIDIA's device plugin and GPU discovery.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use undercroft_model::inventory::{GPU_PROFILE_LABEL, Gpu, GpuSharing};

use super::common::{pod_security, resources, tolerations};
use crate::{Chart, Component, Context, DevUse, ManifestObject, ObjectId};

/// Runtime that hands cards to containers by CDI, as k3s and the kubeadm module register it.
const RUNTIME: &str = "nvidia-cdi";
/// The configuration of nodes that no label gives another: no sharing.
const DEFAULT_PROFILE: &str = "exclusive";

pub(super) fn nvidia(cx: &Context<'_>) -> Component {
    Component {
        namespace_labels: pod_security("privileged"),
        chart: Some(Chart {
            release: "nvidia-device-plugin",
            values: values(cx),
            known: include_str!("values/nvidia-device-plugin.paths"),
        }),
        manifests: vec![
            ManifestObject::new(
                "runtime-class.yaml",
                json!({
                    "apiVersion": "node.k8s.io/v1",
                    "kind": "RuntimeClass",
                    "metadata": { "name": RUNTIME },
                    "handler": RUNTIME,
                }),
            )
            .comment("Pods that use a card ask for this class: `runtimeClassName: nvidia-cdi`."),
        ],
        requires: vec!["node-feature-discovery"],
        owns: vec![ObjectId::cluster("node.k8s.io", "RuntimeClass", RUNTIME)],
        dev: DevUse::LeftOut("k3d's nodes have no NVIDIA cards"),
        ..Component::new(
            "nvidia-device-plugin",
            "NVIDIA's device plugin: pods that ask for a card get one, shared as its class says.",
            "nvidia-device-plugin",
        )
    }
}

/// The configuration of the device plugin for cards that are shared in a way
/// (k8s-device-plugin v0.20.0, api/config/v1).
fn profile(gpu: &Gpu) -> Value {
    let migs = match gpu.sharing {
        GpuSharing::Mig if gpu.mig_is_uniform() => "single",
        GpuSharing::Mig => "mixed",
        GpuSharing::None | GpuSharing::TimeSlicing | GpuSharing::Mps => "none",
    };
    let mut config = json!({ "version": "v1", "flags": { "migStrategy": migs } });
    let resources = json!([{ "name": "nvidia.com/gpu", "replicas": gpu.replicas }]);
    let sharing = match gpu.sharing {
        GpuSharing::None | GpuSharing::Mig => None,
        // Two shares of a card may be of the same card, so that asking for more than one gives
        // nothing more: such pods are refused rather than deceived.
        GpuSharing::TimeSlicing => Some(json!({
            "timeSlicing": { "failRequestsGreaterThanOne": true, "resources": resources },
        })),
        GpuSharing::Mps => Some(json!({ "mps": { "resources": resources } })),
    };
    if let (Some(sharing), Value::Object(config)) = (sharing, &mut config) {
        config.insert("sharing".to_owned(), sharing);
    }
    config
}

/// The configurations of all nodes by their names, which are the values of the nodes' label.
pub(super) fn profiles(cx: &Context<'_>) -> BTreeMap<String, Value> {
    let exclusive = json!({ "version": "v1", "flags": { "migStrategy": "none" } });
    let mut profiles = BTreeMap::from([(DEFAULT_PROFILE.to_owned(), exclusive)]);
    for (_, node) in cx.cluster_nodes() {
        if let Some(gpu) = &node.gpu {
            profiles.insert(gpu.profile(), profile(gpu));
        }
    }
    profiles
}

fn values(cx: &Context<'_>) -> Value {
    let map: Map<String, Value> = profiles(cx)
        .into_iter()
        .map(|(name, config)| {
            // JSON is YAML; printing it can't fail, and the plain form is the fallback.
            let text = crate::yaml::print(&config).unwrap_or_else(|_| config.to_string());
            (name, Value::from(text))
        })
        .collect();
    let mut tolerated = vec![json!({
        "key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule",
    })];
    if let Value::Array(more) = tolerations(cx, |node| node.gpu.is_some()) {
        tolerated.extend(more);
    }
    json!({
        "config": { "map": map, "default": DEFAULT_PROFILE },
        "runtimeClassName": RUNTIME,
        // The host names its CDI devices by UUID; by index, MIG instances couldn't be told apart.
        "deviceListStrategy": "envvar",
        "deviceIDStrategy": "uuid",
        "gfd": { "enabled": true },
        // Node feature discovery is a component of its own; a second one would fight over labels.
        "nfd": { "enabled": false },
        // Only where a card was found and the inventory says that it is for the cluster: a label
        // alone without a card would make the plugin fail, a card alone may have no driver.
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{
                        "matchExpressions": [
                            {
                                "key": "feature.node.kubernetes.io/pci-10de.present",
                                "operator": "In",
                                "values": ["true"],
                            },
                            { "key": GPU_PROFILE_LABEL, "operator": "Exists" },
                        ],
                    }],
                },
            },
        },
        "tolerations": tolerated,
        "resources": resources("10m", "64Mi", "256Mi"),
    })
}
