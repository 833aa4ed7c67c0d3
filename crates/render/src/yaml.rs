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

/// Reads one YAML document.
///
/// # Errors
/// When the text isn't one YAML document with text keys; the message has line and column.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    serde_saphyr::from_str(text).map_err(|e| YamlError {
        message: e.to_string(),
    })
}
