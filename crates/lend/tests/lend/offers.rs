//! Offers only ever narrow.

use std::collections::BTreeSet;

use proptest::prelude::*;
use undercroft_lend::{
    job::{Limits, Runtime},
    offer::Offer,
};
use undercroft_model::inventory::Sensitivity;

fn offers() -> impl Strategy<Value = Offer> {
    let runtimes =
        proptest::sample::subsequence(vec![Runtime::Wasm, Runtime::Process, Runtime::Nix], 0..=3);
    let tenants = proptest::option::of(proptest::sample::subsequence(vec!["build", "test"], 0..=2));
    let features = proptest::sample::subsequence(vec!["gpu", "aarch64"], 0..=2);
    let limits = (1..400u32, 1..4000u32, 1..4000u32, 1..4000u32);
    (runtimes, tenants, features, any::<bool>(), 1..8u32, limits).prop_map(
        |(
            runtimes,
            tenants,
            features,
            internal,
            slots,
            (cpu_percent, memory_mb, disk_mb, wall_s),
        )| Offer {
            class: "pc".parse().unwrap(),
            runtimes: runtimes.into_iter().collect(),
            tenants: tenants.map(|t| t.iter().map(|t| t.parse().unwrap()).collect()),
            max_sensitivity: if internal {
                Sensitivity::Internal
            } else {
                Sensitivity::Public
            },
            features: features
                .iter()
                .map(|f| f.parse().unwrap())
                .collect::<BTreeSet<_>>(),
            slots,
            limits: Limits {
                cpu_percent,
                memory_mb,
                disk_mb,
                wall_s,
            },
        },
    )
}

proptest! {
    #[test]
    fn what_two_offer_is_within_both_and_the_same_either_way(a in offers(), b in offers()) {
        let both = a.narrowed_by(&b);
        prop_assert!(both.is_within(&a) && both.is_within(&b));
        prop_assert_eq!(&both, &b.narrowed_by(&a));
        prop_assert_eq!(a.is_within(&b) && b.is_within(&a), a == b);
    }
}
