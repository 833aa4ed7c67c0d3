//! The files of a tree, their heads, and the digests by which an edited file is known.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{Choices, Problem, yaml};

/// Everything that is rendered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tree {
    /// The files with their content, by path from the inventory's folder; the digests are among
    /// them.
    pub files: BTreeMap<String, String>,
    /// Names of the Applications, wave by wave.
    pub waves: Vec<Vec<String>>,
    /// What the bootstrap does, in order.
    pub bootstrap: Vec<BootstrapStep>,
    /// What of it can't be changed where it is.
    pub choices: Choices,
}

/// A step by which a cluster gets its network, Argo CD and the root Application. Each is
/// idempotent: it is applied server-side as Argo CD will, so that Argo CD's own first sync finds
/// nothing to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum BootstrapStep {
    /// Apply a rendered file.
    Apply {
        /// The file, from the inventory's folder.
        file: String,
    },
    /// Render a chart with Helm and apply what comes, unless Argo CD keeps it already.
    Chart {
        /// Component.
        component: String,
        /// Helm's release.
        release: String,
        /// Namespace of the release.
        namespace: String,
        /// URL of the chart's repository.
        repository: String,
        /// Name of the chart.
        chart: String,
        /// Version of the chart.
        version: String,
        /// Digest of the chart's archive, where it is locked.
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        /// File with its values, from the inventory's folder.
        values: String,
    },
}

/// The field manager with which the bootstrap applies objects: Argo CD's own, so that there is
/// one owner of each field from the beginning.
pub const FIELD_MANAGER: &str = "argocd-controller";

/// The head of a rendered file that `#` comments out.
pub(crate) fn head(advice: &str) -> String {
    format!("# Rendered by `undercroft render`. {advice}\n")
}

/// Values or an object as a file, with a head.
pub(crate) fn document(advice: &str, value: &Value) -> Result<String, Problem> {
    let text = yaml::print(value).map_err(|e| bug(&e))?;
    Ok(format!("{}{text}", head(advice)))
}

/// Objects as a file of several documents, with a head, each with its comment.
pub(crate) fn documents<'a>(
    advice: &str,
    objects: impl IntoIterator<Item = (&'a str, &'a Value)>,
) -> Result<String, Problem> {
    let mut out = head(advice);
    for (i, (comment, object)) in objects.into_iter().enumerate() {
        if i > 0 {
            out.push_str("---\n");
        }
        for line in wrap(comment, 96) {
            let _ = writeln!(out, "# {line}");
        }
        out.push_str(&yaml::print(object).map_err(|e| bug(&e))?);
    }
    Ok(out)
}

fn bug(error: &yaml::YamlError) -> Problem {
    Problem::new("yaml", format!("a manifest has no YAML form: {error}"))
}

/// A text in lines of a width, broken at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// SHA-256 of a text in hexadecimal.
pub fn digest(text: &[u8]) -> String {
    let hash = Sha256::digest(text);
    hash.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The digests of rendered files, in the form that `sha256sum --check` reads.
pub(crate) fn print_digests(files: &BTreeMap<String, String>) -> String {
    let mut out = head(
        "Digests of the rendered files, from the inventory's folder: `sha256sum --check` tells which were edited.",
    );
    for (path, text) in files {
        let _ = writeln!(out, "{}  {path}", digest(text.as_bytes()));
    }
    out
}

/// Reads what [`Tree`]'s file of digests says: the digest of each file. Lines of another form are
/// left out, so that a damaged file only makes edited files of those that it no longer names.
pub fn parse_digests(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once("  "))
        .filter(|(digest, path)| digest.len() == 64 && is_inside(path))
        .map(|(digest, path)| (path.to_owned(), digest.to_owned()))
        .collect()
}

/// Whether a path stays in the folder that it is relative to.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_as_printed_and_nothing_leads_out_of_the_folder() {
        let files = BTreeMap::from([("gitops/a b.yaml".to_owned(), "x\n".to_owned())]);
        let text = print_digests(&files);
        let read = parse_digests(&text);
        assert_eq!(read["gitops/a b.yaml"], digest(b"x\n"));
        let zero = "0".repeat(64);
        let hostile = format!("{zero}  ../a\n{zero}  /etc/passwd\n{zero}  a/./b\nshort  a\nx\n");
        assert_eq!(parse_digests(&hostile), BTreeMap::new());
    }

    #[test]
    fn comments_are_wrapped() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("", 5), Vec::<String>::new());
    }
}
