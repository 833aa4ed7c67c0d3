//! What an installer says on the serial console: its identity.
//!
//! The console of a rack's machine reaches the supervisor through a socket that only the rack's
//! owner can open, so what is read here is confirmed by a channel that nobody on the boot network
//! can write to. The bytes themselves are a guest's, and anything at all.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What the installer's line begins with.
pub const IDENTITY_MARKER: &str = "undercroft-installer: fingerprint ";
/// How much of a line is kept, in bytes: firmware draws whole screens without a line's end.
pub const LINE_BYTES_MAX: usize = 1024;

/// Characters of an unpadded base64 SHA-256, as OpenSSH prints it after `SHA256:`.
const FINGERPRINT_CHARS: usize = 43;
/// Hexadecimal digits of a nonce.
const NONCE_CHARS: usize = 32;

/// An installer's identity, as its console shows it:
/// `undercroft-installer: fingerprint SHA256:… nonce … boot-id … address …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ConsoleIdentity {
    /// The host key's fingerprint as OpenSSH prints it: `SHA256:` and 43 characters.
    pub fingerprint: String,
    /// 32 lower-case hexadecimal digits, made anew at each boot.
    pub nonce: String,
    /// The kernel's boot id of this boot.
    pub boot_id: String,
    /// Where the installer's SSH server listens.
    pub address: IpAddr,
    /// The word of the boot script that this boot came from.
    #[serde(default)]
    pub word: Option<String>,
}

impl std::fmt::Display for ConsoleIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            fingerprint,
            nonce,
            boot_id,
            address,
            word,
        } = self;
        write!(
            f,
            "{IDENTITY_MARKER}{fingerprint} nonce {nonce} boot-id {boot_id} address {address}"
        )?;
        match word {
            Some(word) => write!(f, " word {word}"),
            None => Ok(()),
        }
    }
}

/// Reads an identity out of one line of console output, wherever in the line it begins.
///
/// A line that the kernel wrote into the middle of gives `None`: the installer repeats its line.
pub fn parse_identity(line: &[u8]) -> Option<ConsoleIdentity> {
    let marker = IDENTITY_MARKER.as_bytes();
    let start = line
        .windows(marker.len())
        .rposition(|window| window == marker)?;
    let rest = line.get(start + marker.len()..)?;
    let rest = std::str::from_utf8(rest).ok()?;
    let mut words = rest.split_ascii_whitespace();
    let fingerprint = words.next().filter(|word| is_fingerprint(word))?;
    words.next().filter(|word| *word == "nonce")?;
    let nonce = words.next().filter(|word| is_nonce(word))?;
    words.next().filter(|word| *word == "boot-id")?;
    let boot_id = words.next().filter(|word| is_boot_id(word))?;
    words.next().filter(|word| *word == "address")?;
    let address = words.next()?.parse().ok()?;
    let word = match words.next() {
        Some("word") => words.next().filter(|word| is_word(word)),
        _ => None,
    };
    Some(ConsoleIdentity {
        fingerprint: fingerprint.into(),
        nonce: nonce.into(),
        boot_id: boot_id.into(),
        address,
        word: word.filter(|word| *word != "none").map(str::to_owned),
    })
}

/// The characters of a boot script's word at most.
const WORD_CHARS_MAX: usize = 32;

fn is_word(word: &str) -> bool {
    word.len() <= WORD_CHARS_MAX && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

fn is_fingerprint(word: &str) -> bool {
    word.strip_prefix("SHA256:").is_some_and(|digest| {
        digest.len() == FINGERPRINT_CHARS
            && digest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
    })
}

fn is_nonce(word: &str) -> bool {
    word.len() == NONCE_CHARS && word.bytes().all(is_lower_hex)
}

fn is_boot_id(word: &str) -> bool {
    word.len() == 36
        && word.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => is_lower_hex(b),
        })
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// Finds the latest identity in a stream of console output that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct ConsoleScanner {
    line: Vec<u8>,
    identity: Option<ConsoleIdentity>,
}

impl ConsoleScanner {
    /// A scanner at the start of a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of output, of any length.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            match piece.split_last() {
                Some((b'\n' | b'\r', text)) => {
                    self.extend(text);
                    if let Some(identity) = parse_identity(&self.line) {
                        self.identity = Some(identity);
                    }
                    self.line.clear();
                }
                _ => self.extend(piece),
            }
        }
    }

    fn extend(&mut self, text: &[u8]) {
        // The end of an overlong line is what is kept, since an identity may follow a screen
        // that the firmware drew without a line's end.
        let keep_from = text.len().saturating_sub(LINE_BYTES_MAX);
        let text = text.get(keep_from..).unwrap_or_default();
        let excess = (self.line.len() + text.len()).saturating_sub(LINE_BYTES_MAX);
        self.line.drain(..excess.min(self.line.len()));
        self.line.extend_from_slice(text);
    }

    /// The latest identity since the scanner was made or reset.
    pub fn identity(&self) -> Option<&ConsoleIdentity> {
        self.identity.as_ref()
    }

    /// Forgets everything: the machine was launched anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = "undercroft-installer: fingerprint \
        SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU nonce 00112233445566778899aabbccddeeff \
        boot-id 9be33fce-43a5-4a8c-873a-b71f7dd52e89 address 10.88.0.11";

    #[test]
    fn the_line_is_found_behind_noise_and_in_pieces() {
        let expected = parse_identity(LINE.as_bytes()).unwrap();
        assert_eq!(expected.to_string(), LINE);
        let mut scanner = ConsoleScanner::new();
        let stream = format!("\x1b[2J{}\x1b[0m{LINE}\r\nlogin: ", "x".repeat(5000));
        for piece in stream.as_bytes().chunks(7) {
            scanner.feed(piece);
        }
        assert_eq!(scanner.identity(), Some(&expected));
        scanner.reset();
        assert_eq!(scanner.identity(), None);
    }

    #[test]
    fn a_line_without_its_end_or_cut_into_is_not_an_identity() {
        let mut scanner = ConsoleScanner::new();
        scanner.feed(LINE.as_bytes());
        assert_eq!(scanner.identity(), None, "the address may go on");
        for broken in [
            LINE.replace("SHA256:4", "SHA256:"),
            LINE.replace("nonce ", "nonce [    2.1] eth0: link up "),
            LINE.replace("10.88.0.11", "10.88.0.999"),
            LINE.replace("9be33fce-", "9be33fce"),
            LINE.replace("00112233", "0011223G"),
        ] {
            assert_eq!(parse_identity(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn the_latest_identity_wins() {
        let mut scanner = ConsoleScanner::new();
        let second = LINE.replace("10.88.0.11", "10.88.0.12");
        scanner.feed(format!("{LINE}\n{second}\n{IDENTITY_MARKER}nonsense\n").as_bytes());
        assert_eq!(
            scanner.identity().unwrap().address.to_string(),
            "10.88.0.12"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_and_pieces_do_not_matter(
            bytes in proptest::collection::vec(any::<u8>(), 0..4000),
            at in 0usize..4000,
        ) {
            let mut whole = ConsoleScanner::new();
            whole.feed(&bytes);
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            let mut parts = ConsoleScanner::new();
            parts.feed(head);
            parts.feed(tail);
            prop_assert_eq!(whole.identity(), parts.identity());
            prop_assert!(whole.line.len() <= LINE_BYTES_MAX);
        }

        #[test]
        fn what_is_printed_is_read_back(
            digest in "[A-Za-z0-9+/]{43}", nonce in "[0-9a-f]{32}",
            boot_id in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", address in any::<IpAddr>(),
            word in proptest::option::of("[a-z]{5}-[a-z]{5}"),
        ) {
            let identity =
                ConsoleIdentity { fingerprint: format!("SHA256:{digest}"), nonce, boot_id, address, word };
            prop_assert_eq!(parse_identity(identity.to_string().as_bytes()), Some(identity));
        }
    }
}
