//! Any body posted as an installer's report is read or refused; what is read can be shown.

#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use undercroft_netboot::BootTable;
use undercroft_netboot::http::parse_report;
use undercroft_netboot::http::report::{ReportRules, check_report};
use undercroft_netboot::token::TokenKey;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = parse_report(bytes) {
        assert_eq!(report.nonce.len(), 32);
        assert!(!report.host_key.starts_with('-'));
        assert!(!report.host_key.chars().any(char::is_control));
        // Without the key's token it is believed of nobody, whatever else it says.
        let rules = ReportRules {
            server: Ipv4Addr::new(10, 0, 0, 1),
            prefix_bits: 24,
            key: TokenKey([7; 32]),
        };
        let table = BootTable::default();
        assert!(check_report(&report, report.address, &table, &rules).is_err());
    }
});
