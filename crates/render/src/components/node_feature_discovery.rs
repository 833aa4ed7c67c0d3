//! Node feature discovery: labels that say what hardware a node really has.

use serde_json::{Value, json};

use super::common::{pod_security, server_tolerations, tolerations};
use crate::{Chart, Component, Context, ObjectId};

/// Classes of PCI devices that become labels: network cards, displays and 3D controllers,
/// co-processors (Hailo), system peripherals (Coral) and accelerators
/// (pci-ids, the list of device classes).
const PCI_CLASSES: [&str; 5] = ["02", "03", "0b40", "0880", "12"];

pub(super) fn node_feature_discovery(cx: &Context<'_>) -> Component {
    Component {
        // The worker reads the host's /sys and /etc.
        namespace_labels: pod_security("privileged"),
        chart: Some(Chart {
            release: "node-feature-discovery",
            values: values(cx),
            known: include_str!("values/node-feature-discovery.paths"),
        }),
        owns: vec![ObjectId::cluster(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "nodefeatures.nfd.k8s-sigs.io",
        )],
        ..Component::new(
            "node-feature-discovery",
            "Labels that say what a node's hardware has.",
            "node-feature-discovery",
        )
    }
}

fn values(cx: &Context<'_>) -> Value {
    json!({
        "master": {
            // GPU feature discovery publishes labels of this namespace.
            "extraLabelNs": ["nvidia.com"],
            "tolerations": server_tolerations(cx),
        },
        "worker": {
            "config": {
                "sources": {
                    "pci": {
                        "deviceClassWhitelist": PCI_CLASSES,
                        // `pci-10de.present`, as NVIDIA's charts look for, rather than with the class.
                        "deviceLabelFields": ["vendor"],
                    },
                },
            },
            "tolerations": tolerations(cx, |_| true),
        },
        // A hook that runs when the release goes; Argo CD would run it whenever it prunes.
        "postDeleteCleanup": false,
    })
}
