//! Reading what a tree is rendered from, and bringing the rendered files to disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use undercroft_model::inventory::Inventory;
use undercroft_render::{
    APP_FILE, App, AppForm, AppSettings, Change, Difference, LOCK_FILE, Layout, Lock, OVERRIDES,
    Problem, Tree, check_app_name, compare, parse_digests, yaml,
};

use crate::{
    error::CliError,
    project::Project,
    style::{BAD, BOLD, DIM, HINT, paint},
    text::count,
    ui::Ui,
};

/// A manifest that is longer isn't one that people keep in a repository, in bytes.
const MANIFEST_MAX_BYTES: u64 = 4 << 20;
/// More manifests than this in one app's folder are something else.
const MANIFESTS_MAX: usize = 2_000;
/// Folders of an app deeper than this are a loop of links, or something else.
const DEPTH_MAX: usize = 16;

/// What a tree is rendered from, beside the inventory.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The versions: the lock file's, and for what it lacks those that this program brings.
    pub(crate) lock: Lock,
    /// The user's own apps.
    pub(crate) apps: Vec<App>,
    /// The user's own values.
    pub(crate) overrides: BTreeMap<String, serde_json::Value>,
}

impl Sources {
    /// Reads everything, and reports everything that is wrong with it in one go.
    pub(crate) fn read(ui: Ui, project: &Project, inventory: &Inventory) -> Result<Self, CliError> {
        let mut problems = Vec::new();
        let lock = read_lock(project, &mut problems)?.map(|mut lock| {
            lock.complete(&Lock::defaults());
            lock
        });
        let overrides = read_overrides(project, &mut problems)?;
        let apps = read_apps(project, inventory, &mut problems)?;
        match lock {
            Some(lock) if problems.is_empty() => Ok(Self {
                lock,
                apps,
                overrides,
            }),
            _ => Err(refuse(ui, &problems)),
        }
    }
}

/// Shows problems, and gives the error that ends the command.
pub(crate) fn refuse(ui: Ui, problems: &[Problem]) -> CliError {
    for problem in problems {
        ui.stderr(&show(problem));
    }
    CliError::input(format!(
        "the tree can't be rendered: {}; nothing was written",
        count(problems.len(), "error")
    ))
}

/// A problem as the findings about an inventory look.
fn show(problem: &Problem) -> String {
    let mut out = format!(
        "{}{}\n",
        paint(BAD, &format!("error[{}]", problem.code)),
        paint(BOLD, &format!(": {}", crate::text::plain(&problem.message))),
    );
    if let Some(file) = &problem.file {
        out.push_str(&format!("{} {file}\n", paint(DIM, " -->")));
    }
    if let Some(hint) = &problem.hint {
        out.push_str(&format!(
            "{} {}: {hint}\n",
            paint(DIM, "  ="),
            paint(HINT, "hint")
        ));
    }
    out
}

/// The lock file, or the versions that this program brings where there is none; `None` after a
/// problem.
pub(crate) fn read_lock(
    project: &Project,
    problems: &mut Vec<Problem>,
) -> Result<Option<Lock>, CliError> {
    let path = project.dir.join(LOCK_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // The version of Kubernetes that this program knows says nothing of the cluster's.
            let mut lock = Lock::defaults();
            lock.kubernetes = None;
            return Ok(Some(lock));
        }
        Err(e) => return Err(CliError::file("read", &path, &e)),
    };
    match Lock::parse(LOCK_FILE, &text) {
        Ok(lock) => Ok(Some(lock)),
        Err(problem) => {
            problems.push(problem);
            Ok(None)
        }
    }
}

fn read_overrides(
    project: &Project,
    problems: &mut Vec<Problem>,
) -> Result<BTreeMap<String, serde_json::Value>, CliError> {
    let mut overrides = BTreeMap::new();
    for entry in entries(&project.dir.join(OVERRIDES))? {
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
        let file = Layout::overrides(name);
        let text = read_text(&entry.path)?;
        match yaml::parse(&text) {
            Ok(serde_json::Value::Null) => {}
            Ok(values) => {
                overrides.insert(name.to_owned(), values);
            }
            Err(e) => problems.push(Problem::new("yaml", e.message).in_file(file)),
        }
    }
    Ok(overrides)
}

/// The user's apps: each folder is one, save those whose name begins with `.` or `_`.
fn read_apps(
    project: &Project,
    inventory: &Inventory,
    problems: &mut Vec<Problem>,
) -> Result<Vec<App>, CliError> {
    let root = &inventory.gitops.apps_path;
    let mut apps = Vec::new();
    for entry in entries(&project.dir.join(root))? {
        if !entry.is_dir || entry.name.starts_with(['.', '_']) {
            continue;
        }
        let folder = format!("{root}/{}", entry.name);
        if let Err(problem) = check_app_name(&entry.name, &folder) {
            problems.push(problem);
            continue;
        }
        apps.extend(read_app(&entry, folder, problems)?);
    }
    Ok(apps)
}

fn read_app(
    entry: &Entry,
    folder: String,
    problems: &mut Vec<Problem>,
) -> Result<Option<App>, CliError> {
    let settings_path = entry.path.join(APP_FILE);
    let settings = match fs::read_to_string(&settings_path) {
        Ok(text) => match AppSettings::parse(&format!("{folder}/{APP_FILE}"), &text) {
            Ok(settings) => settings,
            Err(problem) => {
                problems.push(problem);
                return Ok(None);
            }
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => AppSettings::default(),
        Err(e) => return Err(CliError::file("read", &settings_path, &e)),
    };
    let has = |name: &str| entry.path.join(name).exists();
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
        } => Some((entry.path.join("manifests"), format!("{folder}/manifests"))),
        _ => None,
    };
    if let Some((path, name)) = manifests {
        let mut files = Vec::new();
        manifests_in(&path, &name, 0, &mut files)?;
        if files.len() > MANIFESTS_MAX {
            problems.push(
                Problem::new(
                    "app-size",
                    format!(
                        "the folder has {} manifests, more than the {MANIFESTS_MAX} that an app may have",
                        files.len()
                    ),
                )
                .in_file(folder.clone())
                .hint("Make several apps of it, or a kustomization or a chart."),
            );
            files.clear();
        }
        if files.is_empty() && form == AppForm::Plain {
            problems.push(
                Problem::new("app-empty", "the folder has no manifest")
                    .in_file(folder.clone())
                    .hint("Put a YAML or JSON file into it, or begin its name with '_' if it isn't an app."),
            );
        }
        for (path, name) in files {
            match yaml::parse_all(&read_text(&path)?) {
                Ok(all) => objects.extend(all.into_iter().map(|object| (name.clone(), object))),
                Err(e) => problems.push(Problem::new("yaml", e.message).in_file(name)),
            }
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

/// The manifests under a folder, as Argo CD finds them when it looks through one.
fn manifests_in(
    path: &Path,
    name: &str,
    depth: usize,
    found: &mut Vec<(PathBuf, String)>,
) -> Result<(), CliError> {
    if depth > DEPTH_MAX {
        return Err(CliError::input(format!(
            "{} is more than {DEPTH_MAX} folders deep",
            path.display()
        )));
    }
    for entry in entries(path)? {
        let name = format!("{name}/{}", entry.name);
        let manifest = [".yaml", ".yml", ".json"];
        if entry.is_dir {
            manifests_in(&entry.path, &name, depth + 1, found)?;
        } else if manifest.iter().any(|end| entry.name.ends_with(end)) {
            found.push((entry.path, name));
        }
    }
    Ok(())
}

/// Something in a folder.
struct Entry {
    name: String,
    path: PathBuf,
    is_dir: bool,
}

/// What a folder holds, by name; nothing where it isn't there.
fn entries(folder: &Path) -> Result<Vec<Entry>, CliError> {
    let read = match fs::read_dir(folder) {
        Ok(read) => read,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CliError::file("read", folder, &e)),
    };
    let mut entries = Vec::new();
    for entry in read {
        let entry = entry.map_err(|e| CliError::file("read", folder, &e))?;
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|_| {
            CliError::input(format!("{} has a name that isn't UTF-8", path.display()))
        })?;
        // A link to a folder counts as one: git keeps it, and Argo CD follows it.
        let is_dir = fs::metadata(&path)
            .map_err(|e| CliError::file("look at", &path, &e))?
            .is_dir();
        entries.push(Entry { name, path, is_dir });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn read_text(path: &Path) -> Result<String, CliError> {
    let size = fs::metadata(path)
        .map_err(|e| CliError::file("read", path, &e))?
        .len();
    if size > MANIFEST_MAX_BYTES {
        return Err(CliError::input(format!(
            "{} is longer than {MANIFEST_MAX_BYTES} bytes",
            path.display()
        )));
    }
    fs::read_to_string(path).map_err(|e| CliError::file("read", path, &e))
}

/// A tree beside what is on disk.
pub(crate) struct Comparison {
    root: PathBuf,
    rendered: BTreeMap<String, String>,
    on_disk: BTreeMap<String, Vec<u8>>,
    /// What would change, by path.
    pub(crate) differences: Vec<Difference>,
}

impl Comparison {
    /// Compares a tree in a folder of the project with what is there. `more` are files beside the
    /// tree that are written with it.
    pub(crate) fn new(
        project: &Project,
        layout: &Layout,
        tree: Tree,
        more: BTreeMap<String, String>,
    ) -> Result<Self, CliError> {
        let root = project.dir.clone();
        let read = |path: &String| -> Result<Option<Vec<u8>>, CliError> {
            let path = root.join(path);
            match fs::read(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(CliError::file("read", &path, &e)),
            }
        };
        let digests = layout.digests();
        let recorded = match read(&digests)? {
            Some(bytes) => parse_digests(&String::from_utf8_lossy(&bytes)),
            None => BTreeMap::new(),
        };
        let mut unrecorded: Vec<&str> = more.keys().map(String::as_str).collect();
        unrecorded.push(&digests);
        let mut rendered = tree.files;
        rendered.extend(more.clone());
        let paths: BTreeSet<&String> = rendered.keys().chain(recorded.keys()).collect();
        let mut on_disk = BTreeMap::new();
        for path in paths {
            if let Some(bytes) = read(path)? {
                on_disk.insert(path.clone(), bytes);
            }
        }
        let differences = compare(&rendered, &on_disk, &recorded, &unrecorded);
        Ok(Self {
            root,
            rendered,
            on_disk,
            differences,
        })
    }

    /// The files that were edited by hand and would be overwritten or removed.
    pub(crate) fn edited(&self) -> Vec<&Difference> {
        self.differences.iter().filter(|d| d.edited).collect()
    }

    /// Files that are rendered.
    pub(crate) fn len(&self) -> usize {
        self.rendered.len()
    }

    /// One file's change as a unified diff, from what is there to what is rendered.
    pub(crate) fn diff(&self, difference: &Difference) -> String {
        let path = &difference.path;
        let old = self
            .on_disk
            .get(path)
            .map(|bytes| String::from_utf8_lossy(bytes));
        let new = self.rendered.get(path);
        let name = |there: bool, side: &str| {
            if there {
                format!("{side}/{path}")
            } else {
                "/dev/null".to_owned()
            }
        };
        similar::TextDiff::from_lines(
            old.as_deref().unwrap_or_default(),
            new.map(String::as_str).unwrap_or_default(),
        )
        .unified_diff()
        .header(&name(old.is_some(), "a"), &name(new.is_some(), "b"))
        .to_string()
    }

    /// Makes the disk as the tree is: each file replaced whole or not at all, the file of digests
    /// last, so that a render that was cut off is one that can be done again.
    pub(crate) fn write(&self, layout: &Layout) -> Result<(), CliError> {
        let digests = layout.digests();
        let last = |d: &&Difference| d.path == digests;
        let others = self.differences.iter().filter(|d| !last(d));
        for difference in others.chain(self.differences.iter().filter(last)) {
            let path = self.root.join(&difference.path);
            match (difference.change, self.rendered.get(&difference.path)) {
                (Change::Remove, _) | (_, None) => self.remove(&path, layout)?,
                (Change::Create | Change::Update, Some(text)) => write_whole(&path, text)?,
            }
        }
        Ok(())
    }

    /// Removes a file, and the folders of the tree that are empty without it.
    fn remove(&self, path: &Path, layout: &Layout) -> Result<(), CliError> {
        fs::remove_file(path).map_err(|e| CliError::file("remove", path, &e))?;
        let tree = self.root.join(layout.path());
        let above = path.ancestors().skip(1);
        for folder in above.take_while(|folder| folder.starts_with(&tree)) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Writes a file so that a reader sees the old content or the new, whatever happens in between.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |e: &io::Error| CliError::file("write", path, e);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| CliError::file("make the folder", folder, &e))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| failed(&e))?;
    file.write_all(text.as_bytes()).map_err(|e| failed(&e))?;
    // Scratch files are closed to others; what is rendered is meant to be read.
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .map_err(|e| failed(&e))?;
    file.persist(path).map_err(|e| failed(&e.error))?;
    Ok(())
}
