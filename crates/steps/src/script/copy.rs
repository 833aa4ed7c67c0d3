//! Copying a closure to a machine.

use undercroft_model::{Evidence, Failure, FailureKind, NoAnswer, Work};

use super::{
    Script,
    dialogue::{Halt, Machine, Way, done, unexpected},
};
use crate::{
    ask::{Answer, Ask, CopyFailed, Ended, MOUNT_POINT},
    exit::code,
};

/// How often a closure is copied again because a part of it, from before a power cut, was found damaged on the disk.
/// Damage that was dropped and copied anew is whole: a second round finds none unless the disk itself is failing.
const ROUNDS_MAX: u32 = 3;
/// A disk with less room than this is taken for full, in KiB: an ext4 file system that has refused to write may still
/// show a few blocks.
const FULL_BELOW_KIB: u64 = 4096;

impl Script<'_> {
    /// Copies the closure; a probe looks whether it is there, whole.
    pub(super) fn copy(
        &self,
        toplevel: &str,
        closure_bytes: Option<u64>,
        machine: &mut Machine<'_>,
    ) -> Way<Evidence> {
        let evidence = || Evidence::Copied {
            boot_id: self.boot_id(),
            closure_bytes: closure_bytes.unwrap_or(0),
        };
        if self.work == Work::Probe {
            return match whole(toplevel, machine)? {
                true => Ok(evidence()),
                false => Err(Halt::NotDone),
            };
        }
        machine.done(|| Ask::Mounted)?;
        for _ in 0..ROUNDS_MAX {
            let copied = machine.ask(|| Ask::Copy {
                toplevel: toplevel.to_owned(),
                closure_bytes,
            })?;
            match copied {
                Answer::CopyFailed(failed) if is_damaged(failed) => {
                    machine.done(|| Ask::ForgetStore)?;
                }
                Answer::CopyFailed(failed) => return Err(why(failed, MOUNT_POINT, machine)?.into()),
                answer => {
                    done(answer)?;
                    if whole(toplevel, machine)? {
                        return Ok(evidence());
                    }
                }
            }
        }
        Err(Halt::failed(
            FailureKind::Permanent,
            format!(
                "the closure was copied {ROUNDS_MAX} times, and it is damaged on the disk each time"
            ),
        ))
    }
}

/// Whether the closure is there and every path of it is what it should be, and on the disk.
fn whole(toplevel: &str, machine: &mut Machine<'_>) -> Way<bool> {
    // The installer's own check: it reads every path back where the copy may be older than a power cut, and drops what
    // is damaged.
    let ended = machine.ended(|| Ask::IsInstalled {
        toplevel: toplevel.to_owned(),
    })?;
    match ended.code {
        code::DONE | code::NOT_YET => {}
        code::NO_CLOSURE => return Ok(false),
        _ => return Err(unexpected(ended)),
    }
    // Nix registers paths without waiting until their content is on the disk.
    machine.done(|| Ask::Sync)?;
    Ok(true)
}

/// What became of a script that was copied into the installer's own store, where it didn't get there.
pub(super) fn brought(answer: &Answer) -> Way<()> {
    match answer {
        // The copy ended, and so may what it was copied to: there is no later question to ask it.
        Answer::CopyFailed(failed) => Err(because(failed, None).into()),
        answer => done(answer),
    }
}

/// Whether a copy failed because the database of the store on the machine's disk is damaged: Nix writes some of its
/// files without waiting for the disk, so that a power cut can leave them empty.
fn is_damaged(failed: &CopyFailed) -> bool {
    let said = &failed.command.output_tail;
    let named = said.contains("/mnt/nix/var/nix/db");
    named && said.contains("is corrupt")
        || said.contains("database disk image is malformed")
        || said.contains("file is not a database")
}

fn says_full(failed: &CopyFailed) -> bool {
    let said = &failed.command.output_tail;
    said.contains("No space left on device") || said.contains("disk is full")
}

/// Why a copy failed. Which of the two disks is full, the machine can tell.
fn why(failed: &CopyFailed, at: &'static str, machine: &mut Machine<'_>) -> Way<Failure> {
    let room = if !failed.timed_out && says_full(failed) {
        match machine.ask(|| Ask::FreeRoom { at })? {
            Answer::Ended(ended) => free_kib(ended),
            _ => None,
        }
    } else {
        None
    };
    Ok(because(failed, room))
}

/// POSIX: the fourth column of the last line is the room that is left.
fn free_kib(ended: &Ended) -> Option<u64> {
    let line = ended.stdout.lines().next_back()?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Why a copy failed, in the order of what is most certain.
fn because(failed: &CopyFailed, free_kib: Option<u64>) -> Failure {
    let said = failed.command.output_tail.as_str();
    let because =
        |kind, message: String| Failure::new(kind, message).with_command(failed.command.clone());
    if failed.timed_out {
        return because(FailureKind::Ambiguous, "the copy took too long".to_owned());
    }
    if says_full(failed) {
        return match free_kib {
            Some(free) if free < FULL_BELOW_KIB => because(
                FailureKind::Permanent,
                format!(
                    "the machine's disk is full: {free} KiB are free, and the closure needs more"
                ),
            )
            .with_hint("Use a larger disk or a smaller system."),
            Some(_) => because(
                FailureKind::Permanent,
                "a disk of this machine, where the closure is copied from, is full".to_owned(),
            )
            .with_hint("Free some space; `df -h` shows where there is none."),
            None => because(
                FailureKind::Transient,
                "a disk is full, here or on the machine".to_owned(),
            ),
        };
    }
    if let Some(unanswered) = &failed.connection {
        // A moment without network is worth another try; that the machine is gone, the next try's first command finds
        // out.
        return match unanswered.why {
            NoAnswer::Unreachable => Failure {
                kind: FailureKind::Transient,
                ..unanswered.failure.clone()
            },
            _ => unanswered.clone().of_installer(),
        };
    }
    let missing = [
        "is not valid",
        "does not exist",
        "no such path",
        "cannot be read",
    ];
    if missing.iter().any(|words| said.contains(words)) {
        return because(
            FailureKind::Permanent,
            "a part of the closure is missing in this machine's store".to_owned(),
        )
        .with_hint("Build the system again; a garbage collection may have removed it.");
    }
    if said.contains("unable to download") || said.contains("Couldn't resolve host") {
        return because(
            FailureKind::Transient,
            "a substituter couldn't be reached".to_owned(),
        )
        .with_hint("Copying needs no substituter when everything was built or fetched before.");
    }
    let first = said.lines().find(|line| !line.trim().is_empty());
    because(
        FailureKind::Transient,
        format!("nix copy failed: {}", first.unwrap_or("it gave no reason")),
    )
}
