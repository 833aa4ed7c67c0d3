//! Text that came from outside, made fit to be shown.
//!
//! Machines, networks and repositories name things. Characters that move a cursor, change the order or the
//! direction of what is shown, or aren't seen at all would let such a name look like another, or like a
//! line of ours. There is one rule of which these are, and each way out of the program uses it: for people
//! they are written as `\u{202e}`, in JSON as `\u202e`, which is the same data.

/// Whether a character steers a terminal, changes the order of others, or isn't seen.
///
/// These are the control characters (C0, DEL, C1), the line and paragraph separators, Unicode's
/// `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt: bidirectional controls, zero-width
/// characters, joiners, fillers, variation selectors, tags and what is reserved for such), the anchors of
/// interlinear annotation, and the noncharacters of the basic plane. The line break is one of them; who shows
/// text of several lines keeps it.
pub fn is_unseen(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text of one line or several: all unseen characters but line breaks and tabs are written out.
pub fn visible(text: &str) -> String {
    written_out(text, |c| c != '\n' && c != '\t' && is_unseen(c))
}

/// A text of one line: line breaks and tabs are written out too.
pub fn visible_line(text: &str) -> String {
    written_out(text, is_unseen)
}

fn written_out(text: &str, is: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON in which the unseen characters of its texts are escapes: the same data, fit for a terminal.
///
/// Outside its texts JSON has no other such characters than line breaks, which stay.
pub fn json_escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || c == '\t' || c == '\r' || !is_unseen(c) {
            out.push(c);
            continue;
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One of each kind.
    const UNSEEN: &str = "\0\u{1b}\r\u{7f}\u{85}\u{9b}\u{ad}\u{61c}\u{200b}\u{200d}\u{200e}\u{2028}\u{2029}\u{202e}\u{2066}\u{2069}\u{feff}\u{fe0f}\u{fff9}\u{e0041}\u{e0100}";

    #[test]
    fn each_kind_is_known_and_what_people_write_is_left_alone() {
        for c in UNSEEN.chars() {
            assert!(is_unseen(c), "{c:?}");
        }
        let written = "Größe 12 µm, 東京, Ελλάδα, עברית, العربية, naïve — “x” … ✓ 🦀";
        assert_eq!(visible_line(written), written);
        assert_eq!(json_escaped(written), written);
    }

    #[test]
    fn lines_stay_lines_where_they_may() {
        assert_eq!(
            visible("a\n\tb\u{202e}c\u{1b}[2J"),
            "a\n\tb\\u{202e}c\\u{1b}[2J"
        );
        assert_eq!(visible_line("a\n\tb"), "a\\u{a}\\u{9}b");
    }

    proptest! {
        #[test]
        fn json_stays_the_same_data(text in "\\PC*|.*") {
            let text = format!("{text}{UNSEEN}");
            let json = serde_json::to_string_pretty(&[&text, &text]).unwrap();
            let escaped = json_escaped(&json);
            prop_assert!(!escaped.chars().any(|c| c != '\n' && is_unseen(c)));
            let read: Vec<String> = serde_json::from_str(&escaped).unwrap();
            prop_assert_eq!(read, vec![text.clone(), text]);
        }

        #[test]
        fn nothing_unseen_is_left(text in ".*") {
            let text = format!("{text}{UNSEEN}");
            prop_assert!(!visible_line(&text).chars().any(is_unseen));
        }
    }
}
