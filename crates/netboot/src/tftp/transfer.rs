//! One transfer, as a state machine that reads no clock and touches no socket.

use crate::tftp::packet::{ClientPacket, ReadRequest, option_ack};
use crate::tftp::{
    DEFAULT_BLOCK_BYTES, DEFAULT_TIMEOUT_MS, MAX_BLOCK_BYTES, MAX_RETRIES, MAX_TIMEOUT_S,
    MAX_WINDOW_BLOCKS,
};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this option acknowledgement, and wait for block 0's acknowledgement.
    SendOptions(Vec<u8>),
    /// Send blocks, and wait.
    SendBlocks {
        /// The first block's number; the file's first block is 1.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Go on waiting, until the same time as before.
    Wait,
    /// The client has everything.
    Done,
    /// The transfer is over before its end.
    Abort(String),
}

/// One transfer of a file of known size.
///
/// Blocks are counted from 1 without rolling over; only the packets carry 16 bits.
#[derive(Debug, Clone)]
pub struct Transfer {
    file_bytes: u64,
    block_bytes: u64,
    window_blocks: u64,
    timeout_ms: u64,
    options: Option<Vec<u8>>,
    /// All blocks up to this one are acknowledged.
    acked: u64,
    /// All blocks up to this one have been sent at least once.
    sent: u64,
    /// A gap behind `acked` has been answered by sending again; more acknowledgements of the same
    /// block are echoes of the same gap.
    gap_answered: bool,
    retries: u32,
}

impl Transfer {
    /// Agrees to a request's options, as far as the limits allow.
    pub fn new(request: &ReadRequest, file_bytes: u64) -> Self {
        Self::with_largest_block(request, file_bytes, MAX_BLOCK_BYTES as u64)
    }

    /// The same with another limit of the block size, in bytes, as a machine's class may set one.
    pub fn with_largest_block(
        request: &ReadRequest,
        file_bytes: u64,
        max_block_bytes: u64,
    ) -> Self {
        let mut options = Vec::new();
        let block_bytes = match request.block_bytes {
            Some(asked) => {
                // RFC 2348 allows 8 to 65464.
                let agreed = asked.min(max_block_bytes.clamp(8, 65_464));
                options.push(("blksize", agreed));
                agreed
            }
            None => DEFAULT_BLOCK_BYTES as u64,
        };
        let timeout_ms = match request.timeout_s.filter(|asked| *asked <= MAX_TIMEOUT_S) {
            Some(asked) => {
                options.push(("timeout", asked));
                asked.saturating_mul(1000)
            }
            None => DEFAULT_TIMEOUT_MS,
        };
        if request.wants_size {
            options.push(("tsize", file_bytes));
        }
        let window_blocks = match request.window_blocks {
            Some(asked) => {
                let agreed = asked.min(u64::from(MAX_WINDOW_BLOCKS));
                options.push(("windowsize", agreed));
                agreed
            }
            None => 1,
        };
        Self {
            file_bytes,
            block_bytes,
            window_blocks,
            timeout_ms,
            options: (!options.is_empty()).then(|| option_ack(&options)),
            acked: 0,
            sent: 0,
            gap_answered: false,
            retries: 0,
        }
    }

    /// The block size, in bytes.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// The window, in blocks.
    pub fn window_blocks(&self) -> u64 {
        self.window_blocks
    }

    /// How long to wait for an acknowledgement, in milliseconds: longer after each try.
    pub fn timeout_ms(&self) -> u64 {
        self.timeout_ms.saturating_mul(1 << self.retries.min(3))
    }

    /// The bytes that the client has acknowledged.
    pub fn acked_bytes(&self) -> u64 {
        self.acked
            .saturating_mul(self.block_bytes)
            .min(self.file_bytes)
    }

    /// The number of the last block, which is shorter than the others, and may be empty.
    pub fn last_block(&self) -> u64 {
        self.file_bytes / self.block_bytes + 1
    }

    /// The first thing to send.
    pub fn start(&mut self) -> Step {
        match &self.options {
            Some(packet) => Step::SendOptions(packet.clone()),
            None => self.next_window(),
        }
    }

    /// Takes in what the client sent.
    pub fn receive(&mut self, packet: &ClientPacket) -> Step {
        match packet {
            ClientPacket::Ack(number) => self.ack(*number),
            ClientPacket::Error { code, message } => {
                Step::Abort(format!("the client ended it: error {code}: {message}"))
            }
            // A repeated request shows that the client has not seen our first packet; the time
            // limit sends it again.
            ClientPacket::Read(_) | ClientPacket::ReadOtherMode(_) | ClientPacket::Write(_) => {
                Step::Wait
            }
        }
    }

    fn ack(&mut self, number: u16) -> Step {
        // The block that a 16-bit number stands for is the one between `acked` and `sent`; a
        // window is far shorter than 65,536 blocks, so there is at most one.
        let [.., high, low] = self.acked.to_be_bytes();
        let ahead = u64::from(number.wrapping_sub(u16::from_be_bytes([high, low])));
        let block = self.acked.saturating_add(ahead);
        if block > self.sent {
            return Step::Wait;
        }
        if self.options.is_some() && self.sent == 0 {
            // Block 0 acknowledges the options.
            self.options = None;
            self.retries = 0;
            return self.next_window();
        }
        if ahead == 0 {
            // The block before the window again. With a window of one this is a delayed copy, and
            // answering it would send every block twice from here on (RFC 1123, section
            // 4.2.3.1). With a larger one the first block was lost (RFC 7440, section 4).
            if self.window_blocks == 1 || self.gap_answered || self.sent == self.acked {
                return Step::Wait;
            }
            self.gap_answered = true;
            return self.next_window();
        }
        self.acked = block;
        self.retries = 0;
        self.gap_answered = false;
        if self.acked >= self.last_block() {
            return Step::Done;
        }
        self.next_window()
    }

    fn next_window(&mut self) -> Step {
        let first = self.acked + 1;
        let count = self.window_blocks.min(self.last_block() - self.acked);
        self.sent = self.sent.max(self.acked + count);
        Step::SendBlocks { first, count }
    }

    /// The same request has come once more: the client has not seen the first packet.
    pub fn again(&mut self) -> Step {
        match &self.options {
            Some(packet) => Step::SendOptions(packet.clone()),
            None if self.acked == 0 => self.next_window(),
            None => Step::Wait,
        }
    }

    /// The time limit has passed without anything from the client.
    pub fn timed_out(&mut self) -> Step {
        if self.retries >= MAX_RETRIES {
            return Step::Abort(format!(
                "no acknowledgement of block {} after {MAX_RETRIES} retries",
                self.acked + 1
            ));
        }
        self.retries += 1;
        self.gap_answered = false;
        match &self.options {
            Some(packet) => Step::SendOptions(packet.clone()),
            None => self.next_window(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(block: u64, window: u64) -> ReadRequest {
        ReadRequest {
            block_bytes: Some(block),
            window_blocks: Some(window),
            ..ReadRequest::default()
        }
    }

    #[test]
    fn only_the_options_that_were_asked_for_are_acknowledged() {
        let mut plain = Transfer::new(&ReadRequest::default(), 100);
        assert_eq!(plain.start(), Step::SendBlocks { first: 1, count: 1 });
        let mut some = Transfer::new(
            &ReadRequest {
                block_bytes: Some(9000),
                wants_size: true,
                ..ReadRequest::default()
            },
            100,
        );
        assert_eq!(
            some.start(),
            Step::SendOptions(b"\0\x06blksize\x001468\0tsize\x00100\0".to_vec())
        );
    }

    #[test]
    fn a_file_that_fills_its_last_block_ends_with_an_empty_one() {
        let mut transfer = Transfer::new(&ReadRequest::default(), 1024);
        assert_eq!(transfer.start(), Step::SendBlocks { first: 1, count: 1 });
        assert_eq!(
            transfer.receive(&ClientPacket::Ack(1)),
            Step::SendBlocks { first: 2, count: 1 }
        );
        assert_eq!(
            transfer.receive(&ClientPacket::Ack(2)),
            Step::SendBlocks { first: 3, count: 1 }
        );
        assert_eq!(transfer.receive(&ClientPacket::Ack(3)), Step::Done);
    }

    #[test]
    fn a_delayed_copy_of_an_acknowledgement_is_not_answered() {
        let mut transfer = Transfer::new(&ReadRequest::default(), 5000);
        transfer.start();
        transfer.receive(&ClientPacket::Ack(1));
        assert_eq!(transfer.receive(&ClientPacket::Ack(1)), Step::Wait);
        assert_eq!(transfer.receive(&ClientPacket::Ack(0)), Step::Wait);
        assert_eq!(transfer.receive(&ClientPacket::Ack(7)), Step::Wait);
    }

    #[test]
    fn a_gap_in_a_window_is_filled_once() {
        let mut transfer = Transfer::new(&request(512, 4), 512 * 100);
        transfer.start();
        assert_eq!(
            transfer.receive(&ClientPacket::Ack(0)),
            Step::SendBlocks { first: 1, count: 4 }
        );
        assert_eq!(
            transfer.receive(&ClientPacket::Ack(2)),
            Step::SendBlocks { first: 3, count: 4 }
        );
        assert_eq!(
            transfer.receive(&ClientPacket::Ack(2)),
            Step::SendBlocks { first: 3, count: 4 }
        );
        assert_eq!(transfer.receive(&ClientPacket::Ack(2)), Step::Wait);
    }

    #[test]
    fn silence_ends_a_transfer() {
        let mut transfer = Transfer::new(&ReadRequest::default(), 100);
        let mut waited_ms = 0;
        transfer.start();
        let reason = loop {
            waited_ms += transfer.timeout_ms();
            match transfer.timed_out() {
                Step::Abort(reason) => break reason,
                step => assert_eq!(step, Step::SendBlocks { first: 1, count: 1 }),
            }
        };
        insta::assert_snapshot!(format!("{reason}, {waited_ms} ms"), @"no acknowledgement of block 1 after 5 retries, 31000 ms");
    }

    #[test]
    fn numbers_roll_over_to_zero() {
        let blocks = 70_000;
        let mut transfer = Transfer::new(&request(8, 64), 8 * blocks);
        transfer.start();
        let mut step = transfer.receive(&ClientPacket::Ack(0));
        let mut seen = 0;
        while let Step::SendBlocks { first, count } = step {
            assert_eq!(first, seen + 1);
            seen += count;
            step = transfer.receive(&ClientPacket::Ack((seen & 0xffff) as u16));
        }
        assert_eq!((step, seen), (Step::Done, blocks + 1));
    }

    proptest! {
        /// A client that loses packets at will still gets the whole file, in order, and the
        /// transfer ends.
        #[test]
        fn a_lossy_path_delivers_everything(
            file in 0u64..40_000, block in 8u64..2000, window in 1u64..70,
            losses in prop::collection::vec(any::<bool>(), 300)
        ) {
            let mut transfer = Transfer::new(&request(block, window), file);
            let mut losses = losses.into_iter();
            // Losses end, as the client would give up otherwise.
            let mut lost = || losses.next().unwrap_or(false);
            let mut got = 0u64;
            let mut step = transfer.start();
            let mut rounds = 0;
            loop {
                rounds += 1;
                prop_assert!(rounds < 50_000, "no end in sight");
                let ack = match step {
                    Step::SendOptions(_) => (!lost()).then_some(0),
                    Step::SendBlocks { first, count } => {
                        prop_assert!(first + count - 1 <= transfer.last_block());
                        let mut heard = false;
                        for n in first..first + count {
                            if lost() { continue; }
                            heard = true;
                            if n == got + 1 { got = n; }
                        }
                        heard.then_some(got)
                    }
                    Step::Wait => None,
                    Step::Done => break,
                    Step::Abort(_) => return Ok(()),
                };
                step = match ack {
                    Some(block) if !lost() => transfer.receive(&ClientPacket::Ack((block & 0xffff) as u16)),
                    _ => transfer.timed_out(),
                };
            }
            prop_assert_eq!(got, transfer.last_block());
        }

        /// No sequence of packets makes it send what isn't there.
        #[test]
        fn acknowledgements_out_of_nowhere_do_no_harm(
            file in 0u64..100_000, window in 1u64..70, acks in prop::collection::vec(any::<u16>(), 0..200)
        ) {
            let mut transfer = Transfer::new(&request(512, window), file);
            transfer.start();
            for number in acks {
                match transfer.receive(&ClientPacket::Ack(number)) {
                    Step::SendBlocks { first, count } => {
                        prop_assert!((1..=64).contains(&count));
                        prop_assert!(first + count - 1 <= transfer.last_block());
                    }
                    Step::Done => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}
