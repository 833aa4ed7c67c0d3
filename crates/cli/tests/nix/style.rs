//! Syntax and style of every .nix file of the repository.
//!
//! The style is that of nixfmt as far as a small program can see it: nixfmt itself is written in
//! Haskell, and no machine that runs these tests has it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{nix_is_here, repository};

/// The longest line, in characters: nixfmt's own width. Texts in strings may be longer.
const LINE_CHARS_MAX: usize = 100;

fn nix_files() -> Vec<PathBuf> {
    let files: Vec<PathBuf> = undercroft_testkit::tracked(".")
        .into_iter()
        .filter(|file| file.extension().is_some_and(|end| end == "nix"))
        .map(|file| repository().join(file))
        .collect();
    assert!(files.len() > 10, "{files:?}");
    files
}

#[test]
fn every_file_can_be_parsed() {
    if !nix_is_here() {
        return;
    }
    let output = Command::new("nix-instantiate")
        .arg("--parse")
        .args(nix_files())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_file_keeps_to_the_style() {
    let mut findings = Vec::new();
    for path in nix_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        findings.extend(faults(&path, &text));
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn faults(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fault = |line: usize, what: &str| {
        found.push(format!("{}:{line}: {what}", path.display()));
    };
    // A text between two quotes keeps its own indentation, and a shell's tabs.
    let mut in_text = false;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim_end() != line {
            fault(number, "blanks at the end");
        }
        let opens_text = line.matches("''").count();
        if !in_text {
            let indent = line.len() - line.trim_start_matches(' ').len();
            if line.contains('\t') {
                fault(number, "a tab");
            }
            if indent % 2 != 0 && !line.trim_start().starts_with('*') {
                fault(number, "indented by an odd number of blanks");
            }
            if line.chars().count() > LINE_CHARS_MAX && !line.contains('"') {
                fault(number, "longer than 100 characters");
            }
            if indent == 0 && line.starts_with("with ") {
                fault(
                    number,
                    "`with` around a whole file hides where names come from",
                );
            }
            if indent == 0 && (line == "rec {" || line.starts_with("rec {")) {
                fault(
                    number,
                    "`rec` around a whole file; name the parts in a `let`",
                );
            }
        }
        let escaped = line.matches("''${").count() + line.matches("'''").count();
        if (opens_text - escaped.min(opens_text)) % 2 == 1 {
            in_text = !in_text;
        }
    }
    if !text.ends_with('\n') || text.ends_with("\n\n") {
        fault(text.lines().count(), "must end with one line break");
    }
    if !text.starts_with('#') && !path.ends_with("flake.nix") && text.lines().count() > 8 {
        fault(
            1,
            "must begin with a comment that says what the file is for",
        );
    }
    found
}

#[test]
fn the_style_can_be_missed() {
    let path = Path::new("x.nix");
    for (text, what) in [
        ("# x\n{ a = 1; }", "one line break"),
        ("# x\n{ a = 1; } \n", "blanks"),
        ("# x\n{\n\ta = 1; }\n", "a tab"),
        ("# x\n{\n   a = 1; }\n", "odd number"),
        ("# x\nwith lib;\n{ }\n", "`with`"),
        ("# x\nrec {\n}\n", "`rec`"),
        ("{\n}\n\n\n\n\n\n\n\n1\n", "begin with a comment"),
    ] {
        let found = faults(path, text);
        assert!(
            found.iter().any(|f| f.contains(what)),
            "{text:?}: {found:?}"
        );
    }
    let shell = "# x\n{\n  a = ''\n   three blanks in a text, and ''${more}\n  '';\n}\n";
    assert!(faults(path, shell).is_empty());
}
