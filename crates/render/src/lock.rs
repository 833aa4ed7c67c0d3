//! The lock file: which versions the tree is rendered with.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};
use undercroft_model::inventory::{Component, Inventory};

use crate::{Minor, Problem, problem::toml_problem};

/// Name of the lock file, beside the inventory.
pub const LOCK_FILE: &str = "undercroft.lock";
/// The form of the lock file that this program reads and writes.
pub const LOCK_VERSION: u32 = 1;

/// Versions of everything that the tree brings and that we don't make ourselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Form of the file: [`LOCK_VERSION`].
    pub version: u32,
    /// Minor version of Kubernetes that the tree was last rendered for, such as "1.34".
    pub kubernetes: Option<String>,
    /// The components, by their names.
    #[serde(default)]
    pub components: BTreeMap<String, Locked>,
}

/// One locked version: of a Helm chart, or of a container image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// URL of the chart's repository, or `oci://…`. Absent where there is no chart.
    pub repository: Option<String>,
    /// Name of the chart in the repository.
    pub chart: Option<String>,
    /// Container image without tag, where there is no chart.
    pub image: Option<String>,
    /// Version of the chart, or tag of the image.
    pub version: String,
    /// Version of what the chart installs.
    pub app_version: Option<String>,
    /// Digest of the chart's archive or of the image: `sha256:…`.
    pub digest: Option<String>,
    /// Versions of Kubernetes that it runs on, as Helm writes such ranges: ">=1.25.0".
    pub kubernetes: Option<String>,
}

impl Lock {
    /// The versions that this program brings.
    pub fn defaults() -> Self {
        Self::parse("", include_str!("components/defaults.lock")).unwrap_or_else(|_| Self {
            // A test reads the file that is built in, so this is never reached.
            version: LOCK_VERSION,
            kubernetes: None,
            components: BTreeMap::new(),
        })
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// When the text isn't one.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problem> {
        let lock: Self = toml::from_str(text).map_err(|e| {
            toml_problem("lock-syntax", file, text, &e)
                .hint("Take the file back from git, or remove it: `undercroft render` then begins with the versions that it brings.")
        })?;
        if lock.version != LOCK_VERSION {
            return Err(Problem::new(
                "lock-version",
                format!(
                    "the lock file has form {}, and this program reads form {LOCK_VERSION}",
                    lock.version
                ),
            )
            .in_file(file)
            .hint("Use the version of Undercroft that wrote it, or a newer one."));
        }
        lock.exact(file)?;
        Ok(lock)
    }

    /// Refuses what a lock file is there to rule out: versions that mean another one tomorrow.
    fn exact(&self, file: &str) -> Result<(), Problem> {
        if let Some(kubernetes) = &self.kubernetes
            && Minor::parse(kubernetes).is_none_or(|minor| minor.to_string() != *kubernetes)
        {
            return Err(Problem::new(
                "lock-kubernetes",
                format!("{kubernetes:?} is no minor version of Kubernetes, such as \"1.34\""),
            )
            .in_file(file)
            .hint("Take the line out: `undercroft render` writes it."));
        }
        for (name, locked) in &self.components {
            let exact = match (&locked.chart, &locked.image) {
                (None, Some(_)) => is_tag(&locked.version),
                _ => is_exact(&locked.version),
            };
            if !exact {
                return Err(Problem::new(
                    "lock-inexact",
                    format!("the version {:?} of {name} isn't one version", locked.version),
                )
                .in_file(file)
                .hint("Name one, such as \"1.2.3\": a range or a name like \"latest\" is another version tomorrow. `undercroft update` finds the newest."));
            }
        }
        Ok(())
    }

    /// Takes over from another lock the components that this one doesn't have.
    pub fn complete(&mut self, with: &Self) {
        for (name, locked) in &with.components {
            if !self.components.contains_key(name) {
                self.components.insert(name.clone(), locked.clone());
            }
        }
    }

    /// Takes over what the inventory says of images: where one that isn't published lies. In another place than before
    /// it begins with this program's own version, and without a digest.
    pub fn complete_for(&mut self, inventory: &Inventory) {
        let Some(image) = &inventory.lending.server_image else {
            return;
        };
        let name = Component::LendingServer.as_str();
        let locked = self.components.get(name);
        if locked.and_then(|locked| locked.image.as_ref()) == Some(image) {
            return;
        }
        let locked = Locked {
            image: Some(image.clone()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Locked::default()
        };
        self.components.insert(name.to_owned(), locked);
    }

    /// Notes the version of Kubernetes that a tree was rendered for, so that a later render knows
    /// which one it comes from. To be called after the render, which looks at the one before.
    pub fn note_kubernetes(&mut self, version: Option<&str>) {
        if let Some(minor) = version.and_then(Minor::parse) {
            self.kubernetes = Some(minor.to_string());
        }
    }

    /// The file, with its keys in order.
    pub fn print(&self) -> String {
        let mut out = String::from(
            "# Versions that `undercroft render` uses; `undercroft update` raises them.\n",
        );
        let _ = writeln!(out, "version = {}", self.version);
        key(&mut out, "kubernetes", self.kubernetes.as_deref());
        for (name, locked) in &self.components {
            let _ = writeln!(out, "\n[components.{name}]");
            key(&mut out, "repository", locked.repository.as_deref());
            key(&mut out, "chart", locked.chart.as_deref());
            key(&mut out, "image", locked.image.as_deref());
            key(&mut out, "version", Some(&locked.version));
            key(&mut out, "app_version", locked.app_version.as_deref());
            key(&mut out, "digest", locked.digest.as_deref());
            key(&mut out, "kubernetes", locked.kubernetes.as_deref());
        }
        out
    }
}

/// Whether a text is one version and no range: numbers first, with dots between them, and after `-`, `+` or
/// `.` what a release or a tag is further called. A part that is `x` or `*` stands for any number.
fn is_exact(version: &str) -> bool {
    let bare = version.strip_prefix('v').unwrap_or(version);
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_');
    bare.starts_with(|c: char| c.is_ascii_digit())
        && bare.chars().all(known)
        && bare.contains('.')
        && !bare
            .split(['.', '-', '+'])
            .any(|part| part.is_empty() || part.eq_ignore_ascii_case("x"))
}

/// Whether a text can be an image's tag (the distribution specification's grammar) and doesn't only look like
/// one, as "1.x" does. That a tag such as "nightly" moves is told when it is updated.
fn is_tag(tag: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.len() <= 128
        && tag.chars().all(known)
        && !tag
            .split(['.', '-'])
            .any(|part| part.eq_ignore_ascii_case("x"))
}

/// A key with a text, as TOML's basic string.
fn key(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        // A JSON string is a TOML basic string, save that TOML wants DEL escaped too.
        let quoted = serde_json::Value::from(value)
            .to_string()
            .replace('\u{7f}', "\\u007f");
        let _ = writeln!(out, "{name} = {quoted}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_means_another_one_tomorrow_is_refused() {
        let lock =
            |version: &str| format!("version = 1\n[components.cilium]\nversion = \"{version}\"\n");
        for good in [
            "1.19.5",
            "v0.29.2",
            "1.0.0-rc.1",
            "2.12.4-alpine",
            "1.2.3+k3s1",
            "9.5",
        ] {
            Lock::parse("", &lock(good)).unwrap();
        }
        for bad in [
            "1.x",
            "1.X.3",
            "x",
            "*",
            "1.*",
            "^1.2.3",
            "~1.2",
            ">=1.2.3",
            "1.2.3 - 1.4",
            "1.2 || 1.3",
            "latest",
            "",
            "1",
            "v",
            "stable",
            "1..2",
            " 1.2.3",
            "1.2.3,1.2.4",
            "=1.2.3",
        ] {
            let refused = Lock::parse("", &lock(bad)).unwrap_err();
            assert_eq!(refused.code, "lock-inexact", "{bad}");
        }
        // Images have tags, which needn't be versions.
        let image = |tag: &str| {
            format!("version = 1\n[components.x]\nimage = \"a/b\"\nversion = \"{tag}\"\n")
        };
        for good in ["nightly", "1.2.3", "_a", "3"] {
            Lock::parse("", &image(good)).unwrap();
        }
        for bad in ["1.x", "x", "*", "^1", "", "a b", "1:2", "a/b", "a@sha256"] {
            let refused = Lock::parse("", &image(bad)).unwrap_err();
            assert_eq!(refused.code, "lock-inexact", "{bad}");
        }
        for bad in ["1.x", "1", "latest", "1.34.2", "v1.34", ">=1.30"] {
            let refused =
                Lock::parse("", &format!("version = 1\nkubernetes = \"{bad}\"\n")).unwrap_err();
            assert_eq!(refused.code, "lock-kubernetes", "{bad}");
        }
    }

    #[test]
    fn the_built_in_versions_are_a_lock_file_and_read_as_printed() {
        let built_in = Lock::parse("", include_str!("components/defaults.lock")).unwrap();
        assert!(!built_in.components.is_empty());
        assert_eq!(Lock::defaults(), built_in);
        assert_eq!(Lock::parse("", &built_in.print()).unwrap(), built_in);
    }
}
