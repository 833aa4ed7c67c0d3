//! The same rounds with a real fleet: its keys, its systems in a real store, its looks at machines.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use undercroft_build::system::{NixStore, SystemBuilder};
use undercroft_metal::world::{InstallOptions, RunProgress};
use undercroft_testkit::{OrSkip as _, program};

use super::*;
use crate::{Fleet, KeptSystems, Settings, facts::FACTS_DIR};

/// A fleet's folder and a store with one small system in it, which all machines are to run.
pub(super) struct Real {
    dir: tempfile::TempDir,
    store: NixStore,
    toplevel: String,
    kept: KeptSystems,
    /// What was prepared last.
    targets: BTreeMap<NodeName, Result<SystemTarget, String>>,
    /// The machines whose systems were built, in order.
    built: Arc<Mutex<Vec<NodeName>>>,
    /// The machines that were looked at, look by look.
    looked_at: RefCell<Vec<Vec<NodeName>>>,
}

impl Real {
    fn new(nix_store: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let system = dir.path().join("system");
        fs::create_dir_all(system.join("bin")).unwrap();
        for name in ["init", "kernel", "initrd", "bin/switch-to-configuration"] {
            fs::write(system.join(name), name).unwrap();
        }
        fs::create_dir_all(dir.path().join("repository")).unwrap();
        let root = dir.path().join("store");
        let store = NixStore::Local { root };
        let added = Command::new(nix_store)
            .args(["--store", &store.uri().unwrap(), "--add"])
            .arg(&system)
            .output()
            .unwrap();
        assert!(added.status.success(), "{added:?}");
        let toplevel = String::from_utf8(added.stdout).unwrap().trim().to_owned();
        Self {
            dir,
            store,
            toplevel,
            kept: KeptSystems::default(),
            targets: BTreeMap::new(),
            built: Arc::default(),
            looked_at: RefCell::default(),
        }
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    fn fleet(&self, played: &Played) -> Fleet {
        let built = Arc::clone(&self.built);
        // A system that was built is told with its size, a line each.
        let told = move |told: RunProgress| match told {
            RunProgress::Line {
                node: Some(node),
                text,
            } if text.ends_with(" MB)") => built.lock().unwrap().push(node),
            _ => {}
        };
        // No look leaves this machine.
        let mut inventory = Inventory::clone(&played.inventory.borrow());
        for node in inventory.nodes.values_mut() {
            node.address = Ipv4Addr::LOCALHOST;
        }
        Fleet::new(Settings {
            inventory: Arc::new(inventory),
            repository: self.repository(),
            state_dir: self.repository().join(".undercroft"),
            cache_dir: self.dir.path().join("cache"),
            identity_files: Vec::new(),
            rack_state_dir: None,
            installer: None,
            system_builder: Some(SystemBuilder::StorePaths {
                toplevel: self.toplevel.clone(),
                disko_script: None,
                disko_devices: None,
                store: self.store.clone(),
            }),
            generation: 1,
            options: InstallOptions::default(),
            progress: Arc::new(told),
        })
        .unwrap()
    }

    pub(super) async fn prepare(
        &mut self,
        played: &Played,
        rounds: &mut Rounds,
    ) -> Result<BTreeMap<NodeName, Result<SystemTarget, String>>, Left> {
        let fleet = self.fleet(played);
        let only = played.only.borrow().clone();
        let now_ms = played.now_ms.get();
        let prepared = fleet.prepare_kept(only.as_ref(), &mut self.kept, rounds, now_ms);
        self.targets = prepared.await?.systems.targets;
        Ok(self.targets.clone())
    }

    pub(super) async fn observe(
        &self,
        played: &Played,
        targets: &BTreeMap<NodeName, Result<SystemTarget, String>>,
        view: &FleetView,
    ) -> Result<Observation, Left> {
        let fleet = self.fleet(played);
        let only = played.only.borrow().clone();
        let mut prepared = fleet.look(Some(&BTreeSet::new())).await?;
        prepared.systems.targets.clone_from(targets);
        let seen = fleet.observe(only.as_ref(), &prepared, view).await?;
        let looked_at = seen.nodes.keys().cloned().collect();
        self.looked_at.borrow_mut().push(looked_at);
        Ok(seen)
    }

    fn built(&self) -> Vec<NodeName> {
        std::mem::take(&mut *self.built.lock().unwrap())
    }
}

/// What is played with a real fleet; `None` where there is no Nix.
fn played(rounds: u64) -> Option<Rc<Played>> {
    let nix_store = program("nix-store", "nix-bin").or_skip()?;
    let played = Played::new(rounds * MINUTE_MS);
    *played.real.borrow_mut() = Some(Real::new(&nix_store));
    Some(played)
}

#[tokio::test]
async fn a_round_with_the_same_inputs_builds_nothing_and_one_with_others_builds_once() {
    let Some(played) = played(7) else {
        return;
    };
    *played.only.borrow_mut() = Some(BTreeSet::from([name("box-1")]));
    let built: Rc<RefCell<BTreeMap<u64, usize>>> = Rc::default();
    let seen = Rc::clone(&built);
    *played.each_round.borrow_mut() = Box::new(move |played, round| {
        let real = played.real.borrow();
        let real = real.as_ref().unwrap();
        // What the round before has built.
        seen.borrow_mut().insert(round - 1, real.built().len());
        match round {
            // Another inventory, and what a machine was found to be.
            4 => *played.inventory.borrow_mut() = inventory(5),
            5 => {
                let facts = real.repository().join(FACTS_DIR);
                fs::create_dir_all(&facts).unwrap();
                fs::write(facts.join("box-1.json"), "{}").unwrap();
            }
            _ => {}
        }
    });
    let (_, served) = served(&played).await;
    assert_eq!(served.rounds, 7);
    let built = built.borrow();
    let by_round: Vec<usize> = (1..7).map(|round| built[&round]).collect();
    assert_eq!(by_round, [1, 0, 0, 1, 1, 0]);
}

#[tokio::test]
async fn a_system_that_is_gone_from_its_store_is_not_taken_for_built() {
    let Some(played) = played(3) else {
        return;
    };
    *played.only.borrow_mut() = Some(BTreeSet::from([name("box-1")]));
    *played.each_round.borrow_mut() = Box::new(|played, round| {
        let real = played.real.borrow();
        let real = real.as_ref().unwrap();
        if round == 3 {
            let system = real.store.physical(&real.toplevel);
            fs::rename(&system, real.dir.path().join("collected")).unwrap();
        }
    });
    served(&played).await;
    let real = played.real.borrow();
    let targets = &real.as_ref().unwrap().targets;
    let why = targets[&name("box-1")].as_ref().unwrap_err();
    assert!(why.contains("isn't in the store"), "{why}");
}

#[tokio::test]
async fn machines_that_are_not_asked_for_are_neither_looked_at_nor_touched() {
    let Some(played) = played(5) else {
        return;
    };
    let asked = name("box-2");
    *played.only.borrow_mut() = Some(BTreeSet::from([asked.clone()]));
    served(&played).await;
    let real = played.real.borrow();
    let real = real.as_ref().unwrap();
    assert_eq!(real.built(), std::slice::from_ref(&asked));
    let looked_at = real.looked_at.borrow();
    assert!(looked_at.len() >= 2, "{looked_at:?}");
    let alone = |nodes: &Vec<NodeName>| *nodes == std::slice::from_ref(&asked);
    assert!(looked_at.iter().all(alone), "{looked_at:?}");
    let runs = played.runs.borrow();
    assert!(!runs.is_empty() && runs.iter().all(|(_, nodes)| alone(nodes)));
    // No key was made for the others, and they are named in what is said of the fleet.
    let files = files_below(&real.repository());
    assert!(
        files.contains("box-2") && !files.contains("box-1"),
        "{files}"
    );
    let said = played.said.borrow().join("\n");
    assert!(said.contains("; 2 others were not looked at"), "{said}");
}

fn files_below(folder: &Path) -> String {
    let mut all = String::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            all.push_str(&format!("{}\n", entry.path().display()));
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    all
}
