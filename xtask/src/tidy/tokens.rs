//! Rust's tokens, a few at a time.

use proc_macro2::{Delimiter, TokenTree};

/// How visible what follows is: not at all beyond its module, within the crate (false), or everywhere (true). Words such
/// as `const` and `async` may stand between.
pub(crate) fn visibility(before: &[TokenTree]) -> Option<bool> {
    let mut is_everywhere = true;
    for token in before.iter().rev() {
        match token {
            TokenTree::Ident(word) if word == "pub" => return Some(is_everywhere),
            TokenTree::Ident(word) if word == "const" || word == "async" => {}
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
                is_everywhere = false;
            }
            _ => return None,
        }
    }
    None
}

/// The word that a token is.
pub(crate) fn ident(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    }
}

/// Whether a token is a sign.
pub(crate) fn is_punct(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == sign)
}
