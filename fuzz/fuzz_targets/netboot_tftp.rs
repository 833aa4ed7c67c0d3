//! Any packets of a TFTP client are read or refused, and never make a transfer send what isn't
//! in the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_netboot::tftp::{ClientPacket, ReadRequest, Step, Transfer, parse};

fuzz_target!(|bytes: &[u8]| {
    // The first packet may be a request; each of the others follows the length of its own.
    let (first, mut rest) = bytes.split_at(bytes.len().min(64));
    let request = match parse(first) {
        Ok(ClientPacket::Read(request)) => request,
        _ => ReadRequest::default(),
    };
    let mut transfer = Transfer::new(&request, 100_000);
    transfer.start();
    while let [len, tail @ ..] = rest {
        let (packet, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        let step = match parse(packet) {
            Ok(packet) => transfer.receive(&packet),
            Err(_) => transfer.timed_out(),
        };
        match step {
            Step::SendBlocks { first, count } => {
                assert!(first >= 1 && (1..=64).contains(&count));
                assert!(first + count - 1 <= transfer.last_block());
            }
            Step::Done | Step::Abort(_) => return,
            Step::SendOptions(_) | Step::Wait => {}
        }
    }
});
