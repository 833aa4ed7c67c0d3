//! What is known of NVIDIA's cards by the name of their model.
//!
//! The lists stand in nix/lib/gpu-models.json, which nix/lib/gpu.nix reads too: what a check lets
//! through, the machine's system doesn't refuse.

use std::sync::LazyLock;

use serde::Deserialize;

static MODELS: LazyLock<Models> = LazyLock::new(|| {
    // It is part of the program, and a test reads it.
    serde_json::from_str(include_str!("../../../../nix/lib/gpu-models.json")).unwrap_or_default()
});

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Models {
    mig: Vec<String>,
    without_mig: Vec<String>,
    before_turing: Lists,
    blackwell: Lists,
}

#[derive(Debug, Default, Deserialize)]
struct Lists {
    models: Vec<String>,
    series: Vec<String>,
}

impl Lists {
    fn have(&self, model: &str) -> bool {
        let series = |prefix: &String| model.starts_with(prefix.as_str());
        is_among(&self.models, model) || self.series.iter().any(series)
    }
}

/// Whether a model is one of these, with its memory or without: "a100" is "a100-80gb" too.
fn is_among(names: &[String], model: &str) -> bool {
    names.iter().any(|name| {
        let rest = model.strip_prefix(name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

/// What a card can and can't do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardFacts {
    /// Whether it can be divided by MIG; `None` where its model isn't known.
    pub mig: Option<bool>,
    /// Whether NVIDIA's open kernel modules are the only ones that drive it: Blackwell.
    pub open_required: bool,
    /// Whether NVIDIA's open kernel modules drive it: Turing and later.
    pub open_possible: bool,
}

impl CardFacts {
    /// What is known of a card of that model, named as the inventory names it.
    pub fn of(model: &str) -> Self {
        let models = &*MODELS;
        let mig = if is_among(&models.mig, model) {
            Some(true)
        } else {
            is_among(&models.without_mig, model).then_some(false)
        };
        Self {
            mig,
            open_required: models.blackwell.have(model) || model.ends_with("-blackwell"),
            open_possible: !models.before_turing.have(model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_match_by_whole_words_and_series() {
        let mig = |model| CardFacts::of(model).mig;
        assert_eq!(mig("a100-80gb"), Some(true));
        assert_eq!(mig("a1000"), None);
        assert_eq!(mig("rtx-4090"), Some(false));
        assert_eq!(mig("l400"), None);
        for (model, open_possible, open_required) in [
            ("rtx-4090", true, false),
            ("rtx-5090", true, true),
            ("rtx-5070-ti-laptop", true, true),
            ("rtx-pro-6000-blackwell", true, true),
            // Of Turing and of Ada, whatever its number looks like.
            ("rtx-5000", true, false),
            ("rtx-5000-ada", true, false),
            ("gtx-1660", true, false),
            ("gtx-1080", false, false),
            ("gtx-1080-ti", false, false),
            ("gtx-980", false, false),
            ("gtx-750-ti", false, false),
            ("v100-32gb", false, false),
        ] {
            let facts = CardFacts::of(model);
            let got = (facts.open_possible, facts.open_required);
            assert_eq!(got, (open_possible, open_required), "{model}");
        }
    }
}
