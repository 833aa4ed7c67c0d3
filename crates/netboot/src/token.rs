//! Tokens of boot scripts: what ties an installer's report to a script that was served.
//!
//! Each script that loads an installer carries a token of its own on the kernel's command line, and
//! the installer sends it back. A token is no secret, and proves nothing of who sends it: whoever
//! asks for a machine's script is given one. It says that the report's sender, or somebody whom it
//! listened to, has asked for that machine's script, when, and from which address. It is checked
//! without anything being remembered, so that no flood of requests can push out a machine's own.
//!
//! People see a token as its word, on the machine's screen and where they approve it.

use std::{fmt, io::Read as _, net::Ipv4Addr};

use sha2::{Digest as _, Sha256};

/// The bytes of a token: a nonce, who asked, when (seconds since 1970-01-01 UTC), a tag.
const BYTES: usize = NONCE_BYTES + 4 + 4 + TAG_BYTES;
/// The bytes that make a token its script's own.
const NONCE_BYTES: usize = 8;
/// The bytes that only the holder of the key can make: to guess them takes 2^63 reports.
const TAG_BYTES: usize = 8;
/// The consonants and vowels of words, four and two bits each.
///
/// Source: D. S. Wilkerson, "A Proposal for Proquints: Identifiers that are Readable, Spellable,
/// and Pronounceable" (2009), arXiv 0901.4016.
const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 4] = b"aiou";

/// The key that tokens are made and checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey(pub [u8; 32]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> std::io::Result<Self> {
        let mut key = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self(key))
    }

    /// The tag of a token's head for a subject. The hash is cut short, so that nothing can be
    /// appended to what was hashed.
    fn tag(&self, head: &[u8], subject: &Subject<'_>) -> [u8; TAG_BYTES] {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(head);
        hasher.update(subject.to_string());
        let mut tag = [0; TAG_BYTES];
        for (to, from) in tag.iter_mut().zip(hasher.finalize()) {
            *to = from;
        }
        tag
    }

    /// A token for a script.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn mint(
        &self,
        subject: &Subject<'_>,
        asker: Ipv4Addr,
        at_ms: u64,
    ) -> std::io::Result<Token> {
        let mut nonce = [0; NONCE_BYTES];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut nonce)?;
        let at_s = u32::try_from(at_ms / 1000).unwrap_or(u32::MAX);
        let mut bytes = nonce.to_vec();
        bytes.extend(asker.octets());
        bytes.extend(at_s.to_be_bytes());
        let tag = self.tag(&bytes, subject);
        bytes.extend(tag);
        Ok(Token { bytes, asker, at_s })
    }

    /// Whether the token was made with this key, for this subject.
    pub fn is_mine(&self, token: &Token, subject: &Subject<'_>) -> bool {
        token
            .bytes
            .split_at_checked(BYTES - TAG_BYTES)
            .is_some_and(|(head, tag)| self.tag(head, subject) == tag)
    }
}

/// Whose boot a token is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A machine of the table.
    Node(&'a undercroft_model::NodeName),
    /// A machine that the table doesn't know.
    Mac(undercroft_model::MacAddr),
    /// Whoever says nothing of itself.
    Nobody,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Mac(mac) => write!(f, "mac {mac}"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

/// A script's token. It prints as it stands on the kernel's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    bytes: Vec<u8>,
    /// The address that asked for the script.
    pub asker: Ipv4Addr,
    /// When, in seconds since 1970-01-01 UTC.
    pub at_s: u32,
}

impl Token {
    /// Reads a token; what it says counts only after [`TokenKey::is_mine`].
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != BYTES * 2 {
            return None;
        }
        let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let bytes: Vec<u8> = text
            .as_bytes()
            .chunks_exact(2)
            .map(digits)
            .collect::<Option<_>>()?;
        let four = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
        let asker = Ipv4Addr::from(four(NONCE_BYTES)?);
        let at_s = u32::from_be_bytes(four(NONCE_BYTES + 4)?);
        Some(Self { bytes, asker, at_s })
    }

    /// What people compare: two short words of 32 bits.
    pub fn word(&self) -> String {
        word_of(&self.to_string())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The word of a token as it was reported, whoever made it.
pub fn word_of(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    let mut words = digest.chunks_exact(2).take(2).map(|pair| {
        let bits = pair
            .iter()
            .fold(0_u16, |bits, byte| bits << 8 | u16::from(*byte));
        let letter = |shift: u16, from: &[u8]| {
            let place = usize::from(bits >> shift) % from.len().max(1);
            char::from(from.get(place).copied().unwrap_or(b'a'))
        };
        String::from_iter([
            letter(12, CONSONANTS),
            letter(10, VOWELS),
            letter(6, CONSONANTS),
            letter(4, VOWELS),
            letter(0, CONSONANTS),
        ])
    });
    let first = words.next().unwrap_or_default();
    format!("{first}-{}", words.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::{MacAddr, NodeName};

    const ASKER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn a_token_is_its_scripts_own_and_its_machines() {
        let key = TokenKey([7; 32]);
        let name = NodeName::new("gpu-01").unwrap();
        let subject = Subject::Node(&name);
        let token = key.mint(&subject, ASKER, 1_795_000_000_123).unwrap();
        let again = key.mint(&subject, ASKER, 1_795_000_000_123).unwrap();
        assert_ne!(token.to_string(), again.to_string());
        let read = Token::parse(&token.to_string()).unwrap();
        assert_eq!(read, token);
        assert_eq!((read.asker, read.at_s), (ASKER, 1_795_000_000));
        assert!(key.is_mine(&read, &subject));
        let other = NodeName::new("gpu-02").unwrap();
        assert!(!key.is_mine(&read, &Subject::Node(&other)));
        assert!(!key.is_mine(&read, &Subject::Mac(MacAddr([2, 0, 0, 0, 0, 1]))));
        assert!(!key.is_mine(&read, &Subject::Nobody));
        assert!(!TokenKey([8; 32]).is_mine(&read, &subject));
    }

    #[test]
    fn what_was_changed_anywhere_is_not_mine() {
        let key = TokenKey([7; 32]);
        let text = key.mint(&Subject::Nobody, ASKER, 0).unwrap().to_string();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            let token = Token::parse(&changed).unwrap();
            assert!(!key.is_mine(&token, &Subject::Nobody), "{at}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_read() {
        let long = "0".repeat(BYTES * 2 + 2);
        let odd = format!("+{}", "0".repeat(BYTES * 2 - 1));
        for text in ["", "00", "é", &long, &odd, &"g".repeat(BYTES * 2)] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }

    #[test]
    fn words_can_be_read_out() {
        insta::assert_snapshot!(word_of("00"), @"zajig-havif");
        assert_ne!(word_of("00"), word_of("01"));
    }
}
