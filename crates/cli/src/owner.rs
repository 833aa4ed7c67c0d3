//! As whom a command works: as the owner of the fleet's folder, whoever has started it.
//!
//! All that is known of a fleet lies in its folder, and belongs to the folder's owner. So root, as
//! `sudo` makes one, becomes that owner before anything is read or written, for good, and keeps no
//! more of root's rights than what the command is there for: the ports of DHCP and TFTP, or making
//! the rack's namespaces. No program that is started from here inherits them.
//!
//! The environment says who somebody is as well (`HOME`, `USER`), and a process can't change its
//! own without unsafe code: the command is begun anew, as the owner, and the rights that it keeps
//! go through the ambient set of capabilities (capabilities(7)), which it empties at once.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    process::{Gid, Uid},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        configure_capability_in_ambient_set, set_capabilities, set_keep_capabilities,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use crate::{
    access,
    error::CliError,
    people::Person,
    project::STATE_FOLDER,
    style::{WARN, paint},
};

/// What a command needs that an ordinary user may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// The ports of DHCP and TFTP, packets to machines that have no address yet, and a buffer for
    /// the packets of a thousand machines.
    Ports,
    /// Namespaces, where the system doesn't let users make them.
    Namespaces,
}

impl Need {
    fn rights(self) -> CapabilitySet {
        match self {
            Self::Nothing => CapabilitySet::empty(),
            Self::Ports => {
                CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN
            }
            Self::Namespaces => CapabilitySet::SYS_ADMIN,
        }
    }
}

/// What the command that runs needs, and whether it uses the state folder.
static NEED: OnceLock<(Need, bool)> = OnceLock::new();
/// The variables that say where a user's own files are; another user's are nobody's business.
const OF_A_USER: [&str; 8] = [
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "MAIL",
    "TMPDIR",
];
/// The owner that files have in a namespace that doesn't know their own
/// (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;

/// Says what the command needs, and lets go of all other rights, whoever gave them: `sudo` by way
/// of [`settle`], a file's capabilities, or a service's. To be called before there are threads.
///
/// Root itself is left as it is: it may work on a folder of its own.
pub(crate) fn begin(need: Need, uses_state: bool) {
    let _ = NEED.set((need, uses_state));
    if rustix::process::geteuid().is_root() {
        return;
    }
    // Nobody who is no root, and has no rights, can fail to let go of them.
    let _ = clear_ambient_capability_set();
    if let Ok(has) = capabilities(None) {
        let rights = has.permitted & need.rights();
        let _ = set_capabilities(
            None,
            CapabilitySets {
                effective: rights,
                permitted: rights,
                inheritable: CapabilitySet::empty(),
            },
        );
    }
}

fn need() -> Need {
    NEED.get().map_or(Need::Nothing, |(need, _)| *need)
}

fn uses_state() -> bool {
    NEED.get().is_some_and(|(_, uses)| *uses)
}

/// Goes on as the owner of a folder, where this is root and the folder is somebody else's, and
/// refuses a state folder that isn't of the folder's owner. Nothing was read or written before.
pub(crate) fn settle(dir: &Path) -> Result<(), CliError> {
    let metadata = fs::metadata(dir).map_err(|e| CliError::file("use", dir, &e))?;
    let me = rustix::process::geteuid();
    if me.is_root() && metadata.uid() != 0 {
        return become_owner(dir, metadata.uid(), metadata.gid());
    }
    let sudo = sudo_uid().filter(|uid| *uid != 0);
    if let (true, Some(user), true) = (me.is_root(), sudo, need() != Need::Nothing) {
        warn(&format!(
            "{} belongs to root, and so will all that is kept of the fleet; for {} to see it without sudo: sudo chown -R {} {}",
            shown(dir),
            Person::of(user).words(),
            Person::of(user).for_chown(user),
            shown(dir),
        ));
    }
    state_of_another(dir, &metadata)
}

/// The same for a folder that is to be made: it will belong to whom the folder above it belongs
/// to; in one that is everybody's, such as /tmp, to who called `sudo`.
pub(crate) fn settle_for_new(dir: &Path) -> Result<(), CliError> {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let Some((above, metadata)) = absolute
        .ancestors()
        .find_map(|above| Some((above, fs::metadata(above).ok()?)))
    else {
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let everybodys = metadata.permissions().mode() & 0o1002 == 0o1002;
    let owner = match sudo_uid() {
        Some(user) if everybodys => user,
        _ => metadata.uid(),
    };
    if owner == 0 {
        return Ok(());
    }
    become_owner(above, owner, metadata.gid())
}

/// The user who called `sudo`, where one did.
fn sudo_uid() -> Option<u32> {
    std::env::var("SUDO_UID").ok()?.parse().ok()
}

/// Becomes another user for good, and begins the command anew. It returns only where that can't be,
/// or where the owner is nobody here.
fn become_owner(dir: &Path, uid: u32, gid: u32) -> Result<(), CliError> {
    // In a namespace, such as a container's or the rack's own, files of users that it doesn't know
    // seem to be nobody's; nobody can become who that is.
    if uid == NOBODY && in_a_user_namespace() {
        return Ok(());
    }
    let owner = Person::of(uid);
    if sudo_uid() != Some(uid) {
        warn(&format!(
            "{} belongs to {}: working as that user, as all that is kept of the fleet is the owner's",
            shown(dir),
            owner.words()
        ));
    }
    let refused = |what: &str, errno: rustix::io::Errno| {
        CliError::failed(format!(
            "{} belongs to {}, and root can't become that user here: {what}",
            shown(dir),
            owner.words()
        ))
        .because(&std::io::Error::from(errno))
        .hint(format!(
            "Run the command as the owner, or give the folder to root: chown -R root: {}.",
            shown(dir)
        ))
    };
    let gid = owner.gid.unwrap_or(gid);
    let (uid, gid_raw) = (Uid::from_raw(uid), gid);
    let gid = Gid::from_raw(gid);
    let groups: Vec<Gid> = owner
        .groups(gid_raw)
        .into_iter()
        .map(Gid::from_raw)
        .collect();
    let program = std::env::current_exe()
        .map_err(|e| CliError::failed("can't find the running program").because(&e))?;
    let has = capabilities(None).map_err(|e| refused("its rights can't be read", e))?;
    let rights = has.permitted & need().rights();
    set_thread_groups(&groups).map_err(|e| refused("the groups can't be set", e))?;
    set_thread_res_gid(gid, gid, gid).map_err(|e| refused("the group can't be set", e))?;
    set_keep_capabilities(true).map_err(|e| refused("no rights can be kept", e))?;
    set_thread_res_uid(uid, uid, uid).map_err(|e| refused("the user can't be set", e))?;
    let sets = CapabilitySets {
        effective: rights,
        permitted: rights,
        inheritable: rights,
    };
    set_capabilities(None, sets).map_err(|e| refused("its rights can't be given up", e))?;
    for right in rights.iter() {
        configure_capability_in_ambient_set(right, true)
            .map_err(|e| refused("its rights can't be kept", e))?;
    }
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1));
    for name in OF_A_USER {
        command.env_remove(name);
    }
    match &owner.home {
        Some(home) => command.env("HOME", home),
        None => command.env_remove("HOME"),
    };
    for name in ["USER", "LOGNAME"] {
        command.env(name, owner.for_environment());
    }
    let error = command.exec();
    Err(CliError::failed(format!(
        "{} can't be run by {}, whose folder {} is",
        program.display(),
        owner.words(),
        shown(dir)
    ))
    .because(&error)
    .hint("Put the program where that user can run it, such as /usr/local/bin."))
}

/// Whether this process is in another namespace of users than the machine's first.
fn in_a_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let words: Vec<&str> = map.split_whitespace().collect();
    words != ["0", "0", "4294967295"]
}

/// Refuses a state folder that is another user's, where this is the folder's owner (an earlier
/// `sudo` has left it), and one that is closed to this user: all in it would seem to be missing.
fn state_of_another(dir: &Path, metadata: &fs::Metadata) -> Result<(), CliError> {
    let state = dir.join(STATE_FOLDER);
    let Ok(found) = fs::symlink_metadata(&state) else {
        return Ok(());
    };
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() == me && found.uid() != me {
        return Err(CliError::input(format!(
            "{} belongs to {}, and the folder that it is in to {}",
            shown(&state),
            Person::of(found.uid()).words(),
            Person::of(me).words()
        ))
        .hint(access::give_back(dir)));
    }
    let enter = Access::READ_OK | Access::EXEC_OK;
    if uses_state()
        && found.is_dir()
        && accessat(CWD, &state, enter, AtFlags::EACCESS).is_err()
        && let Some(closed) = access::closed(&state)
    {
        return Err(CliError::failed(closed.why).hint(closed.hint));
    }
    Ok(())
}

/// Says something before there is a way to the user.
fn warn(text: &str) {
    anstream::eprintln!("{} {text}", paint(WARN, "warning:"));
}

/// A folder as a sentence and a command can name it.
fn shown(dir: &Path) -> String {
    let absolute: PathBuf = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    crate::text::plain(
        &absolute
            .components()
            .collect::<PathBuf>()
            .display()
            .to_string(),
    )
}
