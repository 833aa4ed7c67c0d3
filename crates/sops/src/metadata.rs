//! The `sops` part of a file: who can open it, what in it is encrypted, and its MAC.

use regex::Regex;

use crate::{
    error::SopsError,
    moment,
    value::{Element, MapEntry, Value},
};

/// The key of the metadata.
pub(crate) const KEY: &str = "sops";
/// The version of SOPS whose format is written here.
pub(crate) const VERSION: &str = "3.11.0";
/// The suffix of keys whose values stay in plain text, where a file doesn't say otherwise.
const UNENCRYPTED_SUFFIX: &str = "_unencrypted";
/// The most recipients of a file.
const RECIPIENTS_MAX: usize = 4096;
/// Keys of other kinds than age's, which would be lost by writing the file anew.
const OTHER_KEYS: [&str; 7] = [
    "kms",
    "gcp_kms",
    "hckms",
    "azure_kv",
    "hc_vault",
    "pgp",
    "key_groups",
];

/// Which values are encrypted.
#[derive(Debug, Clone)]
pub(crate) enum Rule {
    UnencryptedSuffix(String),
    EncryptedSuffix(String),
    UnencryptedRegex(Regex),
    EncryptedRegex(Regex),
}

impl Default for Rule {
    fn default() -> Self {
        Self::UnencryptedSuffix(UNENCRYPTED_SUFFIX.to_owned())
    }
}

impl Rule {
    /// Whether the value at a path of keys is encrypted.
    pub(crate) fn encrypts(&self, path: &[String]) -> bool {
        let any = |fits: &dyn Fn(&str) -> bool| path.iter().any(|key| fits(key));
        match self {
            Self::UnencryptedSuffix(suffix) => !any(&|key| key.ends_with(suffix.as_str())),
            Self::EncryptedSuffix(suffix) => any(&|key| key.ends_with(suffix.as_str())),
            Self::UnencryptedRegex(regex) => !any(&|key| regex.is_match(key)),
            Self::EncryptedRegex(regex) => any(&|key| regex.is_match(key)),
        }
    }

    /// Whether it is the one that SOPS has where nobody asks for another.
    pub(crate) fn is_usual(&self) -> bool {
        matches!(self, Self::UnencryptedSuffix(suffix) if suffix == UNENCRYPTED_SUFFIX)
    }

    fn entry(&self) -> (&'static str, &str) {
        match self {
            Self::UnencryptedSuffix(suffix) => ("unencrypted_suffix", suffix),
            Self::EncryptedSuffix(suffix) => ("encrypted_suffix", suffix),
            Self::UnencryptedRegex(regex) => ("unencrypted_regex", regex.as_str()),
            Self::EncryptedRegex(regex) => ("encrypted_regex", regex.as_str()),
        }
    }
}

/// A data key that is encrypted to a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrapped {
    pub(crate) recipient: String,
    pub(crate) sealed: String,
}

/// The `sops` part.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    pub(crate) wrapped: Vec<Wrapped>,
    /// A moment of RFC 3339 in whole seconds, which the MAC is bound to.
    pub(crate) last_modified: String,
    pub(crate) mac: String,
    pub(crate) rule: Rule,
    pub(crate) mac_only_encrypted: bool,
    /// The version of SOPS whose format it has.
    pub(crate) version: String,
}

fn bad(detail: impl Into<String>) -> SopsError {
    SopsError::Metadata {
        detail: detail.into(),
    }
}

impl Metadata {
    pub(crate) fn read(value: &Value) -> Result<Self, SopsError> {
        let Value::Map(_) = value else {
            return Err(bad("it is no map"));
        };
        for other in OTHER_KEYS {
            let used = match value.key(other) {
                None | Some(Value::Null) => false,
                Some(Value::List(elements)) => !elements.is_empty(),
                Some(_) => true,
            };
            if used {
                return Err(bad(format!(
                    "it has keys of the kind {other:?}, and only age's are understood here; use `sops` itself"
                )));
            }
        }
        let text = |key: &str| match value.key(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Text(text) | Value::Time(text)) => Ok(Some(text.to_string())),
            Some(_) => Err(bad(format!("{key:?} is no text"))),
        };
        let needed = |key: &str| text(key)?.ok_or_else(|| bad(format!("{key:?} is missing")));
        let regex = |pattern: &str| {
            Regex::new(pattern).map_err(|_| bad(format!("{pattern:?} is no regular expression")))
        };
        let mut rules = Vec::new();
        if let Some(suffix) = text("unencrypted_suffix")?.filter(|s| !s.is_empty()) {
            rules.push(Rule::UnencryptedSuffix(suffix));
        }
        if let Some(suffix) = text("encrypted_suffix")?.filter(|s| !s.is_empty()) {
            rules.push(Rule::EncryptedSuffix(suffix));
        }
        if let Some(pattern) = text("unencrypted_regex")?.filter(|s| !s.is_empty()) {
            rules.push(Rule::UnencryptedRegex(regex(&pattern)?));
        }
        if let Some(pattern) = text("encrypted_regex")?.filter(|s| !s.is_empty()) {
            rules.push(Rule::EncryptedRegex(regex(&pattern)?));
        }
        for key in ["unencrypted_comment_regex", "encrypted_comment_regex"] {
            if text(key)?.is_some_and(|s| !s.is_empty()) {
                return Err(bad(format!(
                    "{key:?} isn't understood here; use `sops` itself"
                )));
            }
        }
        if rules.len() > 1 {
            return Err(bad("more than one of the rules says what is encrypted"));
        }
        let mac_only_encrypted = match value.key("mac_only_encrypted") {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(_) => return Err(bad("\"mac_only_encrypted\" is neither true nor false")),
        };
        Ok(Self {
            wrapped: wrapped(value.key("age"))?,
            last_modified: moment::whole_seconds(&needed("lastmodified")?)
                .ok_or_else(|| bad("\"lastmodified\" is no moment of RFC 3339"))?,
            mac: needed("mac")?,
            rule: rules.pop().unwrap_or_default(),
            mac_only_encrypted,
            version: needed("version")?,
        })
    }

    /// The `sops` part in the order that SOPS writes it in.
    pub(crate) fn write(&self) -> MapEntry {
        let text = |key: &str, value: &str| MapEntry::Pair(key.to_owned(), Value::text(value));
        let age = self
            .wrapped
            .iter()
            .map(|wrapped| {
                Element::Value(Value::Map(vec![
                    text("recipient", &wrapped.recipient),
                    text("enc", &wrapped.sealed),
                ]))
            })
            .collect();
        let (rule, value) = self.rule.entry();
        let mut entries = vec![
            MapEntry::Pair("age".to_owned(), Value::List(age)),
            text("lastmodified", &self.last_modified),
            text("mac", &self.mac),
            text(rule, value),
        ];
        if self.mac_only_encrypted {
            entries.push(MapEntry::Pair(
                "mac_only_encrypted".to_owned(),
                Value::Bool(true),
            ));
        }
        entries.push(text("version", &self.version));
        MapEntry::Pair(KEY.to_owned(), Value::Map(entries))
    }
}

fn wrapped(list: Option<&Value>) -> Result<Vec<Wrapped>, SopsError> {
    let Some(Value::List(elements)) = list else {
        return Err(bad("it names no age recipients"));
    };
    if elements.len() > RECIPIENTS_MAX {
        return Err(bad(format!(
            "it has {} recipients, and {RECIPIENTS_MAX} are the most",
            elements.len()
        )));
    }
    elements
        .iter()
        .filter_map(|element| match element {
            Element::Value(value) => Some(value),
            Element::Comment(_) => None,
        })
        .map(|value| {
            let text = |key: &str| {
                value
                    .key(key)
                    .and_then(Value::as_text)
                    .map(ToOwned::to_owned)
                    .ok_or_else(|| bad(format!("a recipient lacks {key:?}")))
            };
            Ok(Wrapped {
                recipient: text("recipient")?,
                sealed: text("enc")?,
            })
        })
        .collect()
}
