//! What a machine of the rack prints on its serial port, in pieces cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_rack::{ConsoleScanner, parse_identity};

fuzz_target!(|data: &[u8]| {
    let Some((&piece_bytes, output)) = data.split_first() else {
        return;
    };
    let mut whole = ConsoleScanner::new();
    whole.feed(output);
    let mut pieces = ConsoleScanner::new();
    for piece in output.chunks(usize::from(piece_bytes).max(1)) {
        pieces.feed(piece);
    }
    assert_eq!(whole.identity(), pieces.identity());
    if let Some(identity) = whole.identity() {
        assert_eq!(
            parse_identity(identity.to_string().as_bytes()).as_ref(),
            Some(identity)
        );
    }
});
