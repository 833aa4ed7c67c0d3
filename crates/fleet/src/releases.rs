//! Which releases of components there are, in chart repositories and registries, and which of them goes with the
//! cluster.

mod error;
mod registry;

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use undercroft_render::{
    Choice, Index, LOCK_FILE, Lock, Locked, Minor, Release, check_step, is_version, newer_tags,
    oci::Repository,
};

pub use error::ReleaseError;
use registry::{Registries, unreachable};

/// The longest that a chart repository may take to send its index.
const INDEX_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest wait for a connection to one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest index that is read, in bytes. The largest public ones have some 20 MB.
const INDEX_MAX_BYTES: u64 = 128 << 20;

/// Newer tags of a registry that are looked at, the newest first, for one that goes with the cluster.
const CANDIDATES_MAX: usize = 10;

/// What came of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ComponentUpdate {
    /// Its name.
    pub name: String,
    /// The version that the lock file has.
    pub from: String,
    /// The new version; none where it stays.
    pub to: Option<String>,
    /// The version of what the chart brings.
    pub app_version: Option<String>,
    /// A newer version that doesn't go with the cluster.
    pub held: Option<String>,
    /// The newest version, where that is more than one step away.
    pub next: Option<String>,
    /// What else there is to know.
    pub note: Option<String>,
}

/// Raises the versions of those components of a lock file, each to the one that is wanted or to the newest that
/// goes with the cluster's version of Kubernetes. `reading` is told each place that is asked.
///
/// # Errors
/// When a place can't be read, or what is wanted can't be taken.
pub fn raise(
    lock: &mut Lock,
    wanted: &BTreeMap<String, Option<String>>,
    minor: Option<Minor>,
    reading: impl FnMut(&str),
) -> Result<Vec<ComponentUpdate>, ReleaseError> {
    let mut sources = Sources {
        reading,
        minor,
        indexes: BTreeMap::new(),
        registries: Registries::new(),
    };
    let mut rows = Vec::new();
    for (name, version) in wanted {
        let Some(locked) = lock.components.get(name).cloned() else {
            continue;
        };
        let (row, new) = raise_one(name, version.as_deref(), &locked, &mut sources)?;
        rows.push(row);
        if let Some(new) = new {
            lock.components.insert(name.clone(), new);
        }
    }
    Ok(rows)
}

/// Where releases are looked up, and what was read there already.
struct Sources<F> {
    reading: F,
    minor: Option<Minor>,
    indexes: BTreeMap<String, Index>,
    registries: Registries,
}

impl<F: FnMut(&str)> Sources<F> {
    /// The releases of a component, with the name of where they are; or why nobody can be asked.
    fn index(
        &mut self,
        name: &str,
        locked: &Locked,
        wanted: Option<&str>,
    ) -> Result<Result<(String, Index), &'static str>, ReleaseError> {
        let chart = locked.chart.as_deref();
        let (shown, registry) = match (&locked.repository, chart, &locked.image) {
            (Some(url), Some(chart), _) if url.starts_with("oci://") => {
                (format!("{url}/{chart}"), Repository::of_chart(url, chart))
            }
            (Some(url), Some(_), _) => {
                if !self.indexes.contains_key(url) {
                    (self.reading)(url);
                    self.indexes.insert(url.clone(), fetch(url)?);
                }
                let index = self.indexes.get(url).cloned().unwrap_or_default();
                return Ok(Ok((url.clone(), index)));
            }
            (_, _, Some(image)) => (image.clone(), Repository::of_image(image)),
            _ => return Ok(Err("a release that no index tells of")),
        };
        let Some(repository) = registry else {
            return Err(
                ReleaseError::input(format!("{shown:?} is no name in a registry"))
                    .hint(format!("Correct it in {LOCK_FILE}.")),
            );
        };
        if wanted.is_none() && !is_version(&locked.version) {
            return Ok(Err("a tag that isn't a version"));
        }
        (self.reading)(&shown);
        let index = self.registry_index(name, locked, &repository, wanted)?;
        Ok(Ok((shown, index)))
    }

    /// The releases of a registry that matter: the one that is wanted; else the present one, and
    /// the newer ones down to the first that can be taken. Each costs requests.
    fn registry_index(
        &mut self,
        name: &str,
        locked: &Locked,
        repository: &Repository,
        wanted: Option<&str>,
    ) -> Result<Index, ReleaseError> {
        let mut releases = Vec::new();
        if let Some(version) = wanted {
            releases.extend(self.release(locked, repository, version)?);
            return Ok(Index::of(locked, releases));
        }
        releases.extend(self.release(locked, repository, &locked.version)?);
        let tags = self.registries.tags(repository)?;
        let newer = newer_tags(&tags, &locked.version);
        let near = |tag: &&str| check_step(name, &locked.version, tag).is_ok();
        if let Some(farthest) = newer.first().filter(|tag| !near(tag)) {
            // Only told of, so that nothing else of it is asked for.
            releases.push(Release::named(farthest));
        }
        for tag in newer.into_iter().filter(near).take(CANDIDATES_MAX) {
            let Some(release) = self.release(locked, repository, tag)? else {
                continue;
            };
            let usable = !release.deprecated && release.runs_on(self.minor);
            releases.push(release);
            if usable {
                break;
            }
        }
        Ok(Index::of(locked, releases))
    }

    /// One release of a registry, where it is there.
    fn release(
        &mut self,
        locked: &Locked,
        repository: &Repository,
        version: &str,
    ) -> Result<Option<Release>, ReleaseError> {
        // A tag can't have a `+`; Helm writes `_`.
        let tag = version.replace('+', "_");
        if locked.chart.is_some() {
            self.registries.chart(repository, &tag)
        } else {
            self.registries.image(repository, &tag)
        }
    }
}

/// Looks for a newer version of one component, or for the one that is wanted.
fn raise_one(
    name: &str,
    wanted: Option<&str>,
    locked: &Locked,
    sources: &mut Sources<impl FnMut(&str)>,
) -> Result<(ComponentUpdate, Option<Locked>), ReleaseError> {
    let minor = sources.minor;
    let mut row = ComponentUpdate {
        name: name.to_owned(),
        from: locked.version.clone(),
        to: None,
        app_version: locked.app_version.clone(),
        held: None,
        next: None,
        note: None,
    };
    let (place, index) = match sources.index(name, locked, wanted)? {
        Ok(found) => found,
        Err(what) if wanted.is_some() => {
            return Err(ReleaseError::input(format!("{name} is {what}"))
                .hint(format!("Set its version in {LOCK_FILE} by hand.")));
        }
        Err(what) => {
            row.note = Some(format!("{what}: set by hand"));
            return Ok((row, None));
        }
    };
    let kubernetes = minor.map_or_else(|| "?".to_owned(), |minor| minor.to_string());
    if let Some(version) = wanted {
        let release = index.exactly(locked, version).ok_or_else(|| {
            ReleaseError::input(format!("{place} has no {name} {version}")).hint(format!(
                "`undercroft update {name}` without a version takes the newest that goes with the cluster."
            ))
        })?;
        if !release.runs_on(minor) {
            let range = release.kube_version.as_deref().unwrap_or_default();
            return Err(ReleaseError::input(format!(
                "{name} {version} runs on Kubernetes {range}, and the cluster's is {kubernetes}"
            ))
            .hint("Choose another version, or change kubernetes.version first."));
        }
        if release.version == locked.version {
            return stay(row, locked, &index, &place);
        }
        if let Err(far) = check_step(name, &locked.version, &release.version) {
            let hint = match &far.next {
                Some(next) => format!(
                    "`undercroft update {name}` takes the newest {next} first; let it come up before the next step."
                ),
                None => format!("It stays at {}.", locked.version),
            };
            return Err(ReleaseError::input(far.to_string()).hint(hint));
        }
        row.to = Some(release.version.clone());
        row.app_version.clone_from(&release.app_version);
        return Ok((row, Some(release.locked(locked))));
    }
    match index.choose(name, locked, minor) {
        Choice::Newest => stay(row, locked, &index, &place),
        Choice::Held(release) => {
            row.held = Some(held(&release));
            stay(row, locked, &index, &place)
        }
        Choice::Newer {
            release,
            held: unusable,
            later,
        } => {
            row.to = Some(release.version.clone());
            row.app_version.clone_from(&release.app_version);
            row.held = unusable.as_deref().map(held);
            row.next = later.map(|release| release.version.clone());
            Ok((row, Some(release.locked(locked))))
        }
        Choice::TooFar(release) => {
            let next = check_step(name, &locked.version, &release.version)
                .err()
                .and_then(|far| far.next)
                .unwrap_or_default();
            row.note = Some(format!(
                "{} is more than a step away, and {place} has no {next} to go by",
                release.version
            ));
            row.next = Some(release.version.clone());
            stay(row, locked, &index, &place)
        }
        Choice::Missing => Err(ReleaseError::failed(format!(
            "{place} has no usable release of {name}"
        ))
        .hint(format!(
            "Look whether it has moved, and correct {name} in {LOCK_FILE}."
        ))),
    }
}

/// A component whose version stays: its digest is noted where the lock file hasn't got it yet, and
/// must be the same where it has.
fn stay(
    mut row: ComponentUpdate,
    locked: &Locked,
    index: &Index,
    place: &str,
) -> Result<(ComponentUpdate, Option<Locked>), ReleaseError> {
    let Some(release) = index.exactly(locked, &locked.version) else {
        return Ok((row, None));
    };
    let seen = release.locked(locked);
    match (&locked.digest, seen.digest) {
        (Some(noted), Some(seen)) if *noted != seen => Err(ReleaseError::failed(format!(
            "{} {} of {place} was changed: {LOCK_FILE} has {noted}, and there it is {seen} now",
            row.name, row.from
        ))
        .hint(format!(
            "Nothing was written. A published version stays what it is: ask its makers, or take another version. Where you know why, take the digest out of {LOCK_FILE} and update again."
        ))),
        (None, Some(digest)) => {
            row.note = Some("its digest is noted".to_owned());
            let noted = Locked {
                digest: Some(digest),
                ..locked.clone()
            };
            Ok((row, Some(noted)))
        }
        _ => Ok((row, None)),
    }
}

fn held(release: &Release) -> String {
    let range = release.kube_version.as_deref().unwrap_or_default();
    format!("{} needs Kubernetes {range}", release.version)
}

/// Reads a chart repository's index.
fn fetch(repository: &str) -> Result<Index, ReleaseError> {
    let url = format!("{}/index.yaml", repository.trim_end_matches('/'));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(INDEX_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .user_agent(concat!("undercroft/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut response = agent.get(&url).call().map_err(|e| unreachable(&url, e))?;
    let text = response
        .body_mut()
        .with_config()
        .limit(INDEX_MAX_BYTES)
        .read_to_string()
        .map_err(|e| unreachable(&url, e))?;
    Index::parse(&text).map_err(|e| ReleaseError::failed(format!("can't use {url}")).because(e))
}
