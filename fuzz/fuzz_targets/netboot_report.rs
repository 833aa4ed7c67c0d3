//! Any body posted as an installer's report is read or refused; what is read can be shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_netboot::http::parse_report;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = parse_report(bytes) {
        assert_eq!(report.nonce.len(), 32);
        assert!(!report.host_key.starts_with('-'));
        assert!(!report.host_key.chars().any(char::is_control));
    }
});
