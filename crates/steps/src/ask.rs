//! What is asked of a machine, and how it answers.

use undercroft_model::{
    FailedCommand, Failure, FailureKind, InstallerReport, MachineUuid, NoAnswer, PlannedDisk,
    inventory::Layout,
};

/// The mount point of the new system on an installer.
pub const MOUNT_POINT: &str = "/mnt";

/// A partition table, and the GUID that it is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The device, as the machine names it.
    pub device: String,
    /// The GUID.
    pub guid: MachineUuid,
}

/// One thing that is asked of a machine's installer, or done for it here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// What it is and has.
    Describe,
    /// Lay out and mount one disk in a layout of Undercroft's own, or only see whether it is, and mount it then.
    LayOut {
        /// The disk.
        disk: PlannedDisk,
        /// The layout.
        layout: Layout,
        /// Whether a disk that isn't laid out by this plan stays as it is.
        look_only: bool,
    },
    /// The GUIDs of the tables on these devices, a line each, and in the last line whether the new system is `mounted`
    /// or not (`unmounted`).
    Tables {
        /// The devices.
        devices: Vec<String>,
    },
    /// Where names of devices lead, a line each. A name that leads nowhere stays itself.
    Resolve {
        /// The names.
        names: Vec<String>,
    },
    /// Whether another disk has a ZFS pool of a name that a disk to be wiped has traces of.
    OtherPools {
        /// The devices that are to be wiped.
        devices: Vec<String>,
    },
    /// Give it the keys with which its disks are encrypted, where they are.
    GiveDiskKeys,
    /// Take those keys away again.
    TakeDiskKeys,
    /// Copy a script with all that it refers to into the installer's own store.
    BringScript {
        /// The script's store path.
        path: String,
    },
    /// Run a script that was brought.
    RunScript {
        /// The script's store path.
        path: String,
    },
    /// Give tables their GUIDs, one after the other.
    NameTables {
        /// The tables.
        tables: Vec<Table>,
    },
    /// Whether the new system is mounted.
    Mounted,
    /// Copy a system with all that it refers to onto the mounted disk.
    Copy {
        /// The system.
        toplevel: String,
        /// Its size in bytes, where known.
        closure_bytes: Option<u64>,
    },
    /// Take away the store on the mounted disk, which is damaged.
    ForgetStore,
    /// How much room is left where a copy goes, as `df -Pk` prints it.
    FreeRoom {
        /// The mount point.
        at: &'static str,
    },
    /// Whether a system is on the disk, whole, and whether it is installed.
    IsInstalled {
        /// The system.
        toplevel: String,
    },
    /// Write everything out to the disks.
    Sync,
    /// Whether the machine's own host key is in the new system.
    HasHostKey,
    /// Put the machine's own host key into the new system.
    GiveHostKey,
    /// Put the files into the new system that the command line names.
    GiveExtraFiles,
    /// Set the profile, activate it, write the boot loader, and read all of it back.
    Install {
        /// The system.
        toplevel: String,
    },
    /// Let the boot servers send the machine to its own disk from now on, whatever it asks.
    OfferDisk,
    /// Write everything out and let go of the disks.
    Finish,
    /// Reboot.
    Reboot,
    /// Whether it is there at all.
    Greet,
}

impl Ask {
    /// The program of the installer's that does it, where it is one program with nothing secret to be told.
    pub fn words(&self) -> Option<Vec<String>> {
        let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
        match self {
            Self::Describe => words(&["/undercroft/inspect"]),
            Self::LayOut {
                disk,
                layout,
                look_only,
            } => Some(lay_out(disk, *layout, *look_only)),
            Self::Tables { devices } => Some(with(shell(TABLES), devices)),
            Self::Resolve { names } => Some(with(shell(RESOLVE), names)),
            Self::OtherPools { devices } => {
                Some(with(shell(include_str!("other-pools.sh")), devices))
            }
            Self::RunScript { path } => words(&[path]),
            Self::NameTables { tables } => {
                let mut all = shell(NAME_TABLES);
                for table in tables {
                    all.extend([table.device.clone(), table.guid.to_string()]);
                }
                Some(all)
            }
            Self::Mounted => Some(shell(MOUNTED)),
            Self::ForgetStore => words(&["rm", "-rf", "/mnt/nix/store", "/mnt/nix/var/nix/db"]),
            Self::FreeRoom { at } => words(&["df", "-Pk", at]),
            Self::IsInstalled { toplevel } => words(&["/undercroft/install", toplevel, "--probe"]),
            Self::Sync => words(&["sync"]),
            Self::Install { toplevel } => words(&["/undercroft/install", toplevel]),
            Self::Finish => words(&["/undercroft/finish"]),
            Self::Reboot => words(&["/undercroft/reboot"]),
            Self::Greet => words(&["true"]),
            Self::GiveDiskKeys
            | Self::TakeDiskKeys
            | Self::BringScript { .. }
            | Self::Copy { .. }
            | Self::HasHostKey
            | Self::GiveHostKey
            | Self::GiveExtraFiles
            | Self::OfferDisk => None,
        }
    }

    /// Whether it changes what the machine keeps, so that it isn't known what has become of it when the connection
    /// breaks.
    pub fn changes(&self) -> bool {
        match self {
            Self::LayOut { look_only, .. } => !look_only,
            Self::RunScript { .. }
            | Self::NameTables { .. }
            | Self::Copy { .. }
            | Self::ForgetStore
            | Self::GiveHostKey
            | Self::GiveExtraFiles
            | Self::Install { .. }
            | Self::Finish
            | Self::Reboot => true,
            Self::Describe
            | Self::Tables { .. }
            | Self::Resolve { .. }
            | Self::OtherPools { .. }
            | Self::GiveDiskKeys
            | Self::TakeDiskKeys
            | Self::BringScript { .. }
            | Self::Mounted
            | Self::FreeRoom { .. }
            | Self::IsInstalled { .. }
            | Self::Sync
            | Self::HasHostKey
            | Self::OfferDisk
            | Self::Greet => false,
        }
    }
}

fn with(mut words: Vec<String>, more: &[String]) -> Vec<String> {
    words.extend(more.iter().cloned());
    words
}

/// A piece of shell; what follows are its arguments.
fn shell(text: &str) -> Vec<String> {
    ["sh", "-c", text, "undercroft"].map(str::to_owned).to_vec()
}

/// All that the plan knows of the disk is handed over, so that the machine compares the same.
fn lay_out(disk: &PlannedDisk, layout: Layout, look_only: bool) -> Vec<String> {
    let mut words = vec!["/undercroft/partition".to_owned()];
    for (flag, value) in [
        ("--serial", &disk.identity.serial),
        ("--wwn", &disk.identity.wwn),
    ] {
        if let Some(value) = value {
            words.extend([flag.to_owned(), value.clone()]);
        }
    }
    let guid = disk.table_guid.to_string();
    words.extend(["--layout", layout.as_str(), "--disk-guid", &guid].map(str::to_owned));
    if look_only {
        words.push("--probe".to_owned());
    }
    words
}

/// A file system without a table has no GUID either, and blkid then ends well and prints nothing.
const TABLES: &str = "for device; do
    guid=$(blkid -p -s PTUUID -o value \"$device\" 2>/dev/null)
    echo \"${guid:-none}\"
done
while read -r _ at _; do [ \"$at\" = /mnt ] && echo mounted && exit 0; done </proc/mounts
echo unmounted";
/// Its arguments: device, GUID, device, GUID, …
const NAME_TABLES: &str = "while [ $# -gt 1 ]; do
    sgdisk --disk-guid=\"$2\" \"$1\" >/dev/null || exit 1
    shift 2
done
sync";
const RESOLVE: &str = "for name; do readlink -f -- \"$name\" || printf '%s\\n' \"$name\"; done";
/// Nix would make the store's folder in memory were the disk not mounted.
const MOUNTED: &str =
    "while read -r _ at _; do [ \"$at\" = /mnt ] && exit 0; done </proc/mounts; exit 41";

/// How a program on a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// The end of its standard error.
    pub stderr_tail: String,
    /// The program as a person would type it.
    pub command: String,
}

impl Ended {
    /// What a failure says of it.
    pub fn failed_command(&self) -> FailedCommand {
        FailedCommand {
            command: self.command.clone(),
            exit_code: Some(self.code),
            output_tail: self.stderr_tail.clone(),
        }
    }
}

/// A machine that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// Why.
    pub why: NoAnswer,
    /// The fingerprint that was shown in place of the pinned one, where there was one.
    pub shown: Option<String>,
    /// What is said of it, with its kind as [`NoAnswer::kind`] has it.
    pub failure: Failure,
}

impl Unanswered {
    /// One of that kind, with what is said of it.
    pub fn new(why: NoAnswer, message: impl Into<String>) -> Self {
        Self {
            why,
            shown: None,
            failure: Failure::new(why.kind(), message),
        }
    }

    /// The same, with the fingerprint that was shown.
    #[must_use]
    pub fn showing(mut self, fingerprint: Option<String>) -> Self {
        self.shown = fingerprint;
        self
    }

    /// What it means of an installer. Its key lives as long as its boot, so that another key tells of another boot; a
    /// known machine that comes back as a stranger needs a new approval in any case.
    pub fn of_installer(self) -> Failure {
        let kind = match self.why {
            NoAnswer::OtherKey | NoAnswer::Unreachable => FailureKind::PreconditionLost,
            // The installer fetches the keys that it accepts when it boots, and again later.
            NoAnswer::AuthRefused => FailureKind::Transient,
            NoAnswer::Interrupted | NoAnswer::NotInTime { .. } | NoAnswer::Local => {
                self.failure.kind
            }
        };
        Failure {
            kind,
            ..self.failure
        }
    }

    /// What it means of a look, which changes nothing, so that none of its failures is ambiguous.
    pub fn of_look(self) -> Failure {
        let kind = match self.failure.kind {
            FailureKind::Ambiguous => FailureKind::Transient,
            kind => kind,
        };
        Failure {
            kind,
            ..self.failure
        }
    }
}

/// Why a copy didn't come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFailed {
    /// The program, and what it printed of errors.
    pub command: FailedCommand,
    /// Whether it was called off because it took too long.
    pub timed_out: bool,
    /// What was wrong with the connection, where that was it.
    pub connection: Option<Unanswered>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A program on the machine has ended.
    Ended(Ended),
    /// What the machine says that it is and has.
    Described(Box<InstallerReport>),
    /// What was to be done here is done, or a copy came to its end.
    Done,
    /// A copy didn't come to its end.
    CopyFailed(Box<CopyFailed>),
    /// The machine gave no answer.
    Nothing(Box<Unanswered>),
}

impl Answer {
    /// A program that ended with that code, and printed nothing.
    pub fn code(code: i32) -> Self {
        Self::Ended(Ended {
            code,
            stdout: String::new(),
            stderr_tail: String::new(),
            command: String::new(),
        })
    }
}
