//! The flash image in which a machine's firmware keeps its variables, written by the guest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_model::MacAddr;
use undercroft_rack::VariableStore;

fuzz_target!(|data: &[u8]| {
    if let Some(store) = VariableStore::parse(data) {
        let _ = store.boot_order();
        let _ = store.boot_next();
        let _ = store.pxe_entry(MacAddr([0x52, 0x54, 0, 0, 0, 1]));
    }
});
