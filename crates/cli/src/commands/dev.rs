//! `undercroft dev`.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use clap::{Args, Subcommand};
use undercroft_fleet::gitops::{Comparison, Sources};
use undercroft_model::PcName;
use undercroft_render::{K3D_FILE, K3D_MOUNTS, RenderInput, TreeLayout, dev_cluster, render};

use undercroft_model::document::Version;

use crate::{
    args::DirArg,
    commands::render::refuse_edited,
    documents::DevConfig,
    done::Done,
    error::CliError,
    gitops::refuse,
    project::OwnedProject,
    style::{GOOD, paint},
    text::count,
    ui::Ui,
};

/// Work with a local cluster (k3d) that runs the fleet's manifests
#[derive(Debug, Args)]
#[command(after_help = DEV_EXAMPLES)]
pub(crate) struct DevArgs {
    #[command(subcommand)]
    command: DevCommand,
}

const DEV_EXAMPLES: &str = "\
Example:
  undercroft dev config";

#[derive(Debug, Subcommand)]
enum DevCommand {
    Config(ConfigArgs),
}

/// Write k3d's configuration and the tree that a PC can run
///
/// The tree is the cluster's own without what a laptop can't run, for Kubernetes of the same minor
/// version and k3s with the same arguments. The cluster has a name, a context and a port of its
/// own; the context in use stays in use, and nothing of it can reach the fleet's.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct ConfigArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Folder to write to, inside of the inventory's
    #[arg(long, value_name = "DIR", default_value = "dev", value_hint = clap::ValueHint::DirPath)]
    out: PathBuf,
    /// PC that the cluster is for; its name becomes part of the cluster's
    #[arg(long, value_name = "NAME")]
    pc: Option<PcName>,
    /// Overwrite files that were edited by hand, too
    #[arg(long)]
    force: bool,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft dev config
  undercroft dev config --pc ada-laptop

Exit codes: 0 done, 65 something that was given is wrong, or a written file was edited.

With --json: {\"cluster\", \"context\", \"create\": [ARGUMENT, …], \"files\", \"waves\", \"changes\": [{\"path\",
\"change\", \"edited\", \"foreign\"}]}";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &DevArgs) -> Result<Done, CliError> {
    match &args.command {
        DevCommand::Config(args) => config(ui, at, args),
    }
}

fn config(ui: Ui, at: Option<&Path>, args: &ConfigArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(args.dir.or(at)?)?;
    let inventory = project.load(ui)?;
    let out = inside(&args.out)?;
    if [&inventory.gitops.path, &inventory.gitops.apps_path].contains(&&out) {
        return Err(
            CliError::usage(format!("{out} is the folder of something else"))
                .hint("Choose another with --out."),
        );
    }
    let files = project.files();
    let sources = Sources::read(&files, &inventory).map_err(|error| refuse(ui, &project, error))?;
    let cluster = dev_cluster(&inventory, &sources.lock, args.pc.as_ref())
        .map_err(|problem| refuse(ui, &project, problem))?;
    let tree = render(&RenderInput {
        inventory: &inventory,
        lock: &sources.lock,
        apps: &sources.apps,
        overrides: &sources.overrides,
        dev: Some(&out),
        standing: None,
    })
    .map_err(|problems| refuse(ui, &project, problems))?;
    let layout = TreeLayout::new(&out);
    let more = BTreeMap::from([
        (layout.file(K3D_FILE), cluster.config.clone()),
        (layout.file(K3D_MOUNTS), cluster.mounts.clone()),
    ]);
    let waves = tree.waves.clone();
    let comparison =
        Comparison::new(&files, &layout, tree, more).map_err(|e| CliError::from(&e))?;
    let edited = comparison.edited();
    if !edited.is_empty() && !args.force {
        return Err(refuse_edited(ui, &comparison, &edited)?);
    }
    comparison.write(&layout).map_err(|e| CliError::from(&e))?;
    files
        .make_executable(layout.file(K3D_MOUNTS))
        .map_err(|e| CliError::from(&e))?;
    // k3d wants the script's path whole.
    let folder = project.dir.join(&out);
    let folder = folder
        .canonicalize()
        .map_err(|e| CliError::file("find", &folder, &e))?;
    let folder = folder.display().to_string();
    let create: Vec<String> = cluster
        .create
        .iter()
        .map(|word| word.replace("{dir}", &folder))
        .collect();
    if args.json {
        ui.json(&DevConfig {
            version: Version,
            cluster: cluster.name,
            context: cluster.context,
            create,
            files: comparison.rendered_files(),
            waves,
            changes: comparison.differences,
        })?;
        return Ok(Done::Well);
    }
    ui.line(&format!(
        "{} {out}: {}, {} changed",
        paint(GOOD, "rendered"),
        count(comparison.rendered_files(), "file"),
        comparison.differences.len(),
    ))?;
    ui.line(&format!("Make the cluster {} with", cluster.name))?;
    ui.line(&format!("  k3d {}", shell(&create)))?;
    ui.line(&format!(
        "and then bring what {} names, in order, into the context {}.",
        layout.order(),
        cluster.context
    ))?;
    Ok(Done::Well)
}

/// A folder inside of the inventory's, as the tree's paths name it.
fn inside(out: &Path) -> Result<String, CliError> {
    let outside = || {
        CliError::usage(format!(
            "{} isn't inside of the inventory's folder",
            out.display()
        ))
        .hint("Argo CD reads the files from the repository: give a path relative to undercroft.toml, without '..'.")
    };
    let mut parts = Vec::new();
    for part in out.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(outside)?),
            Component::CurDir => {}
            _ => return Err(outside()),
        }
    }
    if parts.is_empty() {
        return Err(outside());
    }
    Ok(parts.join("/"))
}

/// Words as a shell takes them.
fn shell(words: &[String]) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:@,".contains(c);
            if word.chars().all(plain) {
                word.clone()
            } else {
                format!("'{}'", word.replace('\'', "'\\''"))
            }
        })
        .collect();
    quoted.join(" ")
}
