//! YAML as the whole project writes and reads it: sorted keys, block style, and every string
//! quoted that a reader of YAML 1.1 (which Kubernetes' is) would take for something else.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::Value;
use serde_saphyr::Spanned;

/// Why a text is no YAML that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// What the reader says.
    pub message: String,
    /// Line and column, counted from 1, where they are known.
    pub place: Option<(usize, usize)>,
}

impl YamlError {
    fn new(error: &serde_saphyr::Error) -> Self {
        use serde_saphyr::{Error, MessageFormatter as _, UserMessageFormatter};
        let message = match error.without_snippet() {
            Error::DuplicateMappingKey { key: Some(key), .. } => {
                format!("the key `{key}` is given twice")
            }
            Error::DuplicateMappingKey { key: None, .. } => "a key is given twice".to_owned(),
            Error::MultipleDocuments { .. } => {
                "there is more than one document, and this file has one".to_owned()
            }
            error => UserMessageFormatter.format_message(error).into_owned(),
        };
        Self {
            message: message.trim_end().to_owned(),
            place: error.location().and_then(|location| place(&location)),
        }
    }
}

/// Line and column, which are 0 where they aren't known.
fn place(location: &serde_saphyr::Location) -> Option<(usize, usize)> {
    let line = usize::try_from(location.line()).ok()?;
    let column = usize::try_from(location.column()).ok()?;
    (line > 0).then_some((line, column))
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
        place: None,
    })
}

/// Reads one YAML document. An error has its place, and no value of the text, which may hold a
/// secret.
///
/// # Errors
/// When the text isn't one YAML document with text keys.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    // Comments are passed over: read as events, more than some hundred in a row would be refused,
    // and charts' own values files have more.
    let options = serde_saphyr::options! { with_snippet: false, emit_comments: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| YamlError::new(&e))
}

/// Reads all YAML documents of a text; empty ones are left out. Errors are as [`parse`]'s.
///
/// # Errors
/// When the text isn't YAML with text keys.
pub fn parse_all(text: &str) -> Result<Vec<Value>, YamlError> {
    let options = serde_saphyr::options! { with_snippet: false, emit_comments: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|e| YamlError::new(&e))
}

/// Line and column, counted from 1, of the key that keys lead to in a YAML document; where the text
/// hasn't got it, of the last of them that it has.
pub fn find(text: &str, keys: &[String]) -> Option<(usize, usize)> {
    let options = serde_saphyr::options! { with_snippet: false, emit_comments: false };
    let root: Places = serde_saphyr::from_str_with_options(text, options).ok()?;
    let (mut at, mut found) = (&root, None);
    for wanted in keys {
        let Some((key, below)) = at.0.iter().find(|(key, _)| key.value == *wanted) else {
            break;
        };
        (at, found) = (below, place(&key.referenced));
    }
    found
}

/// The keys of a value with their places, and of the values below them; of all other values,
/// nothing.
struct Places(Vec<(Spanned<String>, Places)>);

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PlacesVisitor)
    }
}

struct PlacesVisitor;

impl<'de> Visitor<'de> for PlacesVisitor {
    type Value = Places;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Places, A::Error> {
        let mut places = Vec::new();
        while let Some(key) = map.next_key()? {
            places.push((key, map.next_value()?));
        }
        Ok(Places(places))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Places, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Places(Vec::new()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Places, E> {
        Ok(Places(Vec::new()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Places, E> {
        Ok(Places(Vec::new()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Places, E> {
        Ok(Places(Vec::new()))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Places, E> {
        Ok(Places(Vec::new()))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Places, E> {
        Ok(Places(Vec::new()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Places, E> {
        Ok(Places(Vec::new()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Places, E> {
        Ok(Places(Vec::new()))
    }

    fn visit_unit<E>(self) -> Result<Places, E> {
        Ok(Places(Vec::new()))
    }
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
        assert_eq!(error.place.unwrap().0, 2, "{error:?}");
        assert!(!error.message.contains("hunter2"), "{error}");
        let twice = parse("a: 1\nb:\n  c: 1\n  c: hunter2\n").unwrap_err();
        assert_eq!(
            (twice.message.as_str(), twice.place),
            ("the key `c` is given twice", Some((4, 3)))
        );
        let all = parse_all("---\na: 1\n---\n---\nb: 2\n").unwrap();
        assert_eq!(all, [json!({ "a": 1 }), json!({ "b": 2 })]);
    }

    #[test]
    fn a_key_is_found_where_it_stands() {
        let text = "# values\na: 1\nhubble:\n  ui: { x: [1, 2], \"y.z\": true }\n  \"relay\":\n    enabled: 0x1F\n";
        let at = |keys: &[&str]| {
            find(
                text,
                &keys.iter().map(|&k| k.to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(at(&["a"]), Some((2, 1)));
        assert_eq!(at(&["hubble", "relay", "enabled"]), Some((6, 5)));
        assert_eq!(at(&["hubble", "ui", "y.z"]), Some((4, 20)));
        assert_eq!(at(&["hubble", "rely"]), Some((3, 1)));
        assert_eq!(at(&["none"]), None);
        assert_eq!(find("a: [", &["a".to_owned()]), None);
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
