//! Outside of the sandbox: into the job's groups, and on to bubblewrap.

use std::{ffi::OsString, fs, os::unix::process::CommandExt as _, path::Path, process::Command};

use undercroft_sandbox::order::GROUP;

/// The kindest that a process can be to others.
const NICE: i32 = 19;
/// The first file descriptor beside standard input, output and error.
const FIRST_OTHER: i32 = 3;

/// Joins the groups, becomes nice, and becomes the command after `--`. It returns only to say why not.
pub(crate) fn enter(arguments: &[OsString]) -> Result<(), String> {
    let mut words = arguments.iter();
    let mut groups = Vec::new();
    loop {
        match words.next() {
            Some(word) if word == GROUP => {
                groups.push(words.next().ok_or("`--group` without a file")?);
            }
            Some(word) if word == "--" => break,
            Some(word) => return Err(format!("{} isn't known here", word.to_string_lossy())),
            None => return Err("no command after `--`".to_owned()),
        }
    }
    let program = words.next().ok_or("no command after `--`")?;
    for file in groups {
        // 0 is whoever writes (cgroups(7)).
        fs::write(file, "0")
            .map_err(|error| format!("can't join {}: {error}", Path::new(file).display()))?;
    }
    // Manners, not bounds.
    let _ = rustix::process::nice(NICE);
    // Whatever the daemon was started with, or opened for itself, closes here.
    close_fds::set_fds_cloexec(FIRST_OTHER, &[]);
    let error = Command::new(program).args(words).exec();
    Err(format!(
        "can't start {}: {error}",
        Path::new(program).display()
    ))
}
