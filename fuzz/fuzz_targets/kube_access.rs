//! What a server shows as its administrator's kubeconfig, and what Helm prints: credentials and
//! objects, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use undercroft_kube as kube;
use undercroft_kube::Access;

fuzz_target!(|text: &str| {
    let _ = Access::of_kubeconfig(&SecretString::from(text));
    if let Ok(objects) = kube::parse("fuzz", text) {
        for object in objects {
            assert!(!object.kind().is_empty() && !object.name().is_empty());
        }
    }
});
