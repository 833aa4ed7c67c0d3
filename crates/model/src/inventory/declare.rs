//! The means by which a section's keys are declared once and then read, printed and described.
//!
//! `section!` makes a struct and `choice!` an enum; both implement [`Value`], as the leaves do in
//! `leaves`. A key's doc comment is its description in the schema and thereby in editors.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, json};
use toml::{Spanned, de::DeValue};

use super::reader::Reader;

/// A JSON value of the schema.
pub(crate) type Json = serde_json::Value;

/// A limit on a value that its type alone doesn't express.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// Any value of the type.
    Any,
    /// An integer from the first to the second number, both included.
    Range(u64, u64),
    /// A text of a certain form.
    Text(&'static TextRule),
}

/// The form of a text.
#[derive(Debug)]
pub(crate) struct TextRule {
    /// What is expected, with its article.
    pub(crate) expected: &'static str,
    /// The same as a regular expression of JSON Schema (ECMA-262), as near as one comes.
    pub(crate) pattern: &'static str,
    /// Whether a text has the form.
    pub(crate) test: fn(&str) -> bool,
}

/// A value on its way to TOML text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Out {
    /// No value: the key isn't written.
    Nothing,
    /// A scalar in TOML's notation.
    Scalar(String),
    /// An array.
    List(Vec<Out>),
    /// A table with its keys in the order of their declaration.
    Table(Vec<(Cow<'static, str>, Out)>),
}

impl Out {
    /// Whether a key with this value says no more than its absence.
    pub(crate) fn is_void(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Scalar(_) => false,
            Self::List(items) => items.is_empty(),
            Self::Table(keys) => keys.is_empty(),
        }
    }
}

/// A text in TOML's notation: a basic string with its escapes.
pub(crate) fn text(value: &str) -> Out {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
    if value.bytes().all(plain) {
        out.push_str(value);
        out.push('"');
        return Out::Scalar(out);
    }
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if crate::text::is_unseen(c) => match u32::from(c) {
                n @ 0..=0xffff => out.push_str(&format!("\\u{n:04X}")),
                n => out.push_str(&format!("\\U{n:08X}")),
            },
            c => out.push(c),
        }
    }
    out.push('"');
    Out::Scalar(out)
}

/// Something that can stand in the inventory.
pub(crate) trait Value: Sized {
    /// Reads the value, or reports why it can't be read and gives `None`.
    fn read(value: &Spanned<DeValue<'_>>, rule: Rule, cx: &mut Reader<'_>) -> Option<Self>;

    /// The value as TOML.
    fn write(&self) -> Out;

    /// The JSON Schema of the value.
    fn schema(rule: Rule) -> Json;

    /// What an absent key of this type without a declared default means; `None` where the key
    /// must be given.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    fn read(value: &Spanned<DeValue<'_>>, rule: Rule, cx: &mut Reader<'_>) -> Option<Self> {
        T::read(value, rule, cx).map(Some)
    }
    fn write(&self) -> Out {
        self.as_ref().map_or(Out::Nothing, T::write)
    }
    fn schema(rule: Rule) -> Json {
        T::schema(rule)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(value: &Spanned<DeValue<'_>>, rule: Rule, cx: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Array(items) = value.get_ref() else {
            cx.wrong_type(value, "an array");
            return None;
        };
        let read: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(i, item)| cx.within(&i.to_string(), |cx| T::read(item, rule, cx)))
            .collect();
        read.into_iter().collect()
    }
    fn write(&self) -> Out {
        Out::List(self.iter().map(T::write).collect())
    }
    fn schema(rule: Rule) -> Json {
        json!({ "type": "array", "items": T::schema(rule) })
    }
    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

/// A type of the names in tables whose keys the user chooses.
pub(crate) trait Name: Ord + std::fmt::Display + std::str::FromStr {
    /// What the names look like, as a regular expression.
    const PATTERN: &'static str;
}

impl<K: Name, V: Value> Value for BTreeMap<K, V> {
    fn read(value: &Spanned<DeValue<'_>>, rule: Rule, cx: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            cx.wrong_type(value, "a table");
            return None;
        };
        let mut read = Self::new();
        for (key, item) in table {
            let name = cx.name::<K>(key);
            let item = cx.within(key.get_ref(), |cx| V::read(item, rule, cx));
            if let (Some(name), Some(item)) = (name, item) {
                read.insert(name, item);
            }
        }
        Some(read)
    }
    fn write(&self) -> Out {
        Out::Table(
            self.iter()
                .map(|(name, value)| (Cow::Owned(name.to_string()), value.write()))
                .collect(),
        )
    }
    fn schema(rule: Rule) -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": K::PATTERN },
            "additionalProperties": V::schema(rule),
        })
    }
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

/// A doc comment's lines as one paragraph.
pub(crate) fn paragraph(lines: &[&str]) -> String {
    let words: Vec<&str> = lines.iter().flat_map(|l| l.split_whitespace()).collect();
    words.join(" ")
}

/// A default as JSON. A table's defaults stand at its own keys, so it has none itself.
fn default_json(value: &Out) -> Option<Json> {
    match value {
        Out::Nothing | Out::Table(_) => None,
        // A scalar in TOML's notation, as [`text`] writes it, is one in JSON's too.
        Out::Scalar(text) => serde_json::from_str(text).ok(),
        Out::List(items) => items.iter().map(default_json).collect(),
    }
}

/// The schema of one key of a section.
pub(crate) fn property(docs: &[&str], schema: Json, default: Option<Out>) -> Json {
    let mut keys = Map::new();
    keys.insert("description".to_owned(), paragraph(docs).into());
    if let Json::Object(schema) = schema {
        // A section's own description gives way to the key's.
        keys.extend(schema.into_iter().filter(|(k, _)| k != "description"));
    }
    if let Some(default) = default.as_ref().and_then(default_json) {
        keys.insert("default".to_owned(), default);
    }
    Json::Object(keys)
}

macro_rules! rule {
    () => {
        $crate::inventory::declare::Rule::Any
    };
    ($rule:expr) => {
        $rule
    };
}

macro_rules! fallback {
    ($ty:ty) => {
        <$ty as $crate::inventory::declare::Value>::absent()
    };
    ($ty:ty, $default:expr) => {
        Some::<$ty>($default)
    };
}

macro_rules! declared_default {
    ($ty:ty) => {
        None
    };
    ($ty:ty, $default:expr) => {
        Some(<$ty as $crate::inventory::declare::Value>::write(&$default))
    };
}

/// Declares a table of known keys: `key: Type = default => rule;`, default and rule optional.
macro_rules! section {
    (
        $(#[doc = $doc:expr])*
        pub struct $name:ident {
            $(
                $(#[doc = $key_doc:expr])*
                $key:ident : $ty:ty $(= $default:expr)? $(=> $rule:expr)? ;
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
        pub struct $name {
            $( $(#[doc = $key_doc])* pub $key: $ty, )*
        }

        impl $crate::inventory::declare::Value for $name {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                _: $crate::inventory::declare::Rule,
                cx: &mut $crate::inventory::reader::Reader<'_>,
            ) -> Option<Self> {
                let errors = cx.error_count();
                let table = cx.section(value, &[$( stringify!($key) ),*])?;
                $(
                    let $key = cx.key::<$ty>(
                        value,
                        table,
                        stringify!($key),
                        rule!($($rule)?),
                        || fallback!($ty $(, $default)?),
                    );
                )*
                // An unknown key is one that was meant to say something here.
                (errors == cx.error_count()).then_some(())?;
                Some(Self { $( $key: $key?, )* })
            }

            fn write(&self) -> $crate::inventory::declare::Out {
                let mut keys = Vec::new();
                $(
                    let value = $crate::inventory::declare::Value::write(&self.$key);
                    let defaults: &[&str] = &[$( stringify!($default) )?];
                    if !defaults.is_empty() || !value.is_void() {
                        keys.push((std::borrow::Cow::Borrowed(stringify!($key)), value));
                    }
                )*
                $crate::inventory::declare::Out::Table(keys)
            }

            fn schema(_: $crate::inventory::declare::Rule) -> $crate::inventory::declare::Json {
                let mut properties = serde_json::Map::new();
                let mut required: Vec<&str> = Vec::new();
                $(
                    if fallback!($ty $(, $default)?).is_none() {
                        required.push(stringify!($key));
                    }
                    properties.insert(
                        stringify!($key).to_owned(),
                        $crate::inventory::declare::property(
                            &[$( $key_doc ),*],
                            <$ty as $crate::inventory::declare::Value>::schema(rule!($($rule)?)),
                            declared_default!($ty $(, $default)?),
                        ),
                    );
                )*
                serde_json::json!({
                    "description": $crate::inventory::declare::paragraph(&[$( $doc ),*]),
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }

            fn absent() -> Option<Self> {
                Some(Self { $( $key: fallback!($ty $(, $default)?)?, )* })
            }
        }
    };
}

/// Declares a value that is one of a few words: `Variant = "word",`.
macro_rules! choice {
    (
        $(#[doc = $doc:expr])*
        pub enum $name:ident {
            $(
                $(#[doc = $word_doc:expr])*
                $variant:ident = $word:literal,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        pub enum $name {
            $( $(#[doc = $word_doc])* #[serde(rename = $word)] $variant, )*
        }

        impl $name {
            /// All values, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The word that stands for the value in the inventory.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl $crate::inventory::declare::Value for $name {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                _: $crate::inventory::declare::Rule,
                cx: &mut $crate::inventory::reader::Reader<'_>,
            ) -> Option<Self> {
                let word = cx.word(value, &[$( $word ),*])?;
                Self::ALL.iter().copied().find(|v| v.as_str() == word)
            }

            fn write(&self) -> $crate::inventory::declare::Out {
                $crate::inventory::declare::text(self.as_str())
            }

            fn schema(_: $crate::inventory::declare::Rule) -> $crate::inventory::declare::Json {
                serde_json::json!({
                    "type": "string",
                    "oneOf": [$( {
                        "const": $word,
                        "description": $crate::inventory::declare::paragraph(&[$( $word_doc ),*]),
                    } ),*],
                })
            }
        }
    };
}

pub(crate) use {choice, declared_default, fallback, rule, section};
