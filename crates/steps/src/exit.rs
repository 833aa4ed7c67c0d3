//! The exit codes of the installer's programs, and what they mean for a step.

use undercroft_model::{Failure, FailureKind};

use crate::ask::Ended;

/// The exit codes of the installer's programs, and of the guard before them.
pub mod code {
    /// It is done.
    pub const DONE: i32 = 0;
    /// A look has found that it isn't done.
    pub const NOT_YET: i32 = 10;
    /// No disk has the planned identity.
    pub const NO_DISK: i32 = 20;
    /// Several disks have it.
    pub const AMBIGUOUS_DISK: i32 = 21;
    /// The disk is too small.
    pub const DISK_TOO_SMALL: i32 = 22;
    /// The disk is in use.
    pub const DISK_IN_USE: i32 = 23;
    /// The closure isn't there whole.
    pub const NO_CLOSURE: i32 = 30;
    /// What was copied is no system.
    pub const NOT_A_SYSTEM: i32 = 31;
    /// The boot loader couldn't be written.
    pub const BOOT_LOADER: i32 = 32;
    /// What was written wouldn't boot.
    pub const NOT_BOOTABLE: i32 = 33;
    /// A path isn't one that may be written.
    pub const BAD_PATH: i32 = 40;
    /// The new system isn't mounted.
    pub const NOT_MOUNTED: i32 = 41;
    /// The program doesn't know the request.
    pub const USAGE: i32 = 64;
    /// The command before this one still runs.
    pub const BUSY: i32 = 75;
    /// The machine has booted anew.
    pub const OTHER_BOOT: i32 = 76;
    /// The shell didn't find the program.
    pub const NOT_FOUND: i32 = 127;
}

/// What an exit code of an installer's program means, where it isn't a success.
pub fn refused(ended: &Ended) -> Failure {
    use FailureKind::{Permanent, PreconditionLost, Refused, Transient};
    let last = ended.stderr_tail.lines().next_back().unwrap_or_default();
    let (kind, message, hint) = match ended.code {
        code::NO_DISK => (
            Refused,
            "no disk has the planned identity",
            Some("Compare the inventory's serials with the disks that the machine has."),
        ),
        code::AMBIGUOUS_DISK => (
            Refused,
            "more than one disk has the planned identity",
            Some("Give the disk's WWN in the inventory as well."),
        ),
        code::DISK_TOO_SMALL => (Permanent, "the disk is too small", None),
        code::DISK_IN_USE => (
            Permanent,
            "the disk is in use on the machine",
            Some(
                "Something was mounted by hand, or the disk belongs to a RAID or a pool. Nothing was written to it.",
            ),
        ),
        code::NO_CLOSURE => (
            PreconditionLost,
            "the closure on the disk is missing or damaged",
            None,
        ),
        code::NOT_A_SYSTEM => (
            Permanent,
            "what was built isn't a system for this machine",
            Some(
                "Look at the machine's `system` in the inventory, and at what the flake builds for it.",
            ),
        ),
        code::BOOT_LOADER => (Transient, "the boot loader couldn't be installed", None),
        code::NOT_BOOTABLE => (
            Transient,
            "the boot loader was written, and the machine would not boot from it",
            None,
        ),
        code::BAD_PATH => (Permanent, "the installer refused a path", None),
        code::NOT_MOUNTED => (
            PreconditionLost,
            "the new system isn't mounted any longer",
            None,
        ),
        code::USAGE => (
            Permanent,
            "the installer doesn't know this request",
            Some(
                "The installer may be of another version, or the layout one that it can't make itself; such layouts need a disko script.",
            ),
        ),
        code::BUSY => (
            Transient,
            "a command of an interrupted step still runs on the machine",
            None,
        ),
        code::OTHER_BOOT => (
            PreconditionLost,
            "the machine has booted anew since its installer was approved",
            None,
        ),
        code::NOT_FOUND => (
            Permanent,
            "the machine doesn't run Undercroft's installer",
            Some("Boot it from the network; another Linux can't be installed from yet."),
        ),
        _ => (Transient, "the command failed", None),
    };
    let message = if last.is_empty() {
        format!("{message} (exit code {})", ended.code)
    } else {
        format!("{message}: {last}")
    };
    let failure = Failure::new(kind, message).with_command(ended.failed_command());
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// The value of a key in the `key=value` lines of a program's output.
pub fn value<'o>(stdout: &'o str, key: &str) -> Option<&'o str> {
    stdout.lines().find_map(|line| {
        let (found, value) = line.trim().split_once('=')?;
        (found == key).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_line_by_line() {
        let output = "state=installed\nentry=a=b.conf\nnoise\n";
        assert_eq!(value(output, "entry"), Some("a=b.conf"));
        assert_eq!(value(output, "state"), Some("installed"));
        assert_eq!(value(output, "noise"), None);
    }

    /// The installer's programs are shell, and have the codes and the mount point in a file of their own.
    #[test]
    fn the_installers_programs_end_with_these_codes() {
        let library = include_str!("../../build/src/installer/assets/undercroft/lib.sh");
        let theirs: Vec<(&str, i32)> = library
            .lines()
            .filter_map(|line| line.strip_prefix("EXIT_")?.split_once('='))
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        let ours = [
            ("FAILED", 1),
            ("NOT_YET", code::NOT_YET),
            ("NO_DISK", code::NO_DISK),
            ("AMBIGUOUS_DISK", code::AMBIGUOUS_DISK),
            ("DISK_TOO_SMALL", code::DISK_TOO_SMALL),
            ("DISK_IN_USE", code::DISK_IN_USE),
            ("NO_CLOSURE", code::NO_CLOSURE),
            ("NOT_A_SYSTEM", code::NOT_A_SYSTEM),
            ("BOOT_LOADER", code::BOOT_LOADER),
            ("NOT_BOOTABLE", code::NOT_BOOTABLE),
            ("BAD_PATH", code::BAD_PATH),
            ("NOT_MOUNTED", code::NOT_MOUNTED),
            ("USAGE", code::USAGE),
        ];
        assert_eq!(theirs, ours);
        let mount_point = format!("MNT=${{UNDERCROFT_MNT:-{}}}", crate::ask::MOUNT_POINT);
        assert!(library.lines().any(|line| line == mount_point));
    }

    #[test]
    fn an_exit_code_is_taken_for_what_it_means() {
        let of = |code| {
            refused(&Ended {
                code,
                stdout: String::new(),
                stderr_tail: "first\nlast words\n".to_owned(),
                command: "/undercroft/partition".to_owned(),
            })
        };
        for (code, kind) in [
            (code::NO_DISK, FailureKind::Refused),
            (code::AMBIGUOUS_DISK, FailureKind::Refused),
            (code::DISK_TOO_SMALL, FailureKind::Permanent),
            (code::DISK_IN_USE, FailureKind::Permanent),
            (code::NO_CLOSURE, FailureKind::PreconditionLost),
            (code::NOT_A_SYSTEM, FailureKind::Permanent),
            (code::BOOT_LOADER, FailureKind::Transient),
            (code::NOT_BOOTABLE, FailureKind::Transient),
            (code::BAD_PATH, FailureKind::Permanent),
            (code::NOT_MOUNTED, FailureKind::PreconditionLost),
            (code::USAGE, FailureKind::Permanent),
            (code::BUSY, FailureKind::Transient),
            (code::OTHER_BOOT, FailureKind::PreconditionLost),
            (code::NOT_FOUND, FailureKind::Permanent),
            (1, FailureKind::Transient),
        ] {
            let failure = of(code);
            assert_eq!(failure.kind, kind, "{code}");
            assert!(failure.message.ends_with(": last words"), "{failure:?}");
            assert_eq!(failure.command.unwrap().exit_code, Some(code));
        }
    }
}
