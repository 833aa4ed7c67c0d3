//! Inventories that each have one fault: the finding comes with its place and a hint.
//!
//! The first line of each file in `broken/` says what is expected: the finding's code, its line
//! and column, and how many characters are marked.

use std::{fmt::Write as _, fs, path::PathBuf};

use undercroft_model::{Diagnostic, inventory::parse};

struct Case {
    name: String,
    expected: String,
    findings: Vec<Diagnostic>,
    usable: bool,
}

fn cases() -> Vec<Case> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let head = String::from_utf8_lossy(&bytes);
            let expected = head.lines().next().unwrap();
            let expected = expected.strip_prefix("# expect: ").unwrap().to_owned();
            let parsed = parse(&name, &bytes);
            Case {
                name,
                expected,
                usable: parsed.inventory.is_some(),
                findings: parsed.diagnostics,
            }
        })
        .collect()
}

#[test]
fn each_fault_is_found_at_its_place_with_a_hint() {
    let cases = cases();
    assert!(cases.len() >= 40, "{} inventories", cases.len());
    let mut faults = String::new();
    for case in &cases {
        let places: Vec<String> = case
            .findings
            .iter()
            .map(|d| {
                format!(
                    "{} at {}:{}, {} marked",
                    d.code,
                    d.place.line,
                    d.place.column,
                    d.excerpt.marked.chars().count()
                )
            })
            .collect();
        let found = places.iter().position(|p| *p == case.expected);
        let hinted = found.is_some_and(|i| case.findings[i].hint.is_some());
        if !hinted {
            writeln!(faults, "{}: {} in {places:#?}", case.name, case.expected).unwrap();
        }
        let errors = case.findings.iter().any(Diagnostic::is_error);
        assert_eq!(case.usable, !errors, "{}", case.name);
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn the_findings_read_well() {
    for case in cases() {
        let text: Vec<String> = case.findings.iter().map(ToString::to_string).collect();
        let name = case.name.trim_end_matches(".toml").to_owned();
        insta::assert_snapshot!(name, text.join("\n"));
    }
}

#[test]
fn no_finding_shows_a_secret() {
    let mut seen = 0;
    for case in cases().into_iter().filter(|c| c.name.contains("-secret-")) {
        seen += 1;
        for finding in &case.findings {
            let shown = format!("{finding} {finding:?}");
            for secret in [
                "EXAMPLEEXAMPLE",
                "correct horse",
                "not a real one",
                "EXAMPLE-NOT",
                "hunter2",
            ] {
                assert!(!shown.contains(secret), "{}: {shown}", case.name);
            }
        }
    }
    assert!(seen >= 5);
}
