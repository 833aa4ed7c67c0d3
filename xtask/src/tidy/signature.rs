//! What whoever uses a public thing may meet: the words of parameters, of what is given back, of fields, of variants.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::tokens::{ident, is_punct, visibility};

/// What one `impl` adds to its type.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Impl {
    /// The functions and constants that are for everyone.
    pub(crate) members: BTreeSet<String>,
    /// The words of their signatures, of the trait, and of the types that it sets.
    pub(crate) signature: BTreeSet<String>,
}

/// The words of an item's signature, from the tokens behind its name. `kind` is the word that began it. What a macro
/// makes of fields can't be seen, and may be for everyone.
pub(crate) fn of(kind: &str, behind: &[TokenTree], is_in_macro: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for token in behind {
        let is_body = matches!(token, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace);
        match (token, kind) {
            (_, "fn" | "const" | "static") if is_body => break,
            (token, "const" | "static") if is_punct(Some(token), '=') => break,
            (token, _) if is_punct(Some(token), ';') => break,
            (TokenTree::Group(group), "struct" | "union") if !is_in_macro => {
                fields(group.stream(), &mut found);
            }
            (TokenTree::Group(group), _) => words(group.stream(), &mut found),
            (token, _) => found.extend(ident(token)),
        }
        if is_body {
            break;
        }
    }
    found
}

/// The words of the fields that are for everyone.
fn fields(group: TokenStream, found: &mut BTreeSet<String>) {
    let tokens: Vec<_> = group.into_iter().collect();
    let mut depth = 0_usize;
    let mut is_open = false;
    for (at, token) in tokens.iter().enumerate() {
        if is_punct(Some(token), '<') {
            depth += 1;
        } else if is_punct(Some(token), '>') {
            depth = depth.saturating_sub(1);
        } else if is_punct(Some(token), ',') && depth == 0 {
            is_open = false;
        } else if !limits(token) && visibility(tokens.get(..at).unwrap_or_default()) == Some(true) {
            is_open = true;
        }
        match token {
            TokenTree::Group(group) if is_open => words(group.stream(), found),
            token if is_open => found.extend(ident(token)),
            _ => {}
        }
    }
}

/// Whether a token limits a `pub` to some modules.
fn limits(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else {
        return false;
    };
    let first = group.stream().into_iter().next();
    let first = first.as_ref().and_then(ident);
    let words = ["crate", "super", "self", "in"];
    first.is_some_and(|word| words.contains(&word.as_str()))
}

/// All words of some tokens, without attributes.
fn words(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let mut is_attribute = false;
    for token in tokens {
        match &token {
            TokenTree::Group(group) if !is_attribute => words(group.stream(), found),
            token => found.extend(ident(token)),
        }
        is_attribute = is_punct(Some(&token), '#');
    }
}

/// What an `impl` adds, and to which type, from the tokens behind `impl` on.
pub(crate) fn of_impl(tokens: &[TokenTree]) -> Option<(String, Impl)> {
    let (body, header) = tokens
        .iter()
        .enumerate()
        .find_map(|(at, token)| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                Some((group.stream(), tokens.get(..at)?))
            }
            _ => None,
        })?;
    let mut found = Impl::default();
    let header = without_generics(header);
    let mut names = header.split(|token| ident(token).is_some_and(|word| word == "for"));
    let first = names.next()?;
    let of = match names.next().filter(|_| !first.is_empty()) {
        Some(of) => {
            found.signature.extend(first.iter().filter_map(ident));
            of
        }
        None => first,
    };
    let body: Vec<_> = body.into_iter().collect();
    for (at, token) in body.iter().enumerate() {
        let (Some(kind), Some(name)) = (ident(token), body.get(at + 1).and_then(ident)) else {
            continue;
        };
        let is_open = visibility(body.get(..at).unwrap_or_default()) == Some(true);
        match kind.as_str() {
            "fn" | "const" if is_open && name != "fn" => {
                let behind = body.get(at + 2..).unwrap_or_default();
                found.signature.append(&mut self::of(&kind, behind, false));
                found.members.insert(name);
            }
            "type" => {
                let behind = body.get(at + 2..).unwrap_or_default();
                found.signature.append(&mut self::of(&kind, behind, false));
            }
            _ => {}
        }
    }
    Some((type_name(of)?, found))
}

/// The tokens behind the generics that an `impl` begins with.
fn without_generics(tokens: &[TokenTree]) -> &[TokenTree] {
    if !is_punct(tokens.first(), '<') {
        return tokens;
    }
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        let is_arrow = at > 0 && is_punct(tokens.get(at - 1), '-');
        if is_punct(Some(token), '<') {
            depth += 1;
        } else if is_punct(Some(token), '>') && !is_arrow {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return tokens.get(at + 1..).unwrap_or_default();
            }
        }
    }
    tokens
}

/// The last name of the path that some tokens begin with.
fn type_name(tokens: &[TokenTree]) -> Option<String> {
    let at = tokens.iter().position(|token| ident(token).is_some())?;
    let (mut name, mut rest) = (tokens.get(at).and_then(ident)?, tokens.get(at + 1..)?);
    while is_punct(rest.first(), ':') && is_punct(rest.get(1), ':') {
        name = rest.get(2).and_then(ident)?;
        rest = rest.get(3..)?;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<TokenTree> {
        text.parse::<TokenStream>().unwrap().into_iter().collect()
    }

    fn shown(found: &BTreeSet<String>) -> String {
        found.iter().cloned().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_signature_is_what_a_user_meets() {
        for (kind, text, expected) in [
            (
                "fn",
                "(a: &A, b: [B; 2]) -> Result<C, D> where E: F { G }",
                "A B C D E F Result a b where",
            ),
            (
                "struct",
                "{ pub a: M<A, B>, b: C, pub(crate) d: D, pub e: E }",
                "A B E M a e",
            ),
            ("struct", "(pub A, B);", "A"),
            ("enum", "{ #[error(x)] A(B), C { d: D } }", "A B C D d"),
            ("const", ": A = B;", "A"),
            ("type", "= A<B>;", "A B"),
        ] {
            assert_eq!(shown(&of(kind, &tokens(text), false)), expected, "{kind}");
        }
    }

    #[test]
    fn an_impl_adds_to_its_type() {
        let text = "<F: Fn() -> X> a::b::T<F> where F: Y { pub const C: A = 1; pub const fn f(&self) -> B { C }
                    pub(crate) fn g() {} fn h() {} }";
        let (of, found) = of_impl(&tokens(text)).unwrap();
        assert_eq!(
            (of.as_str(), shown(&found.members)),
            ("T", "C f".to_owned())
        );
        assert_eq!(shown(&found.signature), "A B self");
        let (of, found) = of_impl(&tokens("From<A> for T { type E = B; fn x(c: C) {} }")).unwrap();
        assert_eq!((of.as_str(), shown(&found.members)), ("T", String::new()));
        assert_eq!(shown(&found.signature), "A B From");
    }
}
