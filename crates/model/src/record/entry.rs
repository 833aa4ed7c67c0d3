//! Reading an entry: its two numbers, and its record's fields beside them.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{Entry, RecordRead};
use crate::tagged;

/// The field that names what kind of record it is.
const TAG: &str = "record";

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Seq,
    WallMs,
    Record,
    #[serde(untagged)]
    Other(String),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry of a journal")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entry, M::Error> {
        let (mut seq, mut wall_ms) = (None, None);
        // As it is written: the numbers, then the record with its kind first.
        let other = loop {
            match map.next_key()? {
                Some(Key::Seq) => seq = Some(map.next_value()?),
                Some(Key::WallMs) => wall_ms = Some(map.next_value()?),
                Some(Key::Record) => match (seq, wall_ms) {
                    (Some(seq), Some(wall_ms)) => {
                        let record = tagged::rest::<RecordRead, M>(map)?.into();
                        return Ok(Entry {
                            seq,
                            wall_ms,
                            record,
                        });
                    }
                    _ => break TAG.to_owned(),
                },
                Some(Key::Other(other)) => break other,
                None => return Err(M::Error::missing_field(TAG)),
            }
        };
        let mut fields = Map::new();
        fields.insert(other, map.next_value()?);
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            fields.insert(key, value);
        }
        let mut number = |name: &'static str, read: Option<u64>| {
            let held = fields.remove(name);
            read.or_else(|| held.as_ref().and_then(Value::as_u64))
                .ok_or_else(|| M::Error::missing_field(name))
        };
        Ok(Entry {
            seq: number("seq", seq)?,
            wall_ms: number("wall_ms", wall_ms)?,
            record: tagged::held::<RecordRead, _>(TAG, fields)?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as every program since the first has written them.
    const WRITTEN: [&str; 9] = [
        r#"{"seq":0,"wall_ms":1767600000000,"record":"opened","version":1,"fleet":"basement"}"#,
        r#"{"seq":1,"wall_ms":7,"record":"run-started","plan":"abc","undercroft":"0.1.0"}"#,
        r#"{"seq":2,"wall_ms":8,"record":"op-started","op":3,"step":4,"work":"probe","attempt":1}"#,
        r#"{"seq":3,"wall_ms":9,"record":"op-ended","op":3,"step":4,"outcome":{"ended":"not-done"}}"#,
        r#"{"seq":4,"wall_ms":9,"record":"op-ended","op":3,"step":4,"outcome":{"ended":"done","evidence":{"is":"rebooted","boot_id":"b"}}}"#,
        r#"{"seq":5,"wall_ms":9,"record":"op-ended","op":3,"step":4,"outcome":{"ended":"failed","failure":{"kind":"transient","message":"m \"q\"","command":{"command":"ssh","exit_code":255,"output_tail":"x"},"hint":"h"}}}"#,
        r#"{"seq":6,"wall_ms":9,"record":"node-restarted","node":"gpu-01","from":0,"failure":{"kind":"precondition-lost","message":"m","command":null,"hint":null},"count":2}"#,
        r#"{"seq":7,"wall_ms":9,"record":"rollout-stopped","failed":3,"failure_budget":2}"#,
        r#"{"seq":8,"wall_ms":9,"record":"run-ended","end":"interrupted"}"#,
    ];

    #[test]
    fn what_was_written_is_read_and_written_the_same() {
        for line in WRITTEN {
            let entry: Entry = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&entry).unwrap(), line);
        }
    }

    /// Turns the order of all fields round, of what lies within too.
    fn turned(value: &Value) -> String {
        match value {
            Value::Object(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(key, value)| format!("{key:?}:{}", turned(value)))
                    .collect();
                let turned: Vec<String> = fields.into_iter().rev().collect();
                format!("{{{}}}", turned.join(","))
            }
            other => other.to_string(),
        }
    }

    #[test]
    fn fields_are_read_in_any_order() {
        for line in WRITTEN {
            let entry: Entry = serde_json::from_str(line).unwrap();
            let value: Value = serde_json::from_str(line).unwrap();
            let other = turned(&value);
            assert_ne!(other, line);
            assert_eq!(
                serde_json::from_str::<Entry>(&other).unwrap(),
                entry,
                "{other}"
            );
            assert_eq!(serde_json::from_value::<Entry>(value).unwrap(), entry);
            // A field that a later program may add, before and behind the rest.
            for more in [
                line.replacen('{', r#"{"later":[1],"#, 1),
                line.replacen(r#""record""#, r#""later":{},"record""#, 1),
                format!(r#"{},"later":{{"a":1}}}}"#, line.strip_suffix('}').unwrap()),
            ] {
                assert_eq!(
                    serde_json::from_str::<Entry>(&more).unwrap(),
                    entry,
                    "{more}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for (line, why) in [
            ("{}", "missing field `record`"),
            (r#"{"seq":1,"wall_ms":2}"#, "missing field `record`"),
            (
                r#"{"seq":1,"record":"run-ended","end":"complete"}"#,
                "missing field `wall_ms`",
            ),
            (
                r#"{"wall_ms":1,"record":"run-ended","end":"complete"}"#,
                "missing field `seq`",
            ),
            (
                r#"{"seq":-1,"wall_ms":2,"record":"run-ended","end":"complete"}"#,
                "invalid value",
            ),
            (
                r#"{"seq":1,"wall_ms":2,"record":"run-begun"}"#,
                "unknown variant `run-begun`",
            ),
            (
                r#"{"seq":1,"wall_ms":2,"record":"run-ended"}"#,
                "missing field `end`",
            ),
            (
                r#"{"seq":1,"wall_ms":2,"record":7,"end":"complete"}"#,
                "invalid type",
            ),
            (r#"[1,2,"run-ended","complete"]"#, "invalid type: sequence"),
        ] {
            let error = serde_json::from_str::<Entry>(line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
