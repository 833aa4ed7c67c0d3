//! Building the machines' systems.

use std::{collections::BTreeMap, path::PathBuf};

use undercroft_model::{NodeName, SystemTarget, advice::with_hint, inventory::Builder};
use undercroft_planner::Rounds;

use crate::{inputs, settings::Settings};
use tokio::task::JoinError;
use undercroft_build::debian::Arch;
use undercroft_build::system::{
    BuiltSystem, NixStore, NodeSystem, SystemBuilder, SystemError, SystemSecrets,
};
use undercroft_metal::world::RunProgress;
use undercroft_secrets::{Audience, catalogue};

/// The machines' systems as they were built, or why one could not be.
#[derive(Debug, Clone, Default)]
pub struct Systems {
    /// What each machine is to run.
    pub targets: BTreeMap<NodeName, Result<SystemTarget, String>>,
    /// The store that it was built in.
    pub stores: BTreeMap<NodeName, NixStore>,
}

/// Builds the systems of those machines, one after the other: a builder uses all processors
/// already. One that can't be built keeps none of the others.
pub(crate) async fn build(
    settings: &Settings,
    nodes: &[NodeName],
    authorized_keys: Vec<String>,
) -> Systems {
    let mut systems = Systems::default();
    // A flake that can't be read is read once: Nix tries for long to reach what it can't.
    let mut unreadable: Option<String> = None;
    for name in nodes {
        let Some(node) = settings.inventory.nodes.get(name) else {
            continue;
        };
        let Some(arch) = Arch::of_system(node.system) else {
            let why = format!("Undercroft doesn't install {}", node.system);
            systems.targets.insert(name.clone(), Err(why));
            continue;
        };
        if let Some(why) = &unreadable {
            systems.targets.insert(name.clone(), Err(why.clone()));
            continue;
        }
        let built = build_one(settings, name, arch, authorized_keys.clone()).await;
        let target = match built {
            Ok(Ok(built)) => {
                systems.stores.insert(name.clone(), built.store);
                Ok(SystemTarget {
                    toplevel: built.toplevel,
                    disko_script: built.disko_script,
                    disko_mount_script: built.disko_mount_script,
                    disko_devices: built.disko_devices,
                    system: built.arch.into(),
                    closure_bytes: Some(built.closure_bytes),
                })
            }
            Ok(Err(error)) if error.concerns_the_flake() => {
                let why = with_hint(&error);
                settings.tell(format!("no system can be built: {why}"));
                let why = brief(&why);
                unreadable = Some(why.clone());
                systems.targets.insert(name.clone(), Err(why));
                continue;
            }
            Ok(Err(error)) => Err(with_hint(&error)),
            Err(_) => Err("building it stopped because of a fault in Undercroft itself".to_owned()),
        };
        if let Err(why) = &target {
            settings.tell(format!("{name}: its system can't be built: {why}"));
        }
        systems
            .targets
            .insert(name.clone(), target.map_err(|why| brief(&why)));
    }
    systems
}

/// Builds the system of one machine, apart from everything that waits for sockets.
async fn build_one(
    settings: &Settings,
    name: &NodeName,
    arch: Arch,
    authorized_keys: Vec<String>,
) -> Result<Result<BuiltSystem, SystemError>, JoinError> {
    let builder = builder(settings);
    let request = NodeSystem {
        name: name.to_string(),
        arch,
        authorized_keys,
        secrets: secrets(settings, name),
    };
    let progress = settings.progress.clone();
    let about = name.clone();
    let work = move || {
        builder.build(&request, &mut |line| {
            progress(RunProgress::Line {
                node: Some(about.clone()),
                text: line.to_owned(),
            });
        })
    };
    tokio::task::spawn_blocking(work).await
}

/// Systems that were built in an earlier round, with what from.
#[derive(Debug, Default)]
pub struct KeptSystems {
    stamp: Option<String>,
    systems: Systems,
}

impl KeptSystems {
    /// Builds what isn't there yet, and what is to be built from something else by now. `rounds` says which of
    /// those that couldn't be built are tried again already.
    pub(crate) async fn build(
        &mut self,
        settings: &Settings,
        nodes: &[NodeName],
        authorized_keys: Vec<String>,
        rounds: &mut Rounds,
        now_ms: u64,
    ) -> Systems {
        let builder = builder(settings);
        // It looks at every file of a repository, and the boot servers answer meanwhile.
        let (of, keys) = (settings.clone(), authorized_keys.clone());
        let stamp = tokio::task::spawn_blocking(move || inputs::stamp(&of, &builder, &keys));
        let stamp = stamp.await.ok().flatten();
        if stamp.is_none() || stamp != self.stamp {
            self.systems = Systems {
                // What couldn't be built is said as that until it was tried again.
                targets: std::mem::take(&mut self.systems.targets)
                    .into_iter()
                    .filter(|(_, target)| target.is_err())
                    .collect(),
                ..Systems::default()
            };
        }
        rounds.inputs(stamp.as_deref());
        let due: Vec<NodeName> = nodes
            .iter()
            .filter(|name| !self.is_there(name) && rounds.build_is_due(name, now_ms))
            .cloned()
            .collect();
        if !due.is_empty() {
            let built = build(settings, &due, authorized_keys).await;
            for (name, target) in &built.targets {
                let failed = target.as_ref().err().map(String::as_str);
                rounds.built(name, now_ms, failed);
            }
            self.systems.targets.extend(built.targets);
            self.systems.stores.extend(built.stores);
        }
        self.stamp = stamp;
        let asked = |name: &NodeName| nodes.contains(name);
        self.systems.targets.retain(|name, _| asked(name));
        self.systems.stores.retain(|name, _| asked(name));
        self.systems.clone()
    }

    /// Whether a machine's system was built and is in its store still: a collection of garbage may have
    /// taken it.
    fn is_there(&self, name: &NodeName) -> bool {
        let (Some(Ok(target)), Some(store)) = (
            self.systems.targets.get(name),
            self.systems.stores.get(name),
        ) else {
            return false;
        };
        let scripts = target.disko_script.iter().chain(&target.disko_mount_script);
        let mut paths = scripts.chain([&target.toplevel]);
        paths.all(|path| store.physical(path).exists())
    }
}

/// A failure in one line, for reports on what was told whole when it happened: what failed, and the
/// last thing that the program called an error.
fn brief(why: &str) -> String {
    let mut lines = why.lines();
    let first = lines.next().unwrap_or_default().trim_end_matches(':');
    match lines
        .rev()
        .map(str::trim)
        .find(|line| line.starts_with("error:"))
    {
        Some(error) => format!("{first}: {error}"),
        None => first.to_owned(),
    }
}

/// Names a folder with `sops` and `ssh-to-age` for machines of the rack. Without it, the rack's
/// own systems have no secrets.
const RACK_SECRETS_PROGRAMS: &str = "UNDERCROFT_RACK_SECRETS";

/// The encrypted files that a machine of the rack opens when it starts.
fn secrets(settings: &Settings, node: &NodeName) -> Option<SystemSecrets> {
    let programs = std::env::var_os(RACK_SECRETS_PROGRAMS).map(PathBuf::from)?;
    let folder = settings.repository.join(&settings.inventory.secrets.path);
    let files: Vec<PathBuf> = catalogue(&settings.inventory)
        .into_iter()
        .filter(|file| matches!(&file.audience, Audience::Nodes(nodes, _) if nodes.contains(node)))
        .map(|file| folder.join(file.path))
        .filter(|path| path.is_file())
        .collect();
    (!files.is_empty()).then_some(SystemSecrets { programs, files })
}

fn builder(settings: &Settings) -> SystemBuilder {
    if let Some(builder) = &settings.system_builder {
        return builder.clone();
    }
    match settings.inventory.fleet.builder {
        Builder::DebianRack => SystemBuilder::RackDebian {
            cache_dir: settings.cache_dir.clone(),
            generation: settings.generation,
            broken: false,
        },
        Builder::Flake => SystemBuilder::Flake {
            dir: settings.repository.join(&settings.inventory.fleet.flake),
            cache_dir: settings.cache_dir.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_where_it_was_told_before() {
        let whole = "`nix build x` failed (exit status: 1):\nerror:\n  … while evaluating\n\n  error: attribute 'y' missing\n  at flake.nix:3";
        assert_eq!(
            brief(whole),
            "`nix build x` failed (exit status: 1): error: attribute 'y' missing"
        );
        assert_eq!(brief("Nix is not installed"), "Nix is not installed");
    }
}
