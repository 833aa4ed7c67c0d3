//! The way from the installer into the machine's own system: what a look at its address says of it.

use undercroft_model::{Evidence, Failure, FailureKind, InstallerReport, NoAnswer};

use crate::ask::Unanswered;

/// How long a foreign host key may be shown after a reboot before the machine counts as somebody else's, in
/// milliseconds. Only the installer's own key, whose SSH server may still be ending, is expected.
const FOREIGN_KEY_MS_MAX: u64 = 30_000;

/// How long a probe, or a proof, looks for a machine that may be between two boots, in milliseconds. The engine gives a
/// probe two minutes.
pub const LOOK_MS_MAX: u64 = 90_000;

/// What an installed machine says of itself, asked under its own host key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledLook {
    /// The boot.
    pub boot_id: String,
    /// The system that it booted.
    pub booted_system: String,
    /// The system that is active now.
    pub current_system: String,
}

/// A look at a machine's address.
pub type Look = Result<InstalledLook, Box<Unanswered>>;

/// What a look says.
#[derive(Debug, Clone, PartialEq)]
pub enum Looked {
    /// Nothing for good: it is to be looked at again.
    Again,
    /// The installer answers that the machine's steps stand on; asked whether it is there it says whether the machine
    /// has left it.
    InInstaller,
    /// It is done.
    Done(Evidence),
    /// It failed.
    Failed(Failure),
}

/// A machine on its way from its installer into its own system.
#[derive(Debug, Clone)]
pub struct Return<'a> {
    /// The report of the installer that it leaves.
    pub installer: Option<&'a InstallerReport>,
    /// When a foreign key was first shown, in milliseconds of whichever clock the looks are told with.
    foreign_since_ms: Option<u64>,
}

impl<'a> Return<'a> {
    /// Of a machine that was in that installer.
    pub fn from(installer: Option<&'a InstallerReport>) -> Self {
        Self {
            installer,
            foreign_since_ms: None,
        }
    }

    /// The same, gone on with: a foreign key was first shown at that time.
    #[must_use]
    pub fn since(mut self, foreign_since_ms: Option<u64>) -> Self {
        self.foreign_since_ms = foreign_since_ms;
        self
    }

    /// When a foreign key was first shown.
    pub fn foreign_since_ms(&self) -> Option<u64> {
        self.foreign_since_ms
    }

    fn is_installers(&self, shown: Option<&String>) -> bool {
        self.installer
            .is_some_and(|report| Some(&report.fingerprint) == shown)
    }

    /// What a look says after the machine was told to reboot. `is_claimed` tells whether an installer has reported that
    /// fingerprint in the machine's name.
    pub fn told_to_reboot(
        &mut self,
        look: &Look,
        at_ms: u64,
        is_claimed: impl FnOnce(&str) -> bool,
    ) -> Looked {
        let unanswered = match look {
            Ok(seen) => {
                let left = self.installer.map(|report| report.boot_id.as_str());
                return if left == Some(seen.boot_id.as_str()) {
                    Looked::Again
                } else {
                    rebooted(seen)
                };
            }
            Err(unanswered) => unanswered,
        };
        match unanswered.why {
            NoAnswer::OtherKey if self.is_installers(unanswered.shown.as_ref()) => Looked::Again,
            NoAnswer::OtherKey => {
                let since_ms = *self.foreign_since_ms.get_or_insert(at_ms);
                if at_ms.saturating_sub(since_ms) <= FOREIGN_KEY_MS_MAX {
                    return Looked::Again;
                }
                // It is in its installer again, rather than somebody else.
                let claimed = unanswered.shown.as_deref().is_some_and(is_claimed);
                let kind = if claimed {
                    FailureKind::PreconditionLost
                } else {
                    FailureKind::Refused
                };
                Looked::Failed(Failure {
                    kind,
                    ..unanswered.failure.clone()
                })
            }
            NoAnswer::AuthRefused | NoAnswer::Local => Looked::Failed(unanswered.failure.clone()),
            NoAnswer::Unreachable | NoAnswer::Interrupted | NoAnswer::NotInTime { .. } => {
                Looked::Again
            }
        }
    }

    /// What a look says to a probe of the reboot.
    pub fn probed(&self, look: &Look) -> Looked {
        let unanswered = match look {
            Ok(seen) => return rebooted(seen),
            Err(unanswered) => unanswered,
        };
        match unanswered.why {
            NoAnswer::AuthRefused | NoAnswer::Local => Looked::Failed(unanswered.failure.clone()),
            NoAnswer::OtherKey if self.is_installers(unanswered.shown.as_ref()) => {
                Looked::InInstaller
            }
            NoAnswer::OtherKey if self.installer.is_none() => {
                Looked::Failed(unanswered.failure.clone())
            }
            // An installer that has booted anew has a new key.
            _ => Looked::Again,
        }
    }

    /// Why a machine that was told to reboot is waited for no longer.
    pub fn has_not_returned(&self, last: &Look) -> Failure {
        let last = match last {
            Ok(_) => "the installer still runs",
            Err(unanswered) => unanswered.failure.message.as_str(),
        };
        Failure::new(
            FailureKind::Ambiguous,
            format!("the machine has not come back from its reboot: {last}"),
        )
        .with_hint("Look at its console: it may wait in its firmware or boot loader.")
    }

    /// Why a probe looks for the machine no longer.
    pub fn not_found(&self, last: Unanswered) -> Failure {
        let kind = match last.why {
            NoAnswer::OtherKey => FailureKind::PreconditionLost,
            _ => FailureKind::Transient,
        };
        Failure::new(kind, last.failure.message)
    }

    /// What a look says of what the machine runs, where `toplevel` was built for it, and `key` is the fingerprint that it was
    /// asked under. It changes nothing, so that it is its own probe.
    pub fn proved(&self, look: &Look, toplevel: &str, key: &str) -> Looked {
        let unanswered = match look {
            Ok(seen) if seen.booted_system == toplevel => {
                return Looked::Done(Evidence::Up {
                    boot_id: seen.boot_id.clone(),
                    booted_system: seen.booted_system.clone(),
                    host_key_fingerprint: key.to_owned(),
                });
            }
            Ok(seen) => return Looked::Failed(another_system(&seen.booted_system, toplevel)),
            Err(unanswered) => unanswered,
        };
        match unanswered.why {
            NoAnswer::OtherKey if self.is_installers(unanswered.shown.as_ref()) => {
                Looked::Failed(Failure::new(
                    FailureKind::PreconditionLost,
                    "the machine runs the installer, not what was installed",
                ))
            }
            NoAnswer::Unreachable | NoAnswer::Interrupted | NoAnswer::NotInTime { .. } => {
                Looked::Again
            }
            NoAnswer::OtherKey | NoAnswer::AuthRefused | NoAnswer::Local => {
                Looked::Failed(unanswered.clone().of_look())
            }
        }
    }
}

fn rebooted(seen: &InstalledLook) -> Looked {
    Looked::Done(Evidence::Rebooted {
        boot_id: seen.boot_id.clone(),
    })
}

fn another_system(booted: &str, toplevel: &str) -> Failure {
    let booted = match booted {
        "" => "something that isn't NixOS",
        path => path,
    };
    Failure::new(
        FailureKind::Permanent,
        format!("the machine booted {booted}, not {toplevel}"),
    )
    .with_hint("Look at its boot menu: an older generation, or another disk, may come first.")
}
