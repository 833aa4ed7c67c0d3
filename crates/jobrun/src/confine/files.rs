//! Landlock: which files are left, whatever else the sandbox shows.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use undercroft_sandbox::order::{
    BUILD, ETC, INPUTS, OUTPUT, PROGRAM, SCRATCH, SHARED_MEMORY, STORE, TEMPORARY,
};

use super::Room;

/// The newest version whose rights are named here. Older kernels hold what they know of it.
const NEWEST: ABI = ABI::V7;

/// What may be read of the machine: how many processors and how much memory there is. The folders of processes aren't
/// among it, as a mount's line there shows where on the owner's disk it lies.
const FACTS: [&str; 5] = [
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/sys/vm/overcommit_memory",
];
/// What programs read of themselves as they start: where their stack is.
const ITSELF: [&str; 2] = ["/proc/self/maps", "/proc/self/status"];
/// Devices that hold nothing of the machine.
const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

/// Leaves the job's own files, and nothing else; no TCP, no abstract socket and no signal beyond itself. The version that
/// holds; 0 where the kernel has none.
pub(crate) fn give_up(room: Room) -> Result<u32, String> {
    restrict(room).map_err(|error| format!("Landlock: {error}"))
}

fn restrict(room: Room) -> Result<u32, landlock::RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = AccessFs::ReadFile | AccessFs::Execute;
    let own = AccessFs::from_all(NEWEST)
        & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo | AccessFs::IoctlDev);
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let places = match room {
        Room::Job => vec![
            (INPUTS, read),
            (PROGRAM, run),
            (OUTPUT, own),
            (SCRATCH, own),
        ],
        // What it reads is mounted read only within the store.
        Room::Build => vec![
            (STORE, own),
            (BUILD, own),
            (TEMPORARY, own),
            (SHARED_MEMORY, own),
            (ETC, read),
        ],
    };
    for (place, access) in places {
        rules = allow(rules, place, access)?;
    }
    for file in FACTS.iter().chain(&ITSELF) {
        rules = allow(rules, file, AccessFs::ReadFile.into())?;
    }
    for file in DEVICES {
        rules = allow(rules, file, device)?;
    }
    let status = rules.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => effective_abi as u32,
        _ => 0,
    })
}

/// Allows something on a file, or below a folder. What isn't there needs no rule.
fn allow(
    rules: RulesetCreated,
    path: &str,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let Ok(fd) = PathFd::new(path) else {
        return Ok(rules);
    };
    let is_folder = std::fs::metadata(path).is_ok_and(|found| found.is_dir());
    let access = if is_folder {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    rules.add_rule(PathBeneath::new(fd, access))
}
