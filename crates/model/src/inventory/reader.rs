//! Reading TOML values by their declarations, reporting all that is wrong on the way.

use std::{borrow::Cow, collections::BTreeSet, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    declare::{Name, Rule, Value},
    secret,
    source::{Finding, Findings, Source},
    words::{listed, nearest},
};

/// The longest unknown key that is listed with others; a longer one has a finding of its own, which
/// shortens it.
const MAX_STRAY_BYTES: usize = 40;

/// The state of reading one file.
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) findings: Findings,
    /// Keys from the root to the value that is being read.
    path: Vec<String>,
    /// The first two keys of every path at which something couldn't be read.
    broken: BTreeSet<(String, String)>,
    /// Whether no part of the file was lost to a syntax error.
    complete: bool,
    /// Sections that were lost to one.
    lost: BTreeSet<String>,
    /// Sections and known keys of theirs that an unknown key was probably meant to be: such a key
    /// isn't reported as missing as well.
    misspelt: BTreeSet<(Vec<String>, &'static str)>,
    error_count: usize,
    /// Whether keys stand in a section that they don't belong to, so that their own lacks them.
    pub(crate) strays: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            findings: Findings::default(),
            path: Vec::new(),
            broken: BTreeSet::new(),
            complete: true,
            lost: BTreeSet::new(),
            misspelt: BTreeSet::new(),
            error_count: 0,
            strays: false,
        }
    }

    /// Reads something that stands under a key.
    pub(crate) fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let read = read(self);
        self.path.pop();
        read
    }

    /// The table that is being read, as people write it: `[nodes.gpu-01]`.
    fn section_name(&self) -> String {
        if self.path.is_empty() {
            "the inventory".to_owned()
        } else {
            format!("[{}]", self.path.join("."))
        }
    }

    /// The value that is being read, by its dotted key.
    fn key_name(&self) -> String {
        let mut name = String::new();
        for step in &self.path {
            // Steps into arrays are numbers. A table whose name is a number looks like one here.
            if step.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() {
                name.push_str(&format!("[{step}]"));
            } else {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(step);
            }
        }
        format!("`{name}`")
    }

    /// Notes that a part of the file was lost to a syntax error.
    pub(crate) fn incomplete(&mut self) {
        self.complete = false;
    }

    /// Notes that a section was lost.
    pub(crate) fn lost(&mut self, section: &str) {
        self.lost.insert(section.to_owned());
    }

    /// Whether all that stands under a path of two keys could be read: what is absent there is
    /// then absent in the file too.
    pub(crate) fn is_whole(&self, section: &str, name: &str) -> bool {
        let broken = |name: &str| self.broken.contains(&(section.to_owned(), name.to_owned()));
        self.complete && !broken(name) && !broken("")
    }

    /// Errors so far: where a section's reading adds to them, the section isn't what the file means.
    pub(crate) fn error_count(&self) -> usize {
        self.error_count
    }

    /// Whether every name of a section of named things is known: none was lost, misspelt, or put
    /// under a header that isn't known.
    pub(crate) fn knows_names(&self, section: &str) -> bool {
        let broken = |section: &str| self.broken.contains(&(section.to_owned(), String::new()));
        self.complete && !broken(section) && !broken("")
    }

    fn error(&mut self, code: &'static str, span: Range<usize>, message: String, hint: String) {
        self.error_count += 1;
        let mut path = self.path.iter().cloned();
        let section = path.next().unwrap_or_default();
        self.broken
            .insert((section, path.next().unwrap_or_default()));
        self.findings
            .push(Finding::error(code, span, message).hint(hint));
    }

    /// A value of the user's in a message, unless it is a secret.
    fn quoted(&self, span: &Range<usize>, text: &str) -> String {
        /// Characters of a value that a message shows.
        const MAX_CHARS: usize = 60;
        if self.source.is_secret(span) {
            return "the value".to_owned();
        }
        let mut shown: String = text.chars().take(MAX_CHARS).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        format!("{shown:?}")
    }

    /// Reports a value of another type than the expected one.
    pub(crate) fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        let hint = match (value.get_ref(), expected) {
            (DeValue::String(_), "an array") => "Put it in brackets: [\"…\"].".to_owned(),
            (DeValue::Table(_), "an array") => {
                "Put it in brackets, [{ … }], or write its header with two: [[…]].".to_owned()
            }
            (DeValue::String(text), "an integer") if text.parse::<u64>().is_ok() => {
                "Leave out the quotes.".to_owned()
            }
            (DeValue::String(text), "true or false") if matches!(&**text, "true" | "false") => {
                "Leave out the quotes.".to_owned()
            }
            (DeValue::Array(_) | DeValue::Table(_), "a string") => {
                "Give one value in quotes.".to_owned()
            }
            (_, "a string") => "Put it in quotes.".to_owned(),
            (_, "a table") => "Write its keys under a header of its own, or as { … }.".to_owned(),
            _ => format!("Give {expected}."),
        };
        let message = format!("{} must be {expected}, not {found}", self.key_name());
        self.error("wrong-type", value.span(), message, hint);
    }

    /// Reports a text that isn't of the expected form.
    pub(crate) fn not_expected(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        found: &str,
        expected: &str,
    ) {
        // A secret in the place has its own finding.
        if self.source.is_secret(&value.span()) {
            return;
        }
        let message = format!(
            "{} is {}, which is not well formed",
            self.key_name(),
            self.quoted(&value.span(), found)
        );
        self.error(
            "malformed",
            value.span(),
            message,
            format!("Expected is {expected}."),
        );
    }

    /// Reports a name that isn't a DNS label.
    pub(crate) fn not_a_label(&mut self, span: Range<usize>, found: &str) {
        let mut hint = "A name is 1 to 63 of a-z, 0-9 and '-', without '-' at the ends.".to_owned();
        let mended: String = found
            .chars()
            .flat_map(char::to_lowercase)
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(63)
            .collect();
        let mended = mended.trim_matches('-');
        if crate::is_dns_label(mended) {
            hint.push_str(&format!(" Try `{mended}`."));
        }
        let message = format!("{} is not a DNS label", self.quoted(&span, found));
        self.error("not-a-label", span, message, hint);
    }

    /// A name that the user chose for a table.
    pub(crate) fn name<K: Name>(&mut self, key: &Spanned<Cow<'_, str>>) -> Option<K> {
        let name = key.get_ref().parse().ok();
        if name.is_none() {
            self.not_a_label(key.span(), key.get_ref());
        }
        name
    }

    /// The text of a value that is one.
    pub(crate) fn text<'v>(&mut self, value: &'v Spanned<DeValue<'_>>) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(value, "a string");
        }
        text
    }

    /// A text that is one of a few known words.
    pub(crate) fn word<'v>(
        &mut self,
        value: &'v Spanned<DeValue<'_>>,
        known: &[&str],
    ) -> Option<&'v str> {
        let word = self.text(value)?;
        if known.contains(&word) {
            return Some(word);
        }
        if !self.source.is_secret(&value.span()) {
            let message = format!(
                "{} is {}, which is not one of its values",
                self.key_name(),
                self.quoted(&value.span(), word)
            );
            let all = listed(known.iter().copied());
            let hint = match nearest(word, known.iter().copied()) {
                Some(near) => format!("Did you mean `{near}`? Possible are {all}."),
                None => format!("Possible are {all}."),
            };
            self.error("unknown-value", value.span(), message, hint);
        }
        None
    }

    /// An integer within limits.
    pub(crate) fn integer(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        low: u64,
        high: u64,
    ) -> Option<u64> {
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(value, "an integer");
            return None;
        };
        let number = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let number = number.filter(|n| (low..=high).contains(n));
        if number.is_none() {
            let message = format!("{} must be from {low} to {high}", self.key_name());
            let hint = format!("Give an integer from {low} to {high}.");
            self.error("out-of-range", value.span(), message, hint);
        }
        number
    }

    /// The table of a section, after its unknown keys are reported.
    pub(crate) fn section<'v, 'i>(
        &mut self,
        value: &'v Spanned<DeValue<'i>>,
        known: &[&'static str],
    ) -> Option<&'v DeTable<'i>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, "a table");
            return None;
        };
        let mut unknown: Vec<&Spanned<Cow<'_, str>>> = Vec::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let reported = secret::is_secret_name(name) && self.source.is_secret(&value.span());
            if !known.contains(&name) && !reported {
                unknown.push(key);
            }
        }
        unknown.sort_by_key(|key| key.span().start);
        let near = |key: &Spanned<Cow<'_, str>>| nearest(key.get_ref(), known.iter().copied());
        let strange = unknown.iter().filter(|key| near(key).is_none()).count();
        if let [first, _, ..] = unknown.as_slice()
            && strange > 0
            && !unknown
                .iter()
                .any(|key| key.get_ref().len() > MAX_STRAY_BYTES)
        {
            // So many at once aren't misspelt: they belong to another table.
            let names = listed(unknown.iter().map(|key| &**key.get_ref()));
            let message = format!("unknown keys in {}: {names}", self.section_name());
            let hint = "If they belong to another section, its header is missing above them.";
            self.complete = false;
            self.strays = true;
            let span = first.span();
            self.error("unknown-key", span, message, hint.to_owned());
            return Some(table);
        }
        for key in unknown {
            let name: &str = key.get_ref();
            let all = listed(known.iter().copied());
            let near = near(key);
            if let Some(near) = known.iter().copied().find(|k| near == Some(*k)) {
                self.misspelt.insert((self.path.clone(), near));
            }
            let hint = match near {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("Known here are {all}."),
            };
            let message = format!(
                "unknown key {} in {}",
                self.quoted(&key.span(), name),
                self.section_name()
            );
            self.error("unknown-key", key.span(), message, hint);
        }
        Some(table)
    }

    /// The value of a section's key, or what stands for it where it is absent.
    pub(crate) fn key<T: Value>(
        &mut self,
        owner: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
        key: &'static str,
        rule: Rule,
        fallback: impl Fn() -> Option<T>,
    ) -> Option<T> {
        let Some(value) = table.get(key) else {
            let value = fallback();
            if value.is_none() {
                self.missing(owner, key);
            }
            return value;
        };
        // What couldn't be read isn't as if it were absent: nothing may be concluded from a default
        // that the file doesn't mean.
        self.within(key, |cx| T::read(value, rule, cx))
    }

    /// Whether an unknown key of a section was probably meant to be this one.
    fn is_misspelt(&self, section: &[String], key: &str) -> bool {
        self.misspelt
            .iter()
            .any(|(path, near)| path == section && *near == key)
    }

    /// Whether a whole section is absent because it was lost, and not because nobody wrote it.
    pub(crate) fn is_lost(&self, section: &str) -> bool {
        self.lost.contains(section) || self.is_misspelt(&[], section)
    }

    fn missing(&mut self, owner: &Spanned<DeValue<'_>>, key: &'static str) {
        let section_misspelt = self
            .path
            .first()
            .is_some_and(|section| self.is_misspelt(&[], section));
        if !self.complete || section_misspelt || self.is_misspelt(&self.path, key) {
            return;
        }
        let (span, message, hint) = if self.path.is_empty() {
            (
                0..0,
                format!("the section [{key}] is missing"),
                format!("Add [{key}]; the reference says what belongs in it."),
            )
        } else {
            let more = format!(", and the key `{key}`");
            if self.findings.add_to("missing-key", &owner.span(), &more) {
                self.error_count += 1;
                return;
            }
            (
                owner.span(),
                format!("{} lacks the key `{key}`", self.section_name()),
                format!("Add `{key} = …`."),
            )
        };
        self.error("missing-key", span, message, hint);
    }
}
