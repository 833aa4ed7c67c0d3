//! `undercroft update`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use undercroft_folder::confined::Modes;
use undercroft_render::{
    Choice, Index, LOCK_FILE, Lock, Locked, Minor, Release, check_step, is_major_step, is_version,
    newer_tags, oci::Repository,
};

use undercroft_model::document::Version;

use crate::{
    complete,
    documents::{ComponentUpdate, Updated},
    done::Done,
    error::CliError,
    gitops,
    project::Project,
    registry::Registries,
    style::{BOLD, DIM, GOOD, WARN, paint},
    text::{Table, list},
    ui::Ui,
};

/// The longest that a chart repository may take to send its index.
const INDEX_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest wait for a connection to one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest index that is read, in bytes. The largest public ones have some 20 MB.
const INDEX_MAX_BYTES: u64 = 128 << 20;

/// Raise the versions in undercroft.lock and show what changed
///
/// Each component's chart repository or registry is asked for its newest release that goes with the
/// cluster's version of Kubernetes, and for the digest of the one that is taken. No step is left out
/// that a component's makers want taken: what lies beyond is named, and taken by a later update.
/// Nothing but the lock file is written; `undercroft render` takes the new versions into the tree.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpdateArgs {
    /// Components, each with or without the version that is wanted [default: all]
    #[arg(value_name = "COMPONENT[=VERSION]", add = ArgValueCompleter::new(complete::components))]
    components: Vec<String>,
    /// Write nothing, and exit with 2 where there is something newer
    #[arg(long)]
    dry_run: bool,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft update --dry-run            what is newer?
  undercroft update                      raise everything
  undercroft update longhorn cilium=1.19.6

Exit codes: 0 done, 1 a repository couldn't be read, 2 with --dry-run: there is something newer,
65 something that was given is wrong.

With --json: {\"written\", \"components\": [{\"name\", \"from\", \"to\", \"app_version\", \"held\", \"next\", \"note\"}]}";

/// Newer tags of a registry that are looked at, the newest first, for one that goes with the cluster.
const CANDIDATES_MAX: usize = 10;

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &UpdateArgs) -> Result<Done, CliError> {
    let project = Project::find(at)?;
    let inventory = project.load(ui)?;
    let mut problems = Vec::new();
    let before = gitops::read_lock(&project, &mut problems)?;
    let Some(mut lock) = before else {
        return Err(gitops::refuse(ui, &project, &problems));
    };
    let files = project.files();
    let there = files.is_file(LOCK_FILE).map_err(|e| CliError::from(&e))?;
    let written = lock.print();
    lock.complete(&Lock::defaults());
    let wanted = wanted(&lock, &args.components)?;
    let kubernetes = inventory.kubernetes.version.as_deref();
    let minor = kubernetes
        .or(lock.kubernetes.as_deref())
        .and_then(Minor::parse);
    let mut sources = Sources {
        ui,
        minor,
        indexes: BTreeMap::new(),
        registries: Registries::new(),
    };
    let mut rows = Vec::new();
    for (name, version) in &wanted {
        let Some(locked) = lock.components.get(name).cloned() else {
            continue;
        };
        let (row, new) = look(name, version.as_deref(), &locked, &mut sources)?;
        rows.push(row);
        if let Some(new) = new {
            lock.components.insert(name.clone(), new);
        }
    }
    let changed = rows.iter().any(|row| row.to.is_some());
    let text = lock.print();
    let write = !args.dry_run && (!there || text != written);
    if write {
        files.clear_leftovers("");
        files
            .replace(LOCK_FILE, text.as_bytes(), Modes::PUBLIC)
            .map_err(|e| CliError::from(&e))?;
    }
    if args.json {
        ui.json(&Updated {
            version: Version,
            written: write,
            components: rows,
        })?;
    } else {
        ui.print(&table(&rows))?;
        if !changed {
            ui.note(&format!("{} nothing is newer", paint(GOOD, "good:")));
        } else if args.dry_run {
            ui.note("Nothing was written.");
        } else {
            ui.hint("`undercroft render` takes the new versions into the tree; read the components' release notes before you commit it.");
        }
    }
    Ok(if changed && args.dry_run {
        Done::Changes
    } else {
        Done::Well
    })
}

/// The components that were named, with the versions that were named with them.
fn wanted(lock: &Lock, given: &[String]) -> Result<BTreeMap<String, Option<String>>, CliError> {
    if given.is_empty() {
        return Ok(lock
            .components
            .keys()
            .map(|name| (name.clone(), None))
            .collect());
    }
    let mut wanted = BTreeMap::new();
    for word in given {
        let (name, version) = match word.split_once('=') {
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (word.as_str(), None),
        };
        if !lock.components.contains_key(name) {
            let names: Vec<&str> = lock.components.keys().map(String::as_str).collect();
            return Err(
                CliError::usage(format!("{LOCK_FILE} has no component {name:?}"))
                    .hint(format!("It has {}.", names.join(", "))),
            );
        }
        if wanted.insert(name.to_owned(), version).is_some() {
            return Err(CliError::usage(format!("{name} is named twice")));
        }
    }
    Ok(wanted)
}

/// Where releases are looked up, and what was read there already.
struct Sources {
    ui: Ui,
    minor: Option<Minor>,
    indexes: BTreeMap<String, Index>,
    registries: Registries,
}

impl Sources {
    /// The releases of a component, with the name of where they are; or why nobody can be asked.
    fn index(
        &mut self,
        name: &str,
        locked: &Locked,
        wanted: Option<&str>,
    ) -> Result<Result<(String, Index), &'static str>, CliError> {
        let chart = locked.chart.as_deref();
        let (shown, registry) = match (&locked.repository, chart, &locked.image) {
            (Some(url), Some(chart), _) if url.starts_with("oci://") => {
                (format!("{url}/{chart}"), Repository::of_chart(url, chart))
            }
            (Some(url), Some(_), _) => {
                if !self.indexes.contains_key(url) {
                    self.ui.note(&format!("{} {url}", paint(DIM, "reading")));
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
                CliError::input(format!("{shown:?} is no name in a registry"))
                    .hint(format!("Correct it in {LOCK_FILE}.")),
            );
        };
        if wanted.is_none() && !is_version(&locked.version) {
            return Ok(Err("a tag that isn't a version"));
        }
        self.ui.note(&format!("{} {shown}", paint(DIM, "reading")));
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
    ) -> Result<Index, CliError> {
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
    ) -> Result<Option<Release>, CliError> {
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
fn look(
    name: &str,
    wanted: Option<&str>,
    locked: &Locked,
    sources: &mut Sources,
) -> Result<(ComponentUpdate, Option<Locked>), CliError> {
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
            return Err(CliError::input(format!("{name} is {what}"))
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
            CliError::input(format!("{place} has no {name} {version}")).hint(format!(
                "`undercroft update {name}` without a version takes the newest that goes with the cluster."
            ))
        })?;
        if !release.runs_on(minor) {
            let range = release.kube_version.as_deref().unwrap_or_default();
            return Err(CliError::input(format!(
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
            return Err(CliError::input(far.to_string()).hint(hint));
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
        Choice::Missing => Err(CliError::failed(format!(
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
) -> Result<(ComponentUpdate, Option<Locked>), CliError> {
    let Some(release) = index.exactly(locked, &locked.version) else {
        return Ok((row, None));
    };
    let seen = release.locked(locked);
    match (&locked.digest, seen.digest) {
        (Some(noted), Some(seen)) if *noted != seen => Err(CliError::failed(format!(
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
fn fetch(repository: &str) -> Result<Index, CliError> {
    let url = format!("{}/index.yaml", repository.trim_end_matches('/'));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(INDEX_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .user_agent(concat!("undercroft/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let failed = |e: &ureq::Error| {
        CliError::failed(format!("can't read {url}")).because(e).hint(
            "Nothing was written. Look whether the address is right and reachable from here; `undercroft update NAME` asks for single components.",
        )
    };
    let mut response = agent.get(&url).call().map_err(|e| failed(&e))?;
    let text = response
        .body_mut()
        .with_config()
        .limit(INDEX_MAX_BYTES)
        .read_to_string()
        .map_err(|e| failed(&e))?;
    Index::parse(&text).map_err(|e| CliError::failed(format!("can't use {url}")).because(&e))
}

fn table(rows: &[ComponentUpdate]) -> String {
    let mut table = Table::new(&["COMPONENT", "FROM", "TO", "NOTES"]);
    for row in rows {
        let mut notes = Vec::new();
        let to = match &row.to {
            Some(to) => {
                if is_major_step(&row.from, to) {
                    notes.push(paint(WARN, "may break something"));
                }
                paint(BOLD, to)
            }
            None => paint(DIM, "-"),
        };
        if let (Some(app), Some(to)) = (&row.app_version, &row.to)
            && app != to
        {
            notes.push(format!("brings {app}"));
        }
        if let (Some(next), Some(_)) = (&row.next, &row.to) {
            notes.push(format!("a step on the way to {next}"));
        }
        notes.extend(row.held.clone());
        notes.extend(row.note.clone());
        let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
        table.row([row.name.clone(), row.from.clone(), to, list(&notes)]);
    }
    table.render()
}
