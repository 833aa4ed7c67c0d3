//! Any request head is read, awaited or refused, and its ranges lie within the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_netboot::http::head::Part;
use undercroft_netboot::http::parse_head;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(head)) = parse_head(bytes) else { return };
    assert!(head.path.starts_with('/') && head.head_bytes <= bytes.len());
    for file_bytes in [0, 1, 1000] {
        if let Some(Part::Slice { offset, bytes }) = head.range.map(|range| range.of(file_bytes)) {
            assert!(bytes > 0 && offset + bytes <= file_bytes);
        }
    }
});
