//! Undercroft's vocabulary: inventory, observation, plan, records; no I/O.

mod ids;
mod report;

pub use ids::{
    ClassName, InvalidId, MacAddr, MachineUuid, NodeName, PcName, System, UserName, is_dns_label,
};
pub use report::{INSTALLER_REPORT_VERSION, InstallerReport, ReportedDisk, ReportedFirmware};
