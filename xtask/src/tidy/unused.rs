//! Public items that nobody names.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

/// What may stand between `pub` and what is defined.
const QUALIFIERS: [&str; 3] = ["async ", "unsafe ", "extern "];
/// What is defined, before its name. A constant may also be a function that can run at compile time.
const KINDS: [&str; 7] = [
    "fn ", "struct ", "enum ", "trait ", "static ", "type ", "const ",
];

/// Adds a finding for each public item of the crates whose name stands nowhere but where it is defined, tests and
/// examples included. The compiler says so of what is private alone.
pub(crate) fn check(root: &Path, files: &[PathBuf], findings: &mut Vec<String>) {
    let mut named: HashMap<String, usize> = HashMap::new();
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "rs"))
    {
        let Ok(content) = std::fs::read_to_string(root.join(file)) else {
            continue;
        };
        let is_library = file.starts_with("crates") && file.iter().any(|part| part == "src");
        for (number, line) in content.lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with("//") {
                continue;
            }
            for word in line.split(|c: char| !c.is_alphanumeric() && c != '_') {
                *named.entry(word.to_owned()).or_default() += 1;
            }
            if let Some(name) = defines(line).filter(|_| is_library) {
                let place = format!("{}:{}", file.display(), number + 1);
                defined.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    for (name, places) in defined {
        if named.get(&name).is_none_or(|times| *times <= places.len()) {
            let places = places.join(", ");
            findings.push(format!(
                "{places}: nobody names `{name}`; it is public, and can go"
            ));
        }
    }
}

/// The name of the public item that begins on a line.
fn defines(line: &str) -> Option<&str> {
    let mut rest = line.strip_prefix("pub ")?;
    while let Some(after) = QUALIFIERS.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = after;
    }
    let mut name = KINDS.iter().find_map(|kind| rest.strip_prefix(kind))?;
    name = name.strip_prefix("fn ").unwrap_or(name);
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
    name.get(..end.unwrap_or(name.len()))
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_off_their_definitions() {
        for (line, name) in [
            ("pub fn plan(", Some("plan")),
            ("pub async fn look_at<T>(", Some("look_at")),
            ("pub const fn of(n: u8)", Some("of")),
            ("pub const LIMIT_MS: u64 = 1;", Some("LIMIT_MS")),
            ("pub struct Unit;", Some("Unit")),
            ("pub(crate) fn own()", None),
            ("pub use other::Thing;", None),
            ("pub field: u8,", None),
        ] {
            assert_eq!(defines(line), name, "{line}");
        }
    }

    #[test]
    fn what_nobody_names_is_found_and_what_a_test_names_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
            PathBuf::from(name)
        };
        let files = [
            write(
                "crates/a/src/lib.rs",
                "pub fn used() {}\npub fn in_a_test() {}\n/// [`never`]\npub fn never() {}\npub(crate) fn own() {}\n",
            ),
            write("crates/b/src/lib.rs", "fn f() { a::used(); }\n"),
            write(
                "crates/b/tests/t.rs",
                "#[test]\nfn t() { a::in_a_test(); }\n",
            ),
        ];
        let mut findings = Vec::new();
        check(dir.path(), &files, &mut findings);
        assert_eq!(
            findings,
            ["crates/a/src/lib.rs:4: nobody names `never`; it is public, and can go"]
        );
    }
}
