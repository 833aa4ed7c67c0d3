//! `--help` is the reference: every page is kept as a snapshot.

use crate::support::{Sandbox, files};

/// The words of every command, as the manual pages name them.
fn commands(sandbox: &Sandbox) -> Vec<Vec<String>> {
    let made = sandbox.run(["man", "--dir", "pages"]);
    assert_eq!(made.code, 0, "{}", made.text());
    files(&sandbox.dir().join("pages"))
        .iter()
        .map(|file| {
            let name = file.strip_suffix(".1").unwrap();
            name.split('-').skip(1).map(str::to_owned).collect()
        })
        // `help` has the pages of all the others beneath it.
        .filter(|words: &Vec<String>| !words.contains(&"help".to_owned()))
        .collect()
}

#[test]
fn every_help_page() {
    let sandbox = Sandbox::new();
    let commands = commands(&sandbox);
    assert!(commands.len() > 5, "{commands:?}");
    for words in &commands {
        let ran = sandbox.run(words.iter().map(String::as_str).chain(["--help"]));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{words:?}");
        let name = if words.is_empty() {
            "undercroft".to_owned()
        } else {
            words.join("-")
        };
        insta::assert_snapshot!(name, ran.out);
    }
}

#[test]
fn every_command_is_documented_with_an_example() {
    let sandbox = Sandbox::new();
    for words in commands(&sandbox) {
        let help = sandbox
            .run(words.iter().map(String::as_str).chain(["--help"]))
            .out;
        assert!(
            help.contains("Example") || help.contains("A first try"),
            "{words:?} has no example:\n{help}"
        );
        for line in help.lines() {
            assert!(
                line.chars().count() <= 100,
                "{words:?} has a line over 100 columns: {line}"
            );
        }
    }
}

#[test]
fn manual_pages_are_troff_with_a_name() {
    let sandbox = Sandbox::new();
    let page = sandbox.run(["man"]);
    assert!(page.out.contains(".TH undercroft 1"), "{}", page.out);
    for words in commands(&sandbox) {
        let file = format!(
            "pages/undercroft{}.1",
            words.iter().map(|w| format!("-{w}")).collect::<String>()
        );
        let text = std::fs::read_to_string(sandbox.dir().join(&file)).unwrap();
        assert!(
            text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"),
            "{file}"
        );
    }
}
