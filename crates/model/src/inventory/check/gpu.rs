//! What NVIDIA's cards can and can't do.
//!
//! MIG: NVIDIA's MIG user guide, "Supported GPUs". Driver: the open modules need Turing or later
//! and are the only ones for Blackwell (NVIDIA's driver README, "Open Linux Kernel Modules").

use crate::inventory::{Gpu, GpuDriver, GpuSharing};

/// Cards that can be divided by MIG, by the beginning of their model's name. A name matches where
/// it ends there or goes on with `-`.
const MIG_CAPABLE: &[&str] = &[
    "a30",
    "a100",
    "h100",
    "h200",
    "h20",
    "gh200",
    "b200",
    "gb200",
    "b300",
    "gb300",
    "rtx-pro-4500-blackwell",
    "rtx-pro-5000-blackwell",
    "rtx-pro-6000-blackwell",
];

/// Cards that are known to be without MIG.
const MIG_INCAPABLE: &[&str] = &[
    "rtx", "gtx", "titan", "quadro", "t4", "v100", "p100", "p40", "p4", "a2", "a10", "a16", "a40",
    "a2000", "a4000", "a4500", "a5000", "a6000", "l4", "l40", "l40s",
];

/// Cards before Turing, which the open modules don't drive.
const BEFORE_TURING: &[&str] = &[
    "gtx-10", "gtx-9", "gtx-7", "titan-x", "titan-xp", "titan-v", "v100", "p100", "p40", "p4",
    "k80", "m40", "m60",
];

/// Blackwell, which only the open modules drive.
const BLACKWELL: &[&str] = &["rtx-50", "b200", "gb200", "b300", "gb300"];

fn is_one_of(model: &str, list: &[&str]) -> bool {
    list.iter().any(|name| {
        model.strip_prefix(name).is_some_and(|rest| {
            // "rtx-50" stands for "rtx-5090" and its like.
            rest.is_empty()
                || rest.starts_with('-')
                || name.ends_with("0") && series(name) && rest.len() <= 5
        })
    })
}

/// Whether a name is the beginning of a series such as `gtx-10` rather than a whole model.
fn series(name: &str) -> bool {
    matches!(name.split_once('-'), Some(("gtx" | "rtx", digits)) if digits.len() <= 2)
}

/// What is wrong with a declaration of cards: the key, a code, what is wrong, and what to do.
pub(super) fn faults(gpu: &Gpu) -> Vec<(&'static str, &'static str, String, String)> {
    let mut faults = Vec::new();
    let model = gpu.model.as_str();
    let mut fault = |key, code, message: String, hint: &str| {
        faults.push((key, code, message, hint.to_owned()));
    };
    let shared = matches!(gpu.sharing, GpuSharing::TimeSlicing | GpuSharing::Mps);
    if gpu.sharing == GpuSharing::Mig {
        let capable = is_one_of(model, MIG_CAPABLE);
        if !capable && is_one_of(model, MIG_INCAPABLE) {
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
    let blackwell = is_one_of(model, BLACKWELL) || model.ends_with("-blackwell");
    if gpu.driver == GpuDriver::Proprietary && blackwell {
        fault(
            "driver",
            "gpu-driver",
            format!("the proprietary modules don't drive a `{model}`"),
            "Blackwell needs `driver = \"open\"`.",
        );
    }
    if gpu.driver == GpuDriver::Open && is_one_of(model, BEFORE_TURING) {
        fault(
            "driver",
            "gpu-driver",
            format!("the open modules don't drive a `{model}`"),
            "Cards before Turing need `driver = \"proprietary\"`.",
        );
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_match_by_whole_words_and_series() {
        assert!(is_one_of("a100-80gb", MIG_CAPABLE));
        assert!(!is_one_of("a1000", MIG_CAPABLE));
        assert!(is_one_of("rtx-5090", BLACKWELL));
        assert!(!is_one_of("rtx-4090", BLACKWELL));
        assert!(is_one_of("gtx-1080", BEFORE_TURING));
        assert!(is_one_of("gtx-1080-ti", BEFORE_TURING));
        assert!(!is_one_of("gtx-1660", BEFORE_TURING));
        assert!(is_one_of("rtx-4090", MIG_INCAPABLE));
        assert!(!is_one_of("l400", MIG_INCAPABLE));
    }
}
