//! Helm values: merging what the user sets over what we set, and finding paths that a chart
//! doesn't have.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::Problem;

/// Puts one value over another as Helm does: objects are merged, `null` takes a key away, and
/// everything else replaces.
pub fn merge(base: &mut Value, over: &Value) {
    let (Value::Object(base), Value::Object(over)) = (&mut *base, over) else {
        *base = over.clone();
        return;
    };
    for (key, value) in over {
        match (base.get_mut(key), value) {
            // Helm takes a default away by null, so it must be written where it stands over one
            // of the chart's own values.
            (_, Value::Null) => {
                base.insert(key.clone(), Value::Null);
            }
            (Some(below @ Value::Object(_)), Value::Object(_)) => merge(below, value),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Sets a value at a path of keys, making objects on the way where none are.
pub(crate) fn set(root: &mut Value, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *root = value;
        return;
    };
    if !root.is_object() {
        *root = Value::Object(Map::new());
    }
    if let Value::Object(map) = root {
        let below = map.entry((*first).to_owned()).or_insert(Value::Null);
        set(below, rest, value);
    }
}

/// A value at a path of keys.
pub(crate) fn get<'a>(root: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(root, |at, key| at.get(key))
}

/// The paths of values that a chart has, from a list of one path a line.
///
/// A path is keys joined by dots, a dot in a key is written `\.`, and a last key `*` stands for
/// any keys at all, however deep. Empty lines and those that begin with `#` are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownValues<'a> {
    exact: BTreeSet<&'a str>,
    open: BTreeSet<&'a str>,
}

impl<'a> KnownValues<'a> {
    /// Reads a list.
    pub fn parse(list: &'a str) -> Self {
        let mut known = Self::default();
        for line in list.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.strip_suffix(".*") {
                Some(open) => known.open.insert(open),
                None => known.exact.insert(line),
            };
        }
        known
    }

    /// Whether nothing is known, so that nothing can be said about a path.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.open.is_empty()
    }

    fn is_open(&self, path: &str) -> bool {
        self.open.contains(path)
    }

    /// Whether the path is on the way to a known one.
    fn is_inner(&self, path: &str) -> bool {
        let below = format!("{path}.");
        [&self.exact, &self.open].into_iter().any(|set| {
            set.range(below.as_str()..)
                .next()
                .is_some_and(|next| next.starts_with(&below))
        })
    }

    /// The paths that are set and that the chart doesn't have, or has otherwise.
    pub fn misfits<'v>(&self, values: &'v Value) -> Vec<Misfit<'a, 'v>> {
        let mut found = Vec::new();
        if !self.is_empty() {
            self.walk(&mut Vec::new(), values, &mut found);
        }
        found
    }

    /// The paths that are set and that the chart doesn't have, each with the nearest that it has.
    pub fn unknown(&self, values: &Value) -> Vec<(String, Option<&'a str>)> {
        let misfits = self.misfits(values).into_iter();
        misfits
            .filter_map(|misfit| match misfit.wrong {
                Wrong::Unknown { nearest } => Some((path(&misfit.keys), nearest)),
                Wrong::NotKeys { .. } => None,
            })
            .collect()
    }

    fn walk<'v>(&self, keys: &mut Vec<&'v str>, value: &'v Value, found: &mut Vec<Misfit<'a, 'v>>) {
        let Value::Object(map) = value else {
            return;
        };
        for (key, value) in map {
            keys.push(key);
            let path = path(keys);
            let exact = self.exact.contains(path.as_str());
            let inner = self.is_inner(&path);
            if self.is_open(&path) {
                // Anything goes.
            } else if !exact && !inner {
                found.push(Misfit {
                    keys: keys.clone(),
                    wrong: Wrong::Unknown {
                        nearest: self.nearest(&path),
                    },
                });
            } else if inner {
                // Null takes the whole of it away, as Helm has it.
                if !exact && !value.is_object() && !value.is_null() {
                    found.push(Misfit {
                        keys: keys.clone(),
                        wrong: Wrong::NotKeys { is: kind(value) },
                    });
                }
                self.walk(keys, value, found);
            }
            keys.pop();
        }
    }

    /// The known path that is most like one, where one is like it at all.
    fn nearest(&self, path: &str) -> Option<&'a str> {
        const ALIKE: f64 = 0.85;
        self.exact
            .iter()
            .chain(&self.open)
            .map(|known| (strsim::jaro_winkler(path, known), *known))
            .filter(|(likeness, _)| *likeness >= ALIKE)
            .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
            .map(|(_, known)| known)
    }
}

/// Keys as a path of the list.
fn path(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| key.replace('.', "\\.")).collect();
    keys.join(".")
}

/// A value that a chart doesn't have so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit<'a, 'v> {
    /// The keys that lead to it.
    pub keys: Vec<&'v str>,
    /// What is wrong with it.
    pub wrong: Wrong<'a>,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong<'a> {
    /// The chart has nothing at its path.
    Unknown {
        /// The path that is most like it, where one is.
        nearest: Option<&'a str>,
    },
    /// The chart has keys below it, and this is something else.
    NotKeys {
        /// What it is.
        is: &'static str,
    },
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "keys with values",
    }
}

/// A problem for each value that a chart doesn't have so.
pub(crate) fn lint(chart: &str, file: &str, known: &str, values: &Value) -> Vec<Problem> {
    let known = KnownValues::parse(known);
    let misfits = known.misfits(values).into_iter();
    misfits
        .map(|misfit| {
            let path = path(&misfit.keys);
            let problem = match misfit.wrong {
                Wrong::Unknown { nearest } => Problem::new(
                    "unknown-value",
                    format!("the chart {chart} has no value `{path}`"),
                )
                .hint(nearest.map_or_else(
                    || format!("`helm show values {chart}` lists the values that it has."),
                    |nearest| format!("Did you mean `{nearest}`?"),
                )),
                Wrong::NotKeys { is } => Problem::new(
                    "value-kind",
                    format!("`{path}` is {is}, and the chart {chart} has keys below it"),
                )
                .hint(format!(
                    "`helm show values {chart}` shows which; a value that is to be taken away is null."
                )),
            };
            problem.in_file(file).at_keys(misfit.keys)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_merge_as_helms_do() {
        let mut base = json!({ "a": { "b": 1, "c": [1, 2] }, "d": 1 });
        merge(
            &mut base,
            &json!({ "a": { "c": [3], "e": true }, "d": null }),
        );
        assert_eq!(
            base,
            json!({ "a": { "b": 1, "c": [3], "e": true }, "d": null })
        );
    }

    #[test]
    fn a_misspelt_path_is_found_with_the_nearest() {
        let list = "hubble.enabled\nhubble.tls.auto.method\nnodeSelector.*\ntolerations\nconfigs.cm.*\nconfigs.params.server\\.insecure\nannotations\n";
        let known = KnownValues::parse(list);
        let good = json!({
            "hubble": { "enabled": true, "tls": { "auto": { "method": "cronJob" } } },
            "nodeSelector": { "a.b/c": "d" },
            "tolerations": [{ "any": "thing" }],
            "configs": { "cm": { "x.y": { "deep": 1 } }, "params": { "server.insecure": true } },
        });
        assert_eq!(known.misfits(&good), []);
        let none = json!({ "hubble": { "tls": null }, "configs": null });
        assert_eq!(known.misfits(&none), []);
        let bad = json!({
            "hubble": { "enable": true, "tls": { "auto": { "methods": "x" } } },
            "configs": { "params": { "server": { "insecure": 1 } } },
            "zzz": 1,
        });
        let mut found = known.unknown(&bad);
        found.sort();
        assert_eq!(
            found,
            [
                (
                    "configs.params.server".to_owned(),
                    Some("configs.params.server\\.insecure")
                ),
                ("hubble.enable".to_owned(), Some("hubble.enabled")),
                (
                    "hubble.tls.auto.methods".to_owned(),
                    Some("hubble.tls.auto.method")
                ),
                ("zzz".to_owned(), None),
            ]
        );
    }

    #[test]
    fn what_has_keys_in_the_chart_is_nothing_else() {
        let known = "hubble.enabled\nhubble.tls.auto.method\nextra\nextra.deep\n";
        let values = json!({ "hubble": { "tls": ["a"] }, "extra": "either way" });
        let problems = lint("cilium", "values/cilium.yaml", known, &values);
        let [problem] = problems.as_slice() else {
            panic!("{problems:?}");
        };
        assert_eq!(
            problem.message,
            "`hubble.tls` is a list, and the chart cilium has keys below it"
        );
    }
}
