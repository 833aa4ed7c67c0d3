//! Any bytes are the description of a build or none; what is read is written as it was meant, and names nothing that
//! leads out of the store.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_lend::build::{Build, in_store, is_store_name};

fuzz_target!(|bytes: &[u8]| {
    let Ok(build) = Build::read(bytes) else {
        return;
    };
    assert!(in_store(&build.builder).is_some());
    assert!(build.paths.keys().chain(build.outputs.values()).all(|name| is_store_name(name)));
    assert_eq!(Build::read(&build.write()), Ok(build));
});
