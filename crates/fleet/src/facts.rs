//! What machines are, as they themselves showed it: `facts/NAME.json`, beside the inventory and
//! apart from it. People commit these files; the flake reads them.

use std::path::Path;

use serde::Serialize;
use undercroft_model::{
    MacAddr, MachineUuid, NodeName, NodeState, ReportedDisk, ReportedFirmware, System,
    view::{FleetView, NodeView},
};

use undercroft_folder::confined::{Confined, Modes};
use undercroft_secrets::keys::KeyError;

/// The folder of the facts, beside the inventory.
pub const FACTS_DIR: &str = "facts";
/// The version of a file's form.
const VERSION: u32 = 1;
/// The modes of the files: nothing in them is secret.
const MODES: Modes = Modes {
    file: 0o644,
    ..Modes::PRIVATE
};
/// The largest file of facts that is read, in bytes; one of a machine with a hundred disks is a
/// fiftieth of it.
const FACTS_BYTES_MAX: u64 = 1024 * 1024;

/// What of a machine's report stays true after its installer is gone.
#[derive(Debug, Serialize)]
struct Facts<'a> {
    version: u32,
    uuid: &'a Option<MachineUuid>,
    macs: &'a [MacAddr],
    system: System,
    firmware: ReportedFirmware,
    memory_mb: u64,
    disks: &'a [ReportedDisk],
}

impl<'a> Facts<'a> {
    /// The facts of a machine whose installer was looked at over SSH pinned to an approved key: a
    /// report before that is a claim of whoever sent it.
    fn of(node: &'a NodeView) -> Option<Self> {
        if node.state < NodeState::InstallerReady {
            return None;
        }
        node.facts.report.as_ref().map(|report| Self {
            version: VERSION,
            uuid: &report.uuid,
            macs: &report.macs,
            system: report.system,
            firmware: report.firmware,
            memory_mb: report.memory_mb,
            disks: &report.disks,
        })
    }
}

/// Writes the facts of the machines that a run has looked at, and names those whose file is new or
/// changed.
///
/// # Errors
/// When a file can't be written; those before it are.
pub fn write_facts(repository: &Path, view: &FleetView) -> Result<Vec<NodeName>, KeyError> {
    let repository = Confined::new(repository);
    repository.clear_leftovers(FACTS_DIR);
    let mut changed = Vec::new();
    for (name, node) in &view.nodes {
        let Some(facts) = Facts::of(node) else {
            continue;
        };
        let file = Path::new(FACTS_DIR).join(format!("{name}.json"));
        let mut text = serde_json::to_string_pretty(&facts).map_err(|e| KeyError::Io {
            what: "written",
            path: repository.path(&file),
            source: e.into(),
        })?;
        // Whoever prints the file prints what machines say of themselves.
        text = undercroft_model::text::json_escaped(&text);
        text.push('\n');
        let there = repository.read(&file, FACTS_BYTES_MAX)?;
        if there.as_deref() == Some(text.as_bytes()) {
            continue;
        }
        repository.replace(&file, text.as_bytes(), MODES)?;
        changed.push(name.clone());
    }
    Ok(changed)
}
