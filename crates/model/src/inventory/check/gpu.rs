//! What NVIDIA's cards can and can't do.
//!
//! MIG: NVIDIA's MIG user guide, "Supported GPUs". Driver: the open modules need Turing or later
//! and are the only ones for Blackwell (NVIDIA's driver README, "Open Linux Kernel Modules").

use crate::inventory::{CardFacts, Gpu, GpuDriver, GpuSharing};

/// What is wrong with a declaration of cards: the key, a code, what is wrong, and what to do.
pub(super) fn faults(gpu: &Gpu) -> Vec<(&'static str, &'static str, String, String)> {
    let mut faults = Vec::new();
    let model = gpu.model.as_str();
    let mut fault = |key, code, message: String, hint: &str| {
        faults.push((key, code, message, hint.to_owned()));
    };
    let shared = matches!(gpu.sharing, GpuSharing::TimeSlicing | GpuSharing::Mps);
    let card = CardFacts::of(model);
    if gpu.sharing == GpuSharing::Mig {
        let capable = card.mig == Some(true);
        if card.mig == Some(false) {
            fault(
                "sharing",
                "gpu-cannot-mig",
                format!("a card of model `{model}` can't be divided by MIG"),
                "Use \"time-slicing\" or \"mps\", which every card can.",
            );
        } else if !capable {
            fault(
                "model",
                "unknown-gpu",
                format!("`{model}` is not among the cards that are known to have MIG"),
                "Check the spelling; known are a30, a100, h100, h200, h20, gh200, b200, gb200, b300, gb300 and rtx-pro-6000-blackwell, each with or without its memory (a100-80gb).",
            );
        }
        if gpu.mig_config.is_none() {
            fault(
                "sharing",
                "missing-key",
                "sharing by MIG needs `mig_config`".to_owned(),
                "Add `mig_config`, such as \"all-1g.10gb\".",
            );
        }
    } else if gpu.mig_config.is_some() {
        fault(
            "mig_config",
            "contradiction",
            format!("`mig_config` contradicts `sharing = \"{}\"`", gpu.sharing),
            "MIG instances are neither sliced nor shared by MPS: take `mig_config` out, or set `sharing` to \"mig\".",
        );
    }
    if shared && gpu.replicas.is_none() {
        fault(
            "sharing",
            "missing-key",
            format!("sharing by \"{}\" needs `replicas`", gpu.sharing),
            "Add `replicas`, the number of pods that share a card.",
        );
    }
    if !shared && gpu.replicas.is_some() {
        fault(
            "replicas",
            "contradiction",
            format!("`replicas` contradicts `sharing = \"{}\"`", gpu.sharing),
            "Take `replicas` out, or set `sharing` to \"time-slicing\" or \"mps\".",
        );
    }
    if gpu.driver == GpuDriver::Proprietary && card.open_required {
        fault(
            "driver",
            "gpu-driver",
            format!("the proprietary modules don't drive a `{model}`"),
            "Blackwell needs `driver = \"open\"`.",
        );
    }
    if gpu.driver == GpuDriver::Open && !card.open_possible {
        fault(
            "driver",
            "gpu-driver",
            format!("the open modules don't drive a `{model}`"),
            "Cards before Turing need `driver = \"proprietary\"`.",
        );
    }
    faults
}
