//! The tree that Argo CD keeps the cluster equal to: reading what it is rendered from, and bringing the
//! rendered files to disk.

mod disk;
mod error;
mod files;
mod problems;
mod rendering;
mod standing;

use std::collections::BTreeMap;

use undercroft_model::inventory::Inventory;
use undercroft_render::{APP_FILE, AppForm, AppSettings, OVERRIDES, check_app_name, yaml};

pub use disk::Comparison;
pub use error::GitopsError;
pub use files::read_lock;
pub use problems::{diagnostic, line_of, refuse_versions, version_diagnostics};
pub use rendering::{Parting, Rendering};
pub use standing::standing;

pub use undercroft_folder::confined::Confined;
pub use undercroft_render::{App, Change, Choices, Difference, Lock, Problem, Tree, TreeLayout};

use files::{DEPTH_MAX, Entry, MANIFEST_MAX_BYTES, entries, read_text};

/// More manifests than this in one app's folder are something else.
const MANIFESTS_MAX: usize = 2_000;

/// What a tree is rendered from, beside the inventory.
#[derive(Debug)]
pub struct Sources {
    /// The versions: the lock file's, and for what it lacks those that this program brings.
    pub lock: Lock,
    /// The user's own apps.
    pub apps: Vec<App>,
    /// The user's own values.
    pub overrides: BTreeMap<String, serde_json::Value>,
}

impl Sources {
    /// Reads everything, and reports everything that is wrong with it in one go.
    ///
    /// # Errors
    /// When a file can't be read, or something is wrong with it.
    pub fn read(files: &Confined, inventory: &Inventory) -> Result<Self, GitopsError> {
        let mut problems = Vec::new();
        let lock = read_lock(files, &mut problems)?.map(|mut lock| {
            lock.complete(&Lock::defaults());
            lock.complete_for(inventory);
            lock
        });
        let overrides = read_overrides(files, &mut problems)?;
        let apps = read_apps(files, inventory, &mut problems)?;
        match lock {
            Some(lock) if problems.is_empty() => Ok(Self {
                lock,
                apps,
                overrides,
            }),
            _ => Err(problems.into()),
        }
    }
}

fn read_overrides(
    files: &Confined,
    problems: &mut Vec<Problem>,
) -> Result<BTreeMap<String, serde_json::Value>, GitopsError> {
    let mut overrides = BTreeMap::new();
    for entry in entries(files, OVERRIDES)? {
        let Some(name) = entry.name.strip_suffix(".yaml") else {
            if !entry.name.starts_with('.') {
                problems.push(
                    Problem::new("values", "this is no file of values")
                        .in_file(format!("{OVERRIDES}/{}", entry.name))
                        .hint("Values stand in NAME.yaml, where NAME is a component's."),
                );
            }
            continue;
        };
        let file = TreeLayout::overrides(name);
        let text = read_text(files, &entry.path)?;
        match yaml::parse(&text) {
            Ok(serde_json::Value::Null) => {}
            Ok(values) => {
                overrides.insert(name.to_owned(), values);
            }
            Err(e) => problems.push(yaml_problem(file, &e)),
        }
    }
    Ok(overrides)
}

/// The user's apps: each folder is one, save those whose name begins with `.` or `_`.
fn read_apps(
    files: &Confined,
    inventory: &Inventory,
    problems: &mut Vec<Problem>,
) -> Result<Vec<App>, GitopsError> {
    let root = &inventory.gitops.apps_path;
    let mut apps = Vec::new();
    for entry in entries(files, root)? {
        if !entry.is_dir || entry.name.starts_with(['.', '_']) {
            continue;
        }
        let folder = format!("{root}/{}", entry.name);
        if let Err(problem) = check_app_name(&entry.name, &folder) {
            problems.push(problem);
            continue;
        }
        apps.extend(read_app(files, &entry, folder, problems)?);
    }
    Ok(apps)
}

fn read_app(
    files: &Confined,
    entry: &Entry,
    folder: String,
    problems: &mut Vec<Problem>,
) -> Result<Option<App>, GitopsError> {
    let settings_path = format!("{}/{APP_FILE}", entry.path);
    let settings = files.read_text(settings_path, MANIFEST_MAX_BYTES);
    let settings = match settings? {
        Some(text) => match AppSettings::parse(&format!("{folder}/{APP_FILE}"), &text) {
            Ok(settings) => settings,
            Err(problem) => {
                problems.push(problem);
                return Ok(None);
            }
        },
        None => AppSettings::default(),
    };
    let inside: Vec<String> = entries(files, &entry.path)?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    let has = |name: &str| inside.iter().any(|there| there == name);
    // The same files by which Argo CD tells what a folder is.
    let form = if settings.chart.is_some() {
        AppForm::Chart {
            values: has("values.yaml"),
            manifests: has("manifests"),
        }
    } else if ["kustomization.yaml", "kustomization.yml", "Kustomization"]
        .into_iter()
        .any(has)
    {
        AppForm::Kustomize
    } else if has("Chart.yaml") {
        AppForm::Helm
    } else {
        AppForm::Plain
    };
    let mut objects = Vec::new();
    let manifests = match form {
        AppForm::Plain => Some((entry.path.clone(), folder.clone())),
        AppForm::Chart {
            manifests: true, ..
        } => Some((
            format!("{}/manifests", entry.path),
            format!("{folder}/manifests"),
        )),
        _ => None,
    };
    if let Some((path, name)) = manifests {
        let mut found = Vec::new();
        manifests_in(files, &path, &name, 0, &mut found)?;
        if found.len() > MANIFESTS_MAX {
            problems.push(
                Problem::new(
                    "app-size",
                    format!(
                        "the folder has {} manifests, more than the {MANIFESTS_MAX} that an app may have",
                        found.len()
                    ),
                )
                .in_file(folder.clone())
                .hint("Make several apps of it, or a kustomization or a chart."),
            );
            found.clear();
        }
        if found.is_empty() && form == AppForm::Plain {
            problems.push(
                Problem::new("app-empty", "the folder has no manifest")
                    .in_file(folder.clone())
                    .hint("Put a YAML or JSON file into it, or begin its name with '_' if it isn't an app."),
            );
        }
        let names: Vec<String> = found.iter().map(|(_, name)| name.clone()).collect();
        let readable = problems.len();
        for (path, name) in found {
            match yaml::parse_all(&read_text(files, &path)?) {
                Ok(all) => objects.extend(all.into_iter().map(|object| (name.clone(), object))),
                Err(e) => problems.push(yaml_problem(name, &e)),
            }
        }
        let empty = objects.is_empty() && problems.len() == readable && !names.is_empty();
        if empty && form == AppForm::Plain {
            problems.push(empty_app(&folder, &names));
        }
    }
    Ok(Some(App {
        name: entry.name.clone(),
        folder,
        form,
        settings,
        objects,
    }))
}

/// An app all of whose files have nothing but comments and blanks in them.
fn empty_app(folder: &str, files: &[String]) -> Problem {
    let (place, message) = match files {
        [file] => (
            file.as_str(),
            "the app's only manifest is empty, or has comments alone".to_owned(),
        ),
        files => (
            folder,
            format!(
                "all {} manifests of the app are empty, or have comments alone",
                files.len()
            ),
        ),
    };
    Problem::new("app-empty", message).in_file(place).hint(
        "Write an object into it (apiVersion, kind, metadata.name), or begin the folder's name with '_' as long as it isn't an app.",
    )
}

/// A file that is no YAML.
fn yaml_problem(file: String, error: &yaml::YamlError) -> Problem {
    Problem::new("yaml", error.message.clone())
        .in_file(file)
        .at(error.place)
        .hint("Correct that place, or what stands just before it.")
}

/// The manifests under a folder, as Argo CD finds them when it looks through one.
fn manifests_in(
    files: &Confined,
    path: &str,
    name: &str,
    depth: usize,
    found: &mut Vec<(String, String)>,
) -> Result<(), GitopsError> {
    if depth > DEPTH_MAX {
        return Err(GitopsError::TooDeep {
            path: files.path(path),
        });
    }
    for entry in entries(files, path)? {
        let name = format!("{name}/{}", entry.name);
        let manifest = [".yaml", ".yml", ".json"];
        if entry.is_dir {
            manifests_in(files, &entry.path, &name, depth + 1, found)?;
        } else if manifest.iter().any(|end| entry.name.ends_with(end)) {
            found.push((entry.path, name));
        }
    }
    Ok(())
}
