//! YAML as the whole project writes and reads it: sorted keys, block style, and every string
//! quoted that a reader of YAML 1.1 (which Kubernetes' is) would take for something else.

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

/// Why a text is no YAML that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// What the reader says, with line and column.
    pub message: String,
}

/// A value whose objects are written with their keys in order, whatever order they are kept in.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => {
                let mut keys: Vec<(&String, &Value)> = map.iter().collect();
                keys.sort_by_key(|(key, _)| *key);
                let mut out = to.serialize_map(Some(keys.len()))?;
                for (key, value) in keys {
                    out.serialize_entry(key, &Sorted(value))?;
                }
                out.end()
            }
            Value::Array(items) => to.collect_seq(items.iter().map(Sorted)),
            other => other.serialize(to),
        }
    }
}

/// A value as one YAML document, ending with a line break: the same value always gives the same
/// bytes.
///
/// # Errors
/// When the value holds something that YAML has no notation for; a JSON value never does.
pub fn print(value: &Value) -> Result<String, YamlError> {
    let options = serde_saphyr::ser_options! {
        // Kubernetes reads YAML 1.1, where `on` is a truth value.
        yaml_12: false,
        // A long line is one line: folding makes diffs of one word span a paragraph.
        folded_wrap_chars: usize::MAX,
    };
    serde_saphyr::to_string_with_options(&Sorted(value), options).map_err(|e| YamlError {
        message: e.to_string(),
    })
}

/// Reads one YAML document. An error has line and column, and none of the text, which may hold a
/// secret.
///
/// # Errors
/// When the text isn't one YAML document with text keys.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    // Comments are passed over: read as events, more than some hundred in a row would be refused,
    // and charts' own values files have more.
    let options = serde_saphyr::options! { with_snippet: false, emit_comments: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| YamlError {
        message: e.to_string(),
    })
}

/// Reads all YAML documents of a text; empty ones are left out. Errors are as [`parse`]'s.
///
/// # Errors
/// When the text isn't YAML with text keys.
pub fn parse_all(text: &str) -> Result<Vec<Value>, YamlError> {
    let options = serde_saphyr::options! { with_snippet: false, emit_comments: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|e| YamlError {
        message: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_may_have_as_many_comments_as_it_likes() {
        let text = format!(
            "{}a: 1\n",
            "# a line of a chart's values file\n".repeat(5000)
        );
        assert_eq!(parse(&text).unwrap(), json!({ "a": 1 }));
        assert_eq!(parse_all(&text).unwrap(), [json!({ "a": 1 })]);
    }

    #[test]
    fn what_a_reader_could_mistake_is_quoted() {
        let words = [
            "on",
            "off",
            "yes",
            "no",
            "y",
            "n",
            "Y",
            "NO",
            "true",
            "False",
            "null",
            "~",
            "",
            "1",
            "0755",
            "0o17",
            "0x1f",
            "1_000",
            "1e3",
            "1.",
            ".5",
            "+1",
            ".inf",
            ".NaN",
            "12:30:45",
            "2001-12-14",
            "-",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            " a",
            "a ",
            "=",
            "<<",
            "?",
            ":",
            "a:",
            "10.20.0.0/22",
            "v1.2",
            "1.34",
            "don't",
            "a\"b",
            "tab\there",
            "100m",
            "0b11",
            "0.0.0.0",
            "1:2",
            "---",
            "...",
            "|",
            ">",
        ];
        let value: Value = words.iter().map(|w| json!({ "k": w })).collect();
        insta::assert_snapshot!(print(&value).unwrap());
    }

    #[test]
    fn long_and_many_lined_texts_stay_readable() {
        let value = json!({
            "z": "first\n  indented\nlast\n",
            "no_end": "a\nb",
            "blank_end": "a\n\n",
            "leading": "  a\nb\n",
            "long": "word ".repeat(40),
            "tabs": "a\tb\nc\n",
            "cr": "a\r\nb",
            "nested": { "b": [], "a": {}, "c": [[1, 2], { "x": null, "y": true }], "d": 1.5, "e": -3 },
            "lua": "hs = {}\nif obj.status ~= nil then\n  hs.status = \"Healthy\"\nend\nreturn hs\n",
        });
        let text = print(&value).unwrap();
        assert_eq!(parse(&text).unwrap(), value);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_mistake_has_a_place_and_shows_nothing_of_the_text() {
        let error = parse("password: hunter2\n  bad: [\n").unwrap_err();
        assert!(error.message.contains("line 2"), "{error}");
        assert!(!error.message.contains("hunter2"), "{error}");
        let all = parse_all("---\na: 1\n---\n---\nb: 2\n").unwrap();
        assert_eq!(all, [json!({ "a": 1 }), json!({ "b": 2 })]);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ -~\n]{0,40}".prop_map(Value::from),
            "[0-9a-fxoe:._+~-]{1,8}".prop_map(Value::from),
            "[ a#:\n-]{1,10}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-z0-9:#/. -]{0,8}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_reads_back_and_prints_the_same(value in values()) {
            let text = print(&value).unwrap();
            prop_assert_eq!(&parse(&text).unwrap(), &value, "{}", text);
            prop_assert_eq!(print(&parse(&text).unwrap()).unwrap(), text);
        }
    }
}
