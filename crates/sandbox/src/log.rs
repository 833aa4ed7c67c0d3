//! What a job has written: how much, and its end.

/// The bytes of the end that are kept.
pub(crate) const TAIL_BYTES: usize = 64 * 1024;

/// The end of a log of any length.
#[derive(Debug, Default)]
pub(crate) struct LogTail {
    bytes: Vec<u8>,
    seen: u64,
}

impl LogTail {
    /// Takes more in; the oldest that is too much is dropped.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.seen = self
            .seen
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.bytes.extend_from_slice(bytes);
        // Twice the room before it is cut, so that not every push moves the text.
        if self.bytes.len() > 2 * TAIL_BYTES {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let surplus = self.bytes.len().saturating_sub(TAIL_BYTES);
        self.bytes.drain(..surplus);
    }

    /// How much was written.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// The end, fit for a terminal.
    pub(crate) fn text(&self) -> String {
        let from = self.bytes.len().saturating_sub(TAIL_BYTES);
        let end = self.bytes.get(from..).unwrap_or_default();
        undercroft_process::printable(&String::from_utf8_lossy(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_much_is_kept() {
        let mut tail = LogTail::default();
        for _ in 0..100 {
            tail.push(&[b'a'; 8192]);
        }
        tail.push(b"\x1b[2Jend\n");
        assert_eq!(tail.seen(), 100 * 8192 + 8);
        let text = tail.text();
        assert!(
            text.len() <= TAIL_BYTES + 8 && text.ends_with("\\u{1b}[2Jend\n"),
            "{}",
            text.len()
        );
    }
}
