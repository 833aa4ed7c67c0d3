//! Making what was copied boot: host key, files, profile, boot loader.

use undercroft_model::{Evidence, Failure, FailureKind, Work, text::visible};

use super::{
    Script,
    dialogue::{Halt, Machine, Way, unexpected},
};
use crate::{
    ask::Ask,
    exit::{code, value},
};

impl Script<'_> {
    /// Delivers the host key and the extra files, and makes the system boot; a probe looks whether all of that is done.
    pub(super) fn install(&self, toplevel: &str, machine: &mut Machine<'_>) -> Way<Evidence> {
        let toplevel = || toplevel.to_owned();
        let ended = match self.work {
            Work::Probe => {
                let has_key = machine.ended(|| Ask::HasHostKey)?;
                match has_key.code {
                    code::DONE => {}
                    code::NOT_YET => return Err(Halt::NotDone),
                    _ => return Err(unexpected(has_key)),
                }
                machine.ended(|| Ask::IsInstalled {
                    toplevel: toplevel(),
                })?
            }
            Work::Act => {
                machine.done(|| Ask::GiveHostKey)?;
                machine.done(|| Ask::GiveExtraFiles)?;
                machine.ended(|| Ask::Install {
                    toplevel: toplevel(),
                })?
            }
        };
        match ended.code {
            code::DONE => {}
            code::NOT_YET if self.work == Work::Probe => return Err(Halt::NotDone),
            _ => return Err(unexpected(ended)),
        }
        match value(&ended.stdout, "entry") {
            Some(entry) if !entry.is_empty() => Ok(Evidence::Installed {
                boot_id: self.boot_id(),
                default_entry: visible(entry),
            }),
            _ => Err(Failure::new(
                FailureKind::Transient,
                "the installer names no boot entry that it has read back",
            )
            .with_command(ended.failed_command())
            .into()),
        }
    }
}
