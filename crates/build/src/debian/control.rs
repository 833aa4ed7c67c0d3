//! Debian's control format, as far as `apt-cache show` and deb822 source lists use it.
//!
//! Source: deb-src-control(5) and deb822(5). Parsing is total: a line that fits nothing is left
//! out, for both kinds of file are written by programs that check them first.

use std::collections::BTreeMap;

/// One paragraph: field names in lower case, values with their continuation lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Paragraph(BTreeMap<String, String>);

impl Paragraph {
    /// The value of a field, trimmed; continuation lines are kept, each after a newline.
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.0.get(&field.to_ascii_lowercase()).map(String::as_str)
    }

    /// The words of a field, empty where it is absent.
    pub(crate) fn words(&self, field: &str) -> Vec<&str> {
        self.get(field)
            .unwrap_or_default()
            .split_whitespace()
            .collect()
    }
}

/// Splits a text in paragraphs. Comment lines are left out.
pub(crate) fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut all = Vec::new();
    let mut current = Paragraph::default();
    let mut field: Option<String> = None;
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if !current.0.is_empty() {
                all.push(std::mem::take(&mut current));
            }
            field = None;
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = field.as_ref().and_then(|name| current.0.get_mut(name)) {
                value.push('\n');
                value.push_str(line.trim_end());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            let name = name.trim().to_ascii_lowercase();
            current.0.insert(name.clone(), value.trim().to_owned());
            field = Some(name);
        }
    }
    if !current.0.is_empty() {
        all.push(current);
    }
    all
}

/// The package names of a dependency field: of each comma-separated relation the alternatives,
/// without versions, architectures and build profiles.
pub(crate) fn dependencies(field: &str) -> Vec<Vec<String>> {
    field
        .split(',')
        .map(|relation| {
            relation
                .split('|')
                .filter_map(|alternative| {
                    let name = alternative
                        .trim_start()
                        .split([' ', '\t', '\n', '(', '[', '<', ':'])
                        .next()
                        .unwrap_or_default();
                    (!name.is_empty()).then(|| name.to_owned())
                })
                .collect::<Vec<_>>()
        })
        .filter(|alternatives| !alternatives.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_paragraphs_with_comments_and_continuations() {
        let text = "Types: deb\n# a comment\nURIs: http://a/b\nSigned-By:\n -----BEGIN\n .\n xyz\n\n\nPackage: b\n";
        let got = paragraphs(text);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].get("uris"), Some("http://a/b"));
        assert_eq!(got[0].get("Signed-By"), Some("\n -----BEGIN\n .\n xyz"));
        assert_eq!(got[1].get("package"), Some("b"));
        assert_eq!(got[0].words("Types"), ["deb"]);
    }

    #[test]
    fn reads_alternatives_versions_and_architectures() {
        assert_eq!(
            dependencies(
                "libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0, perl:any,  zlib1g [amd64] <!nocheck>"
            ),
            vec![
                vec!["libc6".to_owned()],
                vec!["debconf".to_owned(), "debconf-2.0".to_owned()],
                vec!["perl".to_owned()],
                vec!["zlib1g".to_owned()],
            ]
        );
        assert!(dependencies(" , ").is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}", more in "[ a-z:#\n\t,|()]{0,200}") {
            let _ = paragraphs(&text);
            for paragraph in paragraphs(&more) {
                let _ = paragraph.words("a");
            }
            let _ = dependencies(&text);
            let _ = dependencies(&more);
        }
    }
}
