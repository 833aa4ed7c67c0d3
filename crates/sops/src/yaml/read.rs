//! YAML to a tree, with its comments.

use std::collections::BTreeSet;

use granit_parser::{Event, Marker, Options, Parser, Placement, ScalarStyle, Span, Tag};
use zeroize::Zeroizing;

use super::scalar::resolve;
use crate::{
    error::SopsError,
    value::{Comment, Element, MapEntry, Value},
};

/// How deep maps and lists may lie in each other. Secrets are grouped by a few names.
const NESTING_MAX: usize = 64;
/// How many comments may stand between two keys.
const COMMENTS_MAX: usize = 10_000;

/// Reads one document that is a map. How long it may be is the caller's to see to.
pub(crate) fn read(text: &str) -> Result<Value, SopsError> {
    let mut options = Options::default();
    options.flow_nesting_limit = NESTING_MAX;
    options.block_nesting_limit = NESTING_MAX;
    options.max_buffered_comment_events = COMMENTS_MAX;
    let mut reader = Reader {
        open: Vec::new(),
        pending: Vec::new(),
        root: None,
        documents: 0,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|e| at(*e.marker(), e.info()))?;
        reader.take(event, span)?;
    }
    Ok(reader.root.unwrap_or_else(Value::map))
}

fn at(place: Marker, message: impl Into<String>) -> SopsError {
    SopsError::Syntax {
        line: place.line(),
        column: place.col() + 1,
        message: message.into(),
    }
}

/// A comment whose place in the tree isn't known yet.
struct Pending {
    comment: Comment,
    column: usize,
}

/// A map or list that isn't at its end.
enum Open {
    Map {
        entries: Vec<MapEntry>,
        /// The keys so far: asking the entries would take a file of many keys for minutes.
        keys: BTreeSet<String>,
        key: Option<String>,
        /// The column of the keys, known from the first on.
        column: Option<usize>,
    },
    List {
        elements: Vec<Element>,
        column: usize,
    },
}

struct Reader {
    open: Vec<Open>,
    pending: Vec<Pending>,
    root: Option<Value>,
    documents: usize,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SopsError> {
        let place = span.start;
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(at(place, "a file of secrets has one YAML document"));
                }
            }
            Event::Comment(text, placement) => self.comment(&text, placement, place),
            Event::Scalar(text, style, _, tag) => {
                if self.wants_key() {
                    self.key(&text, style, tag.as_deref(), place)?;
                } else {
                    let value = scalar(&text, style, tag.as_deref(), place)?;
                    self.value(value, place)?;
                }
            }
            Event::MappingStart(_, _, tag) => {
                check_tag(tag.as_deref(), &["map"], place)?;
                self.begin(place)?;
                self.open.push(Open::Map {
                    entries: Vec::new(),
                    keys: BTreeSet::new(),
                    key: None,
                    column: None,
                });
            }
            Event::SequenceStart(_, _, tag) => {
                check_tag(tag.as_deref(), &["seq"], place)?;
                if self.open.is_empty() {
                    return Err(at(place, "the file must be a map of names"));
                }
                self.begin(place)?;
                self.open.push(Open::List {
                    elements: Vec::new(),
                    column: place.col(),
                });
            }
            Event::MappingEnd | Event::SequenceEnd => self.end(place)?,
            Event::Alias(_) => {
                return Err(at(place, "anchors aren't followed; write the value out"));
            }
            Event::DocumentEnd | Event::StreamEnd => {
                let rest: Vec<MapEntry> = self
                    .pending
                    .drain(..)
                    .map(|p| MapEntry::Comment(p.comment))
                    .collect();
                if !rest.is_empty() {
                    match self.root.get_or_insert_with(Value::map) {
                        Value::Map(entries) => entries.extend(rest),
                        _ => return Err(at(place, "the file must be a map of names")),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open::Map { key: None, .. }))
    }

    fn comment(&mut self, text: &str, placement: Placement, place: Marker) {
        let comment = Comment::line(text);
        if placement == Placement::Right && self.pending.is_empty() {
            let inline = Comment {
                inline: true,
                ..comment.clone()
            };
            // Behind a finished value, the comment is the value's.
            match self.open.last_mut() {
                Some(Open::Map {
                    entries, key: None, ..
                }) if matches!(entries.last(), Some(MapEntry::Pair(_, value)) if is_scalar(value)) =>
                {
                    let before = entries.len() - 1;
                    entries.insert(before, MapEntry::Comment(inline));
                    return;
                }
                Some(Open::List { elements, .. }) if matches!(elements.last(), Some(Element::Value(value)) if is_scalar(value)) =>
                {
                    let before = elements.len() - 1;
                    elements.insert(before, Element::Comment(inline));
                    return;
                }
                // Behind a key whose value is still to come, it is said before the key.
                Some(Open::Map {
                    entries,
                    key: Some(_),
                    ..
                }) => {
                    entries.push(MapEntry::Comment(comment));
                    return;
                }
                _ => {}
            }
        }
        self.pending.push(Pending {
            comment,
            column: place.col(),
        });
    }

    fn key(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        place: Marker,
    ) -> Result<(), SopsError> {
        let pending = std::mem::take(&mut self.pending);
        let Value::Text(name) = scalar(text, style, tag, place)? else {
            return Err(at(place, "a key must be a text; put it in quotes"));
        };
        if name.as_str() == "<<" && style == ScalarStyle::Plain {
            return Err(at(place, "merges aren't followed; write the values out"));
        }
        if let Some(Open::Map {
            entries,
            keys,
            key,
            column,
        }) = self.open.last_mut()
        {
            if !keys.insert(name.to_string()) {
                return Err(at(place, format!("the key {:?} stands here twice", *name)));
            }
            entries.extend(pending.into_iter().map(|p| MapEntry::Comment(p.comment)));
            column.get_or_insert(place.col());
            *key = Some(name.to_string());
        }
        Ok(())
    }

    /// Before a value begins: comments before it are the list's, or come before the key.
    fn begin(&mut self, place: Marker) -> Result<(), SopsError> {
        match self.open.last_mut() {
            Some(Open::List { elements, .. }) => {
                elements.extend(self.pending.drain(..).map(|p| Element::Comment(p.comment)));
                Ok(())
            }
            Some(Open::Map { key: None, .. }) => {
                Err(at(place, "a key must be a text, not a map or a list"))
            }
            Some(Open::Map { .. }) => Ok(()),
            None if self.root.is_some() => Err(at(place, "the file must be a map of names")),
            None => Ok(()),
        }
    }

    fn value(&mut self, value: Value, place: Marker) -> Result<(), SopsError> {
        self.begin(place)?;
        self.put(value, place)
    }

    fn put(&mut self, value: Value, place: Marker) -> Result<(), SopsError> {
        match self.open.last_mut() {
            Some(Open::List { elements, .. }) => elements.push(Element::Value(value)),
            Some(Open::Map { entries, key, .. }) => {
                let Some(key) = key.take() else {
                    return Err(at(place, "a value without a key"));
                };
                // A value below its key may have comments between the two.
                entries.extend(self.pending.drain(..).map(|p| MapEntry::Comment(p.comment)));
                entries.push(MapEntry::Pair(key, value));
            }
            None => match value {
                Value::Map(_) => self.root = Some(value),
                Value::Null => {}
                _ => return Err(at(place, "the file must be a map of names")),
            },
        }
        Ok(())
    }

    fn end(&mut self, place: Marker) -> Result<(), SopsError> {
        let Some(done) = self.open.pop() else {
            return Ok(());
        };
        // Comments that are set in as far as this map's keys belong to it; from the first that
        // isn't on, they belong further out.
        let column = match &done {
            Open::Map { column, .. } => column.unwrap_or(0),
            Open::List { column, .. } => *column,
        };
        let outer = self
            .pending
            .iter()
            .position(|p| p.column < column)
            .unwrap_or(self.pending.len());
        let left = self.pending.split_off(outer);
        let own = std::mem::replace(&mut self.pending, left);
        let own = own.into_iter().map(|p| p.comment);
        let value = match done {
            Open::Map { mut entries, .. } => {
                entries.extend(own.map(MapEntry::Comment));
                Value::Map(entries)
            }
            Open::List { mut elements, .. } => {
                elements.extend(own.map(Element::Comment));
                Value::List(elements)
            }
        };
        let outside = std::mem::take(&mut self.pending);
        self.put(value, place)?;
        self.pending = outside;
        Ok(())
    }
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Map(_) | Value::List(_))
}

fn check_tag(tag: Option<&Tag>, allowed: &[&str], place: Marker) -> Result<(), SopsError> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.core_suffix().is_some_and(|s| allowed.contains(&s)) => Ok(()),
        Some(_) => Err(at(place, "tags aren't understood here; leave it out")),
    }
}

fn scalar(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
    place: Marker,
) -> Result<Value, SopsError> {
    check_tag(tag, &["str"], place)?;
    if style != ScalarStyle::Plain || tag.is_some() {
        return Ok(Value::Text(Zeroizing::new(text.to_owned())));
    }
    resolve(text).map_err(|message| at(place, message))
}
