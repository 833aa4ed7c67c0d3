//! Any text is a boot's token or none; what is one prints as itself, is nobody's without the key,
//! and has a word that can be shown.

#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use undercroft_netboot::token::{Subject, Token, TokenKey, word_of};

fuzz_target!(|text: &str| {
    let plain = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    assert!(plain(&word_of(text)), "{}", word_of(text));
    let Some(token) = Token::parse(text) else { return };
    let shown = token.to_string();
    assert_eq!(shown, text.to_ascii_lowercase());
    assert_eq!(Token::parse(&shown).as_ref(), Some(&token));
    assert!(!TokenKey([7; 32]).is_mine(&token, &Subject::Nobody));
    let own = TokenKey([7; 32]).mint(&Subject::Nobody, Ipv4Addr::LOCALHOST, u64::from(token.at_s));
    let Ok(own) = own else { return };
    assert!(TokenKey([7; 32]).is_mine(&own, &Subject::Nobody));
    assert!(!TokenKey([8; 32]).is_mine(&own, &Subject::Nobody));
});
