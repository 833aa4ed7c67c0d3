//! The tree of a file: ordered keys, lists, values and comments.

use std::fmt;

use zeroize::Zeroizing;

/// A value. What it holds is wiped when it is dropped, and never shown by `Debug`.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Nothing; SOPS leaves it as it is.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number, always finite.
    Float(f64),
    /// A text.
    Text(Zeroizing<String>),
    /// A moment, in the form of RFC 3339.
    Time(Zeroizing<String>),
    /// Keys and values in the file's order.
    Map(Vec<MapEntry>),
    /// A list.
    List(Vec<Element>),
}

/// A line of a map.
#[derive(Debug, Clone, PartialEq)]
pub enum MapEntry {
    /// A comment.
    Comment(Comment),
    /// A key and its value.
    Pair(String, Value),
}

/// A line of a list.
#[derive(Debug, Clone, PartialEq)]
pub enum Element {
    /// A comment.
    Comment(Comment),
    /// A value.
    Value(Value),
}

/// A comment. People write secrets into comments too, so that it is treated as one.
#[derive(Clone, PartialEq, Eq)]
pub struct Comment {
    /// What stands after the `#`, with the blank at its beginning.
    pub text: Zeroizing<String>,
    /// Whether it stands behind the value that follows it here, on the same line.
    pub inline: bool,
}

impl Comment {
    /// A comment of a line of its own.
    pub fn line(text: impl Into<String>) -> Self {
        Self {
            text: Zeroizing::new(text.into()),
            inline: false,
        }
    }
}

impl fmt::Debug for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Comment(…)")
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Bool(_) => f.write_str("Bool(…)"),
            Self::Int(_) => f.write_str("Int(…)"),
            Self::Float(_) => f.write_str("Float(…)"),
            Self::Text(_) => f.write_str("Text(…)"),
            Self::Time(_) => f.write_str("Time(…)"),
            Self::Map(entries) => f.debug_list().entries(entries).finish(),
            Self::List(elements) => f.debug_list().entries(elements).finish(),
        }
    }
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Zeroizing::new(text.into()))
    }

    /// An empty map.
    pub fn map() -> Self {
        Self::Map(Vec::new())
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key, where this is a map that has it.
    pub fn key(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Map(entries) => entries.iter().find_map(|entry| match entry {
                MapEntry::Pair(k, value) if k == key => Some(value),
                _ => None,
            }),
            _ => None,
        }
    }

    /// The value at a path of keys, written with `/` between them as sops-nix does.
    pub fn get(&self, name: &str) -> Option<&Value> {
        name.split('/').try_fold(self, Value::key)
    }

    /// Puts a value at a path of keys. Maps that are missing on the way are made; a value that
    /// stands in the way is replaced.
    pub fn set(&mut self, name: &str, value: Value) {
        let (key, rest) = match name.split_once('/') {
            Some((key, rest)) => (key, Some(rest)),
            None => (name, None),
        };
        if !matches!(self, Self::Map(_)) {
            *self = Self::map();
        }
        let Self::Map(entries) = self else { return };
        let at = entries
            .iter()
            .position(|entry| matches!(entry, MapEntry::Pair(k, _) if k == key));
        let slot = match at.and_then(|at| entries.get_mut(at)) {
            Some(MapEntry::Pair(_, slot)) => slot,
            _ => {
                entries.push(MapEntry::Pair(key.to_owned(), Self::map()));
                match entries.last_mut() {
                    Some(MapEntry::Pair(_, slot)) => slot,
                    _ => return,
                }
            }
        };
        match rest {
            Some(rest) => slot.set(rest, value),
            None => *slot = value,
        }
    }

    /// Takes the value at a path of keys away, and maps that are empty then. Whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let (key, rest) = match name.split_once('/') {
            Some((key, rest)) => (key, Some(rest)),
            None => (name, None),
        };
        let Self::Map(entries) = self else {
            return false;
        };
        let Some(at) = entries
            .iter()
            .position(|entry| matches!(entry, MapEntry::Pair(k, _) if k == key))
        else {
            return false;
        };
        if let (Some(rest), Some(MapEntry::Pair(_, value))) = (rest, entries.get_mut(at)) {
            if !value.remove(rest) {
                return false;
            }
            if !matches!(value, Self::Map(left) if left.is_empty()) {
                return true;
            }
        }
        entries.remove(at);
        true
    }

    /// The paths of all values that are no maps, in the file's order. Elements of lists are
    /// counted from 0. A key that has a `/` of its own stands in quotes: no path leads to it.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect(self, "", &mut names);
        names
    }
}

fn collect(value: &Value, at: &str, names: &mut Vec<String>) {
    let below = |key: &str| {
        let key = if key.contains('/') {
            format!("{key:?}")
        } else {
            key.to_owned()
        };
        if at.is_empty() {
            key
        } else {
            format!("{at}/{key}")
        }
    };
    match value {
        Value::Map(entries) => {
            for entry in entries {
                if let MapEntry::Pair(key, value) = entry {
                    collect(value, &below(key), names);
                }
            }
        }
        Value::List(elements) => {
            let values = elements.iter().filter_map(|element| match element {
                Element::Value(value) => Some(value),
                Element::Comment(_) => None,
            });
            for (i, value) in values.enumerate() {
                collect(value, &below(&i.to_string()), names);
            }
        }
        _ => names.push(at.to_owned()),
    }
}
