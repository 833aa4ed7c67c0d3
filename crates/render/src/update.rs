//! Raising the locked versions: reading a chart repository's index, and choosing from it.

use std::collections::BTreeMap;

use semver::Version;
use serde::Deserialize;

use crate::{Locked, Minor, allows, check_step};

/// A chart repository's `index.yaml` (helm.sh/docs/topics/chart_repository), as far as it matters
/// here.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Index {
    /// The releases of each chart.
    #[serde(default)]
    entries: BTreeMap<String, Vec<Release>>,
}

/// One version of a chart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Version of the chart.
    pub version: String,
    /// Version of what it installs.
    #[serde(default)]
    pub app_version: Option<String>,
    /// Versions of Kubernetes that it runs on.
    #[serde(default)]
    pub kube_version: Option<String>,
    /// SHA-256 of the archive in hexadecimal.
    #[serde(default)]
    pub digest: Option<String>,
    /// Whether it shouldn't be used any more.
    #[serde(default)]
    pub deprecated: bool,
}

/// Why an index can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no index of a chart repository: {message}")]
pub struct ChartIndexError {
    message: String,
}

/// What there is for a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The locked version is the newest that goes with the cluster.
    Newest,
    /// This one is newer. `held` is a newer one still, which the cluster's Kubernetes is too old
    /// or too new for.
    Newer {
        /// The version to take.
        release: Box<Release>,
        /// One that can't be taken yet.
        held: Option<Box<Release>>,
        /// The newest one that is more than a step away.
        later: Option<Box<Release>>,
    },
    /// There are newer ones, and none of them goes with the cluster; the newest is given.
    Held(Box<Release>),
    /// There are newer ones, and none of them is within one step; the newest is given.
    TooFar(Box<Release>),
    /// The repository has no chart of that name, or no release that can be used.
    Missing,
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// When the text isn't one.
    pub fn parse(text: &str) -> Result<Self, ChartIndexError> {
        // An index of many megabytes is usual, so that the reader's own limits don't fit; the
        // caller limits the bytes, and the type what is kept of them.
        let options =
            serde_saphyr::options! { with_snippet: false, emit_comments: false, budget: None };
        serde_saphyr::from_str_with_options(text, options).map_err(|e| ChartIndexError {
            message: e.to_string(),
        })
    }

    /// An index of the releases of one component alone, as they were read from a registry.
    pub fn of(locked: &Locked, releases: Vec<Release>) -> Self {
        let name = locked.chart.clone().unwrap_or_default();
        Self {
            entries: BTreeMap::from([(name, releases)]),
        }
    }

    /// The newest release of a chart that goes with a version of Kubernetes. Pre-releases are
    /// left out unless the locked version is one; what is deprecated is left out, and so is what is
    /// more than one step of the component away.
    pub fn choose(&self, component: &str, locked: &Locked, kubernetes: Option<Minor>) -> Choice {
        let Some(current) = version(&locked.version) else {
            return Choice::Missing;
        };
        let mut releases: Vec<(Version, &Release)> = self
            .releases(locked)
            .filter(|(v, release)| {
                !release.deprecated && (v.pre.is_empty() || !current.pre.is_empty())
            })
            .collect();
        if releases.is_empty() {
            return Choice::Missing;
        }
        releases.retain(|(v, _)| *v > current);
        releases.sort_by(|a, b| b.0.cmp(&a.0));
        let farthest = releases.first().map(|(_, r)| Box::new((*r).clone()));
        releases.retain(|(_, r)| check_step(component, &locked.version, &r.version).is_ok());
        let newest = releases.first().map(|(_, r)| Box::new((*r).clone()));
        let later = farthest.filter(|farthest| newest.as_ref() != Some(farthest));
        if let (None, Some(later)) = (&newest, &later) {
            return Choice::TooFar(later.clone());
        }
        let usable = releases
            .iter()
            .find(|(_, release)| release.runs_on(kubernetes))
            .map(|(_, release)| Box::new((*release).clone()));
        match (usable, newest) {
            (None, None) => Choice::Newest,
            (None, Some(newest)) => Choice::Held(newest),
            (Some(release), newest) => Choice::Newer {
                held: newest.filter(|newest| *newest != release),
                later,
                release,
            },
        }
    }

    /// A certain release of a chart.
    pub fn exactly(&self, locked: &Locked, wanted: &str) -> Option<&Release> {
        let wanted = version(wanted)?;
        let mut releases = self.releases(locked);
        releases
            .find(|(v, _)| *v == wanted)
            .map(|(_, release)| release)
    }

    fn releases(&self, locked: &Locked) -> impl Iterator<Item = (Version, &Release)> {
        let chart = locked.chart.as_deref().unwrap_or_default();
        let releases = self.entries.get(chart).into_iter().flatten();
        releases.filter_map(|release| Some((version(&release.version)?, release)))
    }
}

impl Release {
    /// A release of which nothing but its version is known.
    pub fn named(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            app_version: None,
            kube_version: None,
            digest: None,
            deprecated: false,
        }
    }

    /// Whether it runs on a version of Kubernetes; where that or its range isn't known, it does.
    pub fn runs_on(&self, kubernetes: Option<Minor>) -> bool {
        match (&self.kube_version, kubernetes) {
            (Some(range), Some(minor)) => allows(range, minor).unwrap_or(true),
            _ => true,
        }
    }

    /// The lock file's entry for this release of the same chart.
    pub fn locked(&self, before: &Locked) -> Locked {
        Locked {
            repository: before.repository.clone(),
            chart: before.chart.clone(),
            image: before.image.clone(),
            version: self.version.clone(),
            app_version: self.app_version.clone(),
            digest: self.digest.as_ref().map(|digest| {
                let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
                format!("sha256:{hex}")
            }),
            kubernetes: self.kube_version.clone(),
        }
    }
}

/// The tags that are newer versions than one, the newest first; pre-releases are left out unless it
/// is one itself. Of two tags of the same version, such as `1.2.3` and `v1.2.3`, the one is taken that
/// is written as the present one is.
pub fn newer_tags<'a>(tags: &'a [String], than: &str) -> Vec<&'a str> {
    let Some(current) = version(than) else {
        return Vec::new();
    };
    let alike = |tag: &str| tag.starts_with('v') == than.starts_with('v');
    let mut newer: Vec<(Version, bool, &str)> = tags
        .iter()
        .filter_map(|tag| Some((version(tag)?, alike(tag), tag.as_str())))
        .filter(|(v, _, _)| *v > current && (v.pre.is_empty() || !current.pre.is_empty()))
        .collect();
    newer.sort_by(|a, b| b.cmp(a));
    newer.dedup_by(|later, kept| later.0 == kept.0);
    newer.into_iter().map(|(_, _, tag)| tag).collect()
}

/// Whether a text is a version that can be compared with others.
pub fn is_version(text: &str) -> bool {
    version(text).is_some()
}

/// A version, with or without a leading `v`. A tag can't have the `+` of a version's build; Helm
/// writes `_` for it.
pub(crate) fn version(text: &str) -> Option<Version> {
    let text = text.trim().trim_start_matches('v');
    Version::parse(&text.replace('_', "+")).ok()
}

/// Whether a step between two versions may break something: the first number that isn't zero
/// changes (semver.org, 4 and 8).
pub fn is_major_step(from: &str, to: &str) -> bool {
    let (Some(from), Some(to)) = (version(from), version(to)) else {
        return false;
    };
    let significant = |v: &Version| {
        if v.major > 0 {
            (v.major, 0)
        } else {
            (0, v.minor)
        }
    };
    significant(&from) != significant(&to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = r#"
apiVersion: v1
generated: "2026-01-01T00:00:00Z"
entries:
  web:
  - { version: 1.2.0, appVersion: "1.2", kubeVersion: ">=1.25.0-0", digest: "00ff" }
  - { version: 1.10.0, appVersion: "1.10", digest: "sha256:01" }
  - { version: 1.11.0-rc.1 }
  - { version: 1.12.0, deprecated: true }
  - { version: v2.0.0, kubeVersion: ">=1.36.0-0" }
  - { version: nonsense }
  other:
  - { version: 9.0.0 }
"#;

    fn locked(version: &str) -> Locked {
        Locked {
            chart: Some("web".to_owned()),
            version: version.to_owned(),
            ..Locked::default()
        }
    }

    #[test]
    fn the_newest_that_goes_with_the_cluster_is_chosen() {
        let index = Index::parse(INDEX).unwrap();
        let at =
            |version: &str, minor: &str| index.choose("web", &locked(version), Minor::parse(minor));
        match at("1.2.0", "1.34") {
            Choice::Newer {
                release,
                held,
                later: None,
            } => {
                assert_eq!(release.version, "1.10.0");
                assert_eq!(held.unwrap().version, "v2.0.0");
                assert_eq!(
                    release.locked(&locked("1.2.0")).digest.unwrap(),
                    "sha256:01"
                );
            }
            other => panic!("{other:?}"),
        }
        match at("1.2.0", "1.36") {
            Choice::Newer {
                release,
                held: None,
                later: None,
            } => assert_eq!(release.version, "v2.0.0"),
            other => panic!("{other:?}"),
        }
        match at("1.11.0-beta", "1.30") {
            Choice::Newer { release, .. } => assert_eq!(release.version, "1.11.0-rc.1"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(at("1.10.0", "1.34"), Choice::Held(r) if r.version == "v2.0.0"));
        assert_eq!(at("2.0.0", "1.36"), Choice::Newest);
        let missing = Locked {
            chart: Some("nope".to_owned()),
            ..locked("1.0.0")
        };
        assert_eq!(index.choose("web", &missing, None), Choice::Missing);
        assert_eq!(
            index.exactly(&locked("1.2.0"), "v1.2.0").unwrap().version,
            "1.2.0"
        );
        assert!(index.exactly(&locked("1.2.0"), "3.0.0").is_none());
    }

    #[test]
    fn no_step_of_a_component_is_left_out() {
        let text = r#"
entries:
  web:
  - { version: 1.12.1 }
  - { version: 1.12.0 }
  - { version: 1.11.4 }
  - { version: 1.11.0, kubeVersion: ">=1.99.0-0" }
  - { version: 1.10.5 }
"#;
        let index = Index::parse(text).unwrap();
        let from = |version: &str| index.choose("longhorn", &locked(version), None);
        match from("1.10.0") {
            Choice::Newer { release, later, .. } => {
                assert_eq!(release.version, "1.11.4");
                assert_eq!(later.unwrap().version, "1.12.1");
            }
            other => panic!("{other:?}"),
        }
        assert!(
            matches!(from("1.11.4"), Choice::Newer { release, later: None, .. } if release.version == "1.12.1")
        );
        assert!(
            matches!(from("1.9.0"), Choice::Newer { release, .. } if release.version == "1.10.5")
        );
        assert!(matches!(from("1.8.0"), Choice::TooFar(r) if r.version == "1.12.1"));
    }

    #[test]
    fn tags_are_in_the_order_of_versions() {
        let tags = [
            "latest",
            "v1.2.0",
            "1.10.0",
            "v1.10.0",
            "v1.9.0",
            "v1.11.0-rc.1",
            "v1.2.0-debug",
            "1.2",
            "v1.12.0_3",
            "sha256-0123.sig",
        ]
        .map(str::to_owned);
        assert_eq!(
            newer_tags(&tags, "v1.2.0"),
            ["v1.12.0_3", "v1.10.0", "v1.9.0"]
        );
        assert_eq!(newer_tags(&tags, "1.9.0"), ["v1.12.0_3", "1.10.0"]);
        assert_eq!(
            newer_tags(&tags, "v1.11.0-beta"),
            ["v1.12.0_3", "v1.11.0-rc.1"]
        );
        assert_eq!(newer_tags(&tags, "stable"), Vec::<&str>::new());
    }

    #[test]
    fn what_is_no_index_is_refused() {
        assert!(Index::parse("<html>not found</html>").is_err());
        assert!(Index::parse("entries: []").is_err());
    }

    #[test]
    fn major_steps() {
        assert!(is_major_step("1.9.0", "v2.0.0"));
        assert!(is_major_step("0.18.0", "0.19.0"));
        assert!(!is_major_step("1.9.0", "1.10.0"));
        assert!(!is_major_step("0.18.0", "0.18.3"));
    }
}
