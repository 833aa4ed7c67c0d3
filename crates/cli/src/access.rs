//! Why a file can't be used, said as what it is: whose it is, who asks, and what to do.

use std::{
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};

use crate::people::Person;

/// The most names that a command to mend a folder lists; more are the whole folder.
const NAMES_MAX: usize = 6;

/// Why a file, or a folder above it, is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// What is closed to whom, in a clause.
    pub(crate) why: String,
    /// What to do, in a sentence.
    pub(crate) hint: String,
}

/// What closes a path to this user, to be read or to be written; `None` where nothing seems to.
pub(crate) fn closed(path: &Path) -> Option<Closed> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let me = Person::me();
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    let there: Vec<(&Path, Metadata)> = parts
        .into_iter()
        .map_while(|part| Some((part, fs::metadata(part).ok()?)))
        .collect();
    let all = Access::EXEC_OK | Access::READ_OK | Access::WRITE_OK;
    let last = there.len().saturating_sub(1);
    let ways = there.iter().enumerate().map(|(i, (part, metadata))| {
        let wanted = match (metadata.is_dir(), i == last) {
            (true, false) => Access::EXEC_OK,
            (true, true) => all,
            (false, _) => Access::READ_OK | Access::WRITE_OK,
        };
        (part, metadata, wanted)
    });
    // Files are written beside themselves first, so that their folder counts too.
    let folder = there.iter().rev().find(|(_, metadata)| metadata.is_dir());
    let folder = folder.map(|(part, metadata)| (part, metadata, all));
    for (part, metadata, wanted) in ways.chain(folder) {
        match accessat(CWD, *part, wanted, AtFlags::EACCESS) {
            Ok(()) => {}
            Err(rustix::io::Errno::ROFS) => return Some(read_only(part)),
            Err(_) => return Some(refused(part, metadata, &me)),
        }
    }
    None
}

fn read_only(path: &Path) -> Closed {
    Closed {
        why: format!(
            "{} is on a file system that is mounted read-only",
            shown(path)
        ),
        hint: "Mount it to be written, or work in a copy of the folder.".to_owned(),
    }
}

fn refused(path: &Path, metadata: &Metadata, me: &Person) -> Closed {
    if statvfs(path).is_ok_and(|at| at.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return read_only(path);
    }
    let owner = Person::of(metadata.uid());
    let mode = metadata.permissions().mode() & 0o7777;
    let why = format!(
        "{} belongs to {} with mode {mode:04o}, and you are {}",
        shown(path),
        owner.words(),
        me.words()
    );
    let hint = if owner.uid == me.uid {
        format!("It is yours, and closed: chmod u+rwX {}.", shown(path))
    } else if let Some(folder) = own_folder_above(path, me.uid) {
        give_back(&folder)
    } else {
        format!(
            "Run the command as its owner, `sudo -u {} …`, or work in a copy of your own.",
            owner.for_sudo()
        )
    };
    Closed { why, hint }
}

/// The nearest folder above a path that belongs to a user.
fn own_folder_above(path: &Path, uid: u32) -> Option<PathBuf> {
    path.ancestors()
        .skip(1)
        .find(|above| fs::metadata(above).is_ok_and(|m| m.uid() == uid))
        .map(Path::to_owned)
}

/// The one command that gives a folder's owner what is another's in it, in a sentence.
pub(crate) fn give_back(folder: &Path) -> String {
    let (owner, group) = fs::metadata(folder).map_or((0, 0), |m| (m.uid(), m.gid()));
    let mut names: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|m| m.uid() != owner))
        .collect();
    names.sort();
    if names.is_empty() || names.len() > NAMES_MAX {
        names = vec![folder.to_owned()];
    }
    let names: Vec<String> = names.iter().map(|name| shown(name)).collect();
    format!(
        "An earlier command was run as another user. Give it to the folder's owner: sudo chown -R {} {}",
        Person::of(owner).for_chown(group),
        names.join(" ")
    )
}

/// A path as a shell takes it.
fn shown(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = absolute.components().collect::<PathBuf>();
    let text = crate::text::plain(&text.display().to_string());
    if text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c))
    {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
