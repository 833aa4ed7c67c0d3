//! The host's own apt sources, read to make a side database from the same places and keys.
//!
//! Source: sources.list(5), both its one-line form and its deb822 form.

use std::fmt::Write as _;
use std::path::Path;

use super::control::paragraphs;

/// One place of packages with its suites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// The value as the host has it: key file paths, fingerprints, or a key block with its
    /// continuation lines.
    signed_by: Option<String>,
}

/// Reads a deb822 file (`*.sources`).
pub(crate) fn parse_deb822(text: &str) -> Vec<Source> {
    let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
    paragraphs(text)
        .iter()
        .filter(|p| p.words("Types").contains(&"deb"))
        .filter(|p| {
            !matches!(
                p.get("Enabled"),
                Some("no" | "false" | "0" | "off" | "without")
            )
        })
        .map(|p| Source {
            uris: owned(p.words("URIs")),
            suites: owned(p.words("Suites")),
            components: owned(p.words("Components")),
            signed_by: p.get("Signed-By").map(str::to_owned),
        })
        .collect()
}

/// Reads a one-line file (`sources.list`, `*.list`).
pub(crate) fn parse_one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None;
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="))
        .map(|keys| keys.replace(',', " "));
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

/// Reads every source that apt itself would read below `etc_apt`.
pub(crate) fn read_host_sources(etc_apt: &Path) -> std::io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    match std::fs::read_to_string(etc_apt.join("sources.list")) {
        Ok(text) => sources.extend(parse_one_line(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut files = match std::fs::read_dir(etc_apt.join("sources.list.d")) {
        Ok(entries) => entries
            .map(|e| e.map(|e| e.path()))
            .collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    files.sort();
    for file in files {
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => sources.extend(parse_one_line(&std::fs::read_to_string(&file)?)),
            Some("sources") => sources.extend(parse_deb822(&std::fs::read_to_string(&file)?)),
            _ => {}
        }
    }
    Ok(sources)
}

/// Keeps the distribution's own suites: the release itself, its updates and its security fixes,
/// from sources that carry the component `main`. Other vendors' packages stay out.
pub(crate) fn of_release(sources: &[Source], codename: &str) -> Vec<Source> {
    let own = |suite: &String| {
        suite
            .strip_prefix(codename)
            .is_some_and(|rest| matches!(rest, "" | "-updates" | "-security" | "/updates"))
    };
    sources
        .iter()
        .filter(|source| source.components.iter().any(|c| c == "main"))
        .filter_map(|source| {
            let suites: Vec<String> = source.suites.iter().filter(|s| own(s)).cloned().collect();
            (!suites.is_empty()).then(|| Source {
                suites,
                components: vec!["main".to_owned()],
                ..source.clone()
            })
        })
        .collect()
}

/// The place that has the release itself, asked for another release instead.
pub(crate) fn with_suite(sources: &[Source], codename: &str, suite: &str) -> Option<Source> {
    let source = sources
        .iter()
        .find(|s| s.suites.iter().any(|name| name == codename))?;
    Some(Source {
        suites: vec![suite.to_owned()],
        ..source.clone()
    })
}

/// Prints a source in deb822 form, for the given Debian architectures only.
pub(crate) fn print(source: &Source, architectures: &[&str]) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(text, "Types: deb\nURIs: {}", source.uris.join(" "));
    let _ = writeln!(text, "Suites: {}", source.suites.join(" "));
    let _ = writeln!(text, "Components: {}", source.components.join(" "));
    let _ = writeln!(text, "Architectures: {}", architectures.join(" "));
    if let Some(keys) = &source.signed_by {
        let _ = writeln!(text, "Signed-By: {keys}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEB822: &str = "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By: /k.gpg\n\nEnabled: no\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n\nTypes: deb\nURIs: http://vendor.example\nSuites: nodistro\nComponents: main\n";

    #[test]
    fn the_two_forms_agree() {
        let one_line = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib # c\ndeb-src http://x bookworm main\n#deb http://y bookworm main\n";
        let got = of_release(&parse_one_line(one_line), "bookworm");
        let mut want = of_release(&parse_deb822(DEB822), "bookworm");
        assert_eq!(want[0].suites, ["bookworm", "bookworm-updates"]);
        want[0].suites.truncate(1);
        assert_eq!(got, want);
    }

    #[test]
    fn other_vendors_and_disabled_sources_stay_out() {
        let sources = of_release(&parse_deb822(DEB822), "bookworm");
        assert_eq!(sources.len(), 1);
        let vendor = parse_one_line(
            "deb http://v.example bookworm stable\ndeb http://w.example bookworm-pgdg main",
        );
        assert!(of_release(&vendor, "bookworm").is_empty());
    }

    #[test]
    fn prints_a_side_source_for_the_next_release() {
        let sources = of_release(&parse_deb822(DEB822), "bookworm");
        let next = with_suite(&sources, "bookworm", "trixie").unwrap();
        insta::assert_snapshot!(print(&next, &["amd64"]), @r"
        Types: deb
        URIs: http://mirror.example/debian
        Suites: trixie
        Components: main
        Architectures: amd64
        Signed-By: /k.gpg
        ");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ \\[\\]a-z:/#=\n,-]{0,300}") {
            let _ = of_release(&parse_one_line(&text), "b");
            let _ = of_release(&parse_deb822(&text), "b");
        }
    }
}
