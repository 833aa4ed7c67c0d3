//! What is read is written again line by line, and each notation means what it does to SOPS.

use zeroize::Zeroizing;

use super::{read, write};
use crate::{Comment, Element, FILE_BYTES_MAX, MapEntry, SopsError, Value, parse_plain};

fn text_of(entries: &[MapEntry]) -> String {
    let text = write(entries);
    // A buffer that had to grow leaves a copy of what it held behind.
    assert_eq!(text.len(), text.capacity(), "{}", text.as_str());
    text.to_string()
}

fn rewritten(text: &str) -> String {
    match read(text) {
        Ok(Value::Map(entries)) => text_of(&entries),
        Ok(_) => panic!("{text} is no map"),
        Err(e) => panic!("{text}: {e}"),
    }
}

fn pair(key: &str, value: Value) -> MapEntry {
    MapEntry::Pair(key.to_owned(), value)
}

fn behind(text: &str) -> Comment {
    Comment {
        inline: true,
        ..Comment::line(text)
    }
}

fn value_of(scalar: &str) -> Value {
    let tree = read(&format!("a: {scalar}\n")).unwrap();
    tree.key("a").unwrap().clone()
}

#[test]
fn files_in_the_form_of_sops_stay_as_they_are() {
    for text in [
        "a: 1\n",
        "# alone\n{}\n",
        "{}\n",
        "# before\na: 1 # behind\n# between\nb: 2\n# the end\n",
        "a:\n    # of b\n    b: 1 # behind\n    # still of a\n# of c\nc: 2\n",
        "a:\n    b:\n        c:\n            d: 1\n            # of c\n        # of b\n    # of a\n# of all\n",
        "list:\n    - 1 # first\n    - 2 # second\n    - 3\n    # after\nnext: 1\n",
        "list:\n    # before\n    - a: 1 # of a\n      # of b\n      b: 2\n    - c:\n        d: 3\n",
        "list:\n    - a:\n        - b:\n            - 1\n            - c: 2\n              d: 3\n",
        "list:\n    -\n      - 1\n      - 2\n    -\n      - 3 # of 3\n    - []\n    - {}\n",
        "list:\n    - |\n        one\n        two\n    - |-\n        three\n\n        four\n",
        "empty: {}\nnone: []\nnothing: null\n",
        "text: |\n    one\n      set in\n\n    two\nlast: |-\n    one\n    two\n",
        "\"1\": one\n\"a: b\": two\n\"\": three\n\"yes\": four\n",
    ] {
        assert_eq!(rewritten(text), text);
    }
}

#[test]
fn other_forms_become_that_of_sops() {
    for (text, want) in [
        ("", "{}\n"),
        ("# only\n", "# only\n{}\n"),
        ("---\na: 1\n", "a: 1\n"),
        ("a: 1\n...\n# the end\n", "a: 1\n# the end\n"),
        ("null\n", "{}\n"),
        (
            "{a: 1, b: [2, {c: d}]}\n",
            "a: 1\nb:\n    - 2\n    - c: d\n",
        ),
        ("a: # said of a\n    b: 1\n", "# said of a\na:\n    b: 1\n"),
        (
            "a:\n  b: 1\n  # in\n# out\n",
            "a:\n    b: 1\n    # in\n# out\n",
        ),
        ("a:\n- 1\n- 2\n", "a:\n    - 1\n    - 2\n"),
        ("a: 'it''s'\nb: \"x\\u0041\"\n", "a: it's\nb: xA\n"),
        ("a: >\n    one\n    two\n", "a: |\n    one two\n"),
        (
            "a: 0x1F\nb: 1_000\nc: 1e3\nd: .5\n",
            "a: 31\nb: 1000\nc: 1000.0\nd: 0.5\n",
        ),
        ("a: 2026-01-02\n", "a: 2026-01-02T00:00:00Z\n"),
        (
            "a: !!str 5\nb: !!map {c: 1}\nd: !!seq [1]\n",
            "a: \"5\"\nb:\n    c: 1\nd:\n    - 1\n",
        ),
        ("\"<<\": 1\n", "\"<<\": 1\n"),
        // A comment behind an empty map or list is what follows' own from then on.
        (
            "a: {} # of a\nb: 1 # of b\n",
            "a: {}\n# of a\nb: 1 # of b\n",
        ),
        (
            "a:\n    # before its value\n    1\n",
            "# before its value\na: 1\n",
        ),
    ] {
        assert_eq!(rewritten(text), want, "{text}");
        assert_eq!(rewritten(want), want);
    }
}

#[test]
fn trees_that_no_file_had_are_written_too() {
    let scalars = Value::List(vec![
        Element::Comment(behind(" of 1")),
        Element::Value(Value::Int(1)),
        Element::Comment(behind(" of a map")),
        Element::Value(Value::Map(vec![pair("a", Value::Bool(false))])),
        Element::Comment(behind(" of a list")),
        Element::Value(Value::List(vec![Element::Value(Value::Bool(true))])),
        Element::Comment(behind(" of an empty map")),
        Element::Value(Value::map()),
        Element::Comment(behind(" of an empty list")),
        Element::Value(Value::List(Vec::new())),
        Element::Comment(behind(" of lines")),
        Element::Value(Value::text("a\nb")),
        Element::Comment(behind(" of nothing")),
    ]);
    assert_eq!(
        text_of(&[pair("list", scalars)]),
        "\
list:
    - 1 # of 1
    # of a map
    - a: false
    # of a list
    -
      - true
    - {} # of an empty map
    - [] # of an empty list
    # of lines
    - |-
        a
        b
    # of nothing
"
    );
    let mut entries = Vec::new();
    for (key, value) in [
        ("one", Value::Int(1)),
        ("map", Value::Map(vec![pair("a", Value::Null)])),
        ("list", Value::List(vec![Element::Value(Value::Null)])),
        ("no_map", Value::map()),
        ("no_list", Value::List(Vec::new())),
        ("lines", Value::text("a\nb\n")),
        (
            "moment",
            Value::Time(Zeroizing::new("2026-01-02T00:00:00Z".into())),
        ),
    ] {
        entries.push(MapEntry::Comment(behind(&format!(" of {key}"))));
        entries.push(pair(key, value));
    }
    entries.push(MapEntry::Comment(behind(" of nothing")));
    assert_eq!(
        text_of(&entries),
        "\
one: 1 # of one
# of map
map:
    a: null
# of list
list:
    - null
no_map: {} # of no_map
no_list: [] # of no_list
# of lines
lines: |
    a
    b
moment: 2026-01-02T00:00:00Z # of moment
# of nothing
"
    );
    // Comments alone are beside an empty map or list, and come back with it.
    let said = || vec![MapEntry::Comment(Comment::line(" said"))];
    let only = [
        pair("map", Value::Map(said())),
        pair(
            "list",
            Value::List(vec![
                Element::Comment(Comment::line(" said")),
                Element::Value(Value::Map(said())),
                Element::Value(Value::List(vec![Element::Comment(Comment::line(" too"))])),
                Element::Value(Value::Map(vec![
                    MapEntry::Comment(Comment::line(" first")),
                    MapEntry::Comment(behind(" behind")),
                    pair("a", Value::Int(1)),
                ])),
                Element::Value(Value::List(vec![
                    Element::Comment(Comment::line(" second")),
                    Element::Comment(behind(" behind")),
                    Element::Value(Value::Int(2)),
                ])),
            ]),
        ),
        pair(
            "none",
            Value::List(vec![Element::Comment(Comment::line(" said"))]),
        ),
    ];
    assert_eq!(
        text_of(&only),
        "\
map: {}
    # said
list:
    # said
    # said
    - {}
    # too
    - []
    # first
    - a: 1 # behind
    # second
    -
      - 2 # behind
none: []
    # said
"
    );
}

#[test]
fn texts_are_written_in_the_plainest_form_that_is_read_again() {
    for (text, want) in [
        ("word", "word"),
        ("two words", "two words"),
        ("a:b", "a:b"),
        ("_a", "_a"),
        ("/etc", "/etc"),
        ("(a)", "(a)"),
        ("+a", "+a"),
        ("$a", "$a"),
        ("1.2.3", "1.2.3"),
        ("12ab", "12ab"),
        ("a#b", "a#b"),
        ("", "\"\""),
        ("12", "\"12\""),
        ("1.5", "\"1.5\""),
        ("true", "\"true\""),
        ("~", "\"~\""),
        ("Yes", "\"Yes\""),
        ("n", "\"n\""),
        ("OFF", "\"OFF\""),
        ("12:30", "\"12:30\""),
        ("+1_0:30.5", "\"+1_0:30.5\""),
        ("2026-01-02", "\"2026-01-02\""),
        ("a: b", "\"a: b\""),
        ("a #b", "\"a #b\""),
        ("a:", "\"a:\""),
        ("a ", "\"a \""),
        ("-a", "\"-a\""),
        ("*a", "\"*a\""),
        ("aü", "\"aü\""),
        ("a\"b\\c", "a\"b\\c"),
        ("#a\"b\\c", "\"#a\\\"b\\\\c\""),
        ("a\tb\rc", "\"a\\tb\\rc\""),
        ("\u{0}\u{1f}\u{7f}\u{85}", "\"\\x00\\x1f\\x7f\\x85\""),
        (
            "\u{ff}\u{2028}\u{2029}\u{feff}",
            "\"ÿ\\u2028\\u2029\\ufeff\"",
        ),
        ("\u{fffd}\u{fffe}\u{ffff}", "\"\u{fffd}\\ufffe\\uffff\""),
        (
            "\u{10000}\u{1f600}\u{10ffff}",
            "\"\\U00010000\\U0001f600\\U0010ffff\"",
        ),
        ("a\nb", "|-\n    a\n    b"),
        ("a\nb\n", "|\n    a\n    b"),
        ("a\n\n  b", "|-\n    a\n\n      b"),
        ("a\nü", "|-\n    a\n    ü"),
        ("\na", "\"\\na\""),
        (" a\nb", "\" a\\nb\""),
        ("\ta\nb", "\"\\ta\\nb\""),
        ("a \nb", "\"a \\nb\""),
        ("a\nb\n\n", "\"a\\nb\\n\\n\""),
        ("a\u{1}\nb", "\"a\\x01\\nb\""),
        ("a\u{2028}\nb", "\"a\\u2028\\nb\""),
    ] {
        let written = text_of(&[pair("a", Value::text(text))]);
        assert_eq!(written, format!("a: {want}\n"), "{text:?}");
        let read = read(&written).unwrap();
        assert_eq!(
            read.key("a").and_then(Value::as_text),
            Some(text),
            "{written}"
        );
    }
    for (number, want) in [
        (1.0, "1.0"),
        (-0.5, "-0.5"),
        (1e21, "1000000000000000000000.0"),
    ] {
        assert_eq!(
            text_of(&[pair("a", Value::Float(number))]),
            format!("a: {want}\n")
        );
    }
}

#[test]
fn numbers_and_words_without_quotes() {
    for text in ["~", "null", "Null", "NULL", ""] {
        assert!(value_of(text) == Value::Null, "{text}");
    }
    for (text, truth) in [
        ("true", true),
        ("True", true),
        ("TRUE", true),
        ("false", false),
        ("False", false),
        ("FALSE", false),
    ] {
        assert!(value_of(text) == Value::Bool(truth), "{text}");
    }
    for (text, number) in [
        ("0", 0),
        ("00", 0),
        ("12", 12),
        ("+12", 12),
        ("-12", -12),
        ("1_000", 1000),
        ("0x1F", 31),
        ("-0x10", -16),
        ("0o17", 15),
        ("017", 15),
        ("0b101", 5),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        assert!(value_of(text) == Value::Int(number), "{text}");
    }
    for (text, number) in [
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("+.5", 0.5),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        ("1.5e-1", 0.15),
        ("1.e2", 100.0),
        ("08", 8.0),
        ("1e-400", 0.0),
    ] {
        assert!(value_of(text) == Value::Float(number), "{text}");
    }
    for text in [
        "tRUE",
        "nULL",
        "yes",
        "inf",
        "nan",
        "x",
        "1x",
        "1.x",
        "x.1",
        "1.2.3",
        ".",
        "..",
        "+",
        "-x",
        "+.",
        ".e5",
        "1e",
        "1e+",
        "1ex",
        "1e5.5",
        "0x",
        "0xg",
        "0b2",
        "0o8",
        "_1",
        "1-2",
        "1-2-3",
        "20260-1-2",
        "2026-123-1",
        "2026-1-x",
        "2026-x-1",
        "2026--1",
        "2026-1-",
        "202x-1-1",
    ] {
        assert!(value_of(text) == Value::text(text), "{text}");
    }
    for (text, moment) in [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2024-02-29", "2024-02-29T00:00:00Z"),
        ("2000-02-29", "2000-02-29T00:00:00Z"),
        ("2026-12-31T23:59:59+23:59", "2026-12-31T23:59:59+23:59"),
        ("2026-01-31T10:20:30Z", "2026-01-31T10:20:30Z"),
        ("2026-01-31t10:20:30z", "2026-01-31T10:20:30Z"),
        ("2026-01-31T10:20:30+00:00", "2026-01-31T10:20:30Z"),
        ("2026-01-31T10:20:30+05:30", "2026-01-31T10:20:30+05:30"),
        ("2026-01-31T10:20:30-07:00", "2026-01-31T10:20:30-07:00"),
        ("2026-01-31T10:20:30.25Z", "2026-01-31T10:20:30.25Z"),
        ("2026-01-31T10:20:30.500Z", "2026-01-31T10:20:30.5Z"),
        ("2026-01-31T10:20:30.000Z", "2026-01-31T10:20:30Z"),
        (
            "2026-01-31T10:20:30.123456789Z",
            "2026-01-31T10:20:30.123456789Z",
        ),
    ] {
        let want = Value::Time(Zeroizing::new(moment.to_owned()));
        assert!(value_of(text) == want, "{text}");
    }
}

#[test]
fn what_would_not_come_back_is_refused_with_its_place() {
    let finite = "line 1, column 4: a number must be finite; write a text in quotes";
    let large = "line 1, column 4: the number is too large; write a text in quotes";
    let moment = "line 1, column 4: a moment is written as 2026-01-31 or 2026-01-31T10:00:00Z; write a text in quotes";
    let tag = "tags aren't understood here; leave it out";
    let no_map = "line 1, column 1: the file must be a map of names";
    let mut all: Vec<(String, String)> = Vec::new();
    for text in [
        ".inf", ".Inf", ".INF", "+.inf", "-.INF", ".nan", ".NaN", ".NAN",
    ] {
        all.push((format!("a: {text}"), finite.to_owned()));
    }
    for text in [
        "9223372036854775808",
        "-9223372036854775809",
        "0x8000000000000000",
        "1e400",
        "-1e999",
    ] {
        all.push((format!("a: {text}"), large.to_owned()));
    }
    for text in [
        // sops itself takes these for texts, or fails, since the calendar doesn't have them.
        "2026-13-01",
        "2026-00-01",
        "2026-04-31",
        "2026-02-29",
        "2100-02-29",
        "2026-01-00",
        "2026-01-31T24:00:00Z",
        "2026-01-31T10:60:00Z",
        "2026-01-31T10:20:60Z",
        "2026-01-31T10:20:30+24:00",
        "2026-01-31T10:20:30-07:60",
        "2026-1-2",
        "2026-01-31T10:20:30",
        "2026-01-31T10:20Z",
        "2026-01-31 10:20:30Z",
        "2026-01-31T1:20:30Z",
        "2026-01-31T10:20:30+0100",
        "2026-01-31T10:20:30+1:00",
        "2026-01-31T10:20:30.1234567890Z",
        "2026-01-31T10:20:30.x1Z",
        "2026-01-31x",
    ] {
        all.push((format!("a: {text}"), moment.to_owned()));
    }
    for (text, want) in [
        ("a: !!int 5", format!("line 1, column 10: {tag}")),
        ("a: !!str {b: c}", format!("line 1, column 10: {tag}")),
        ("a: !!map [b]", format!("line 1, column 10: {tag}")),
        ("a: !own b", format!("line 1, column 9: {tag}")),
        (
            "<<: {a: 1}",
            "line 1, column 1: merges aren't followed; write the values out".to_owned(),
        ),
        (
            "a:\n    b: 1\n    b: 2",
            "line 3, column 5: the key \"b\" stands here twice".to_owned(),
        ),
        (
            "{[a]: b}",
            "line 1, column 2: a key must be a text, not a map or a list".to_owned(),
        ),
        (
            "{{a: b}: c}",
            "line 1, column 2: a key must be a text, not a map or a list".to_owned(),
        ),
        (
            "true: b",
            "line 1, column 1: a key must be a text; put it in quotes".to_owned(),
        ),
        ("word", no_map.to_owned()),
        ("[]", no_map.to_owned()),
        ("5 # said", no_map.to_owned()),
    ] {
        all.push((text.to_owned(), want));
    }
    for (text, want) in all {
        match read(&text) {
            Ok(_) => panic!("{text} is taken"),
            Err(e) => assert_eq!(e.to_string(), want, "{text}"),
        }
    }
}

#[test]
fn the_largest_file_is_read_and_one_byte_more_is_not() {
    let start = "a: b\n#";
    let mut text = start.to_owned();
    text.extend(std::iter::repeat_n('x', FILE_BYTES_MAX - start.len() - 1));
    text.push('\n');
    assert_eq!(text.len(), FILE_BYTES_MAX);
    assert!(parse_plain(text.as_bytes()).is_ok());
    text.push('\n');
    let error = parse_plain(text.as_bytes()).unwrap_err();
    assert_eq!(
        error,
        SopsError::TooLarge {
            bytes: FILE_BYTES_MAX + 1,
            bytes_max: FILE_BYTES_MAX
        }
    );
    // Not deeper than people group names, either: the walks over the tree go as deep.
    let deep = |levels: usize| format!("a: {}{}\n", "[".repeat(levels), "]".repeat(levels));
    assert!(read(&deep(32)).is_ok());
    assert!(read(&deep(1000)).is_err());
}
