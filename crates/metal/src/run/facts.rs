//! What machines are, as they themselves showed it: `facts/NAME.json`, beside the inventory and
//! apart from it. People commit these files; the flake reads them.

use std::{fs, io, path::Path};

use serde::Serialize;
use undercroft_model::{
    MacAddr, MachineUuid, NodeName, NodeState, ReportedDisk, ReportedFirmware, System,
    view::{FleetView, NodeView},
};

use crate::keys::{KeyError, replace};

/// The folder of the facts, beside the inventory.
pub const FACTS_DIR: &str = "facts";
/// The version of a file's form.
const VERSION: u32 = 1;
/// The mode of the files: nothing in them is secret.
const FILE_MODE: u32 = 0o644;

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
        node.report.as_ref().map(|report| Self {
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
    let dir = repository.join(FACTS_DIR);
    let mut changed = Vec::new();
    for (name, node) in &view.nodes {
        let Some(facts) = Facts::of(node) else {
            continue;
        };
        let path = dir.join(format!("{name}.json"));
        let failed = |what, source: io::Error| KeyError::Io {
            what,
            path: path.clone(),
            source,
        };
        let mut text =
            serde_json::to_string_pretty(&facts).map_err(|e| failed("written", e.into()))?;
        // Whoever prints the file prints what machines say of themselves.
        text = undercroft_model::text::json_escaped(&text);
        text.push('\n');
        match fs::read(&path) {
            Ok(there) if there == text.as_bytes() => continue,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("read", e)),
        }
        replace(&path, text.as_bytes(), FILE_MODE)?;
        changed.push(name.clone());
    }
    Ok(changed)
}
