//! Any bytes are a file of secrets or an error; what is read is written, and read as the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_sops::{Encrypted, parse_plain, to_plain};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tree) = parse_plain(bytes) {
        let text = to_plain(&tree);
        let again = parse_plain(text.as_bytes()).expect("what was written is read");
        assert_eq!(again.names(), tree.names());
    }
    if let Ok(file) = Encrypted::parse(bytes) {
        let again = Encrypted::parse(file.write().as_bytes()).expect("what was written is read");
        assert_eq!(again.names(), file.names());
        assert_eq!(again.recipients(), file.recipients());
        assert_eq!(again.plain_names(), file.plain_names());
        assert!(file.open(&[]).is_err());
    }
});
