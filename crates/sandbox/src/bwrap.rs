//! The command line that a sandbox is, and what bubblewrap says where it can't be one.

use std::{ffi::OsString, path::Path};

use crate::{
    BuilderSpec, DiskBound, InputFile, SandboxError, Tools, builder,
    order::{
        BUILD, ENTER, ETC, GROUP, INPUTS, OBEY, OUTPUT, OWN, PROGRAM, RESULT, SCRATCH,
        SHARED_MEMORY, STORE, TEMPORARY,
    },
};

/// Devices that programs expect, and that hold nothing of the machine.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Whom a job takes itself for: nobody.
const NOBODY: &str = "65534";

/// What a sandbox shows of this machine.
pub(crate) struct View<'a> {
    /// The program, where there is one.
    pub(crate) program: Option<&'a Path>,
    /// The inputs.
    pub(crate) inputs: &'a [InputFile],
    /// The job's folders, and how their size is held; `None` for a sandbox without files of its own.
    pub(crate) files: Option<(&'a Path, DiskBound)>,
    /// What is built, where it is a build; its folders are in [`Self::files`].
    pub(crate) builder: Option<&'a BuilderSpec>,
    /// The `cgroup.procs` of each group that it joins.
    pub(crate) groups: Vec<&'a Path>,
}

/// The words after `undercroft-job`, which joins the groups and becomes bubblewrap.
pub(crate) fn words(tools: &Tools, view: &View<'_>) -> Vec<OsString> {
    let mut words = Words::default();
    words.add([ENTER]);
    for group in &view.groups {
        words.add([GROUP]).path(&group.join("cgroup.procs"));
    }
    words.add(["--"]);
    if let Some(ionice) = &tools.ionice {
        words.path(ionice).add(["-c", "3"]);
    }
    words.path(&tools.bwrap);
    namespaces(&mut words, view.builder.is_some());
    own(&mut words, tools);
    devices(&mut words);
    words.add(["--proc", "/proc"]);
    if let Some(program) = view.program {
        words.add(["--ro-bind"]).path(program).add([PROGRAM]);
    }
    match (view.builder, view.files) {
        (Some(builder), Some((folder, _))) => build(&mut words, builder, folder),
        _ => {
            words.add(["--dir", INPUTS]);
            for input in view.inputs {
                words.add(["--ro-bind"]).path(&input.file);
                words.add([format!("{INPUTS}/{}", input.name)]);
            }
            files(&mut words, view);
        }
    }
    // What bubblewrap has built so far is in memory, and would be a place to fill.
    words.add(["--remount-ro", "/"]);
    words.add(["--"]);
    if tools.needs.loader.is_some() {
        words.add([format!("{OWN}/lib/loader"), "--library-path".to_owned()]);
        words.add([format!("{OWN}/lib")]);
    }
    words.add([format!("{OWN}/job"), OBEY.to_owned()]);
    words.0
}

fn namespaces(words: &mut Words, is_build: bool) {
    words.add([
        "--unshare-user",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
    ]);
    words.add(["--cap-drop", "ALL"]);
    if is_build {
        words.add(["--uid", builder::USER, "--gid", builder::GROUP]);
        words.add(["--hostname", "localhost", "--chdir", BUILD]);
        return;
    }
    words.add(["--uid", NOBODY, "--gid", NOBODY]);
    words.add(["--hostname", "job", "--chdir", SCRATCH]);
    words.add(["--setenv", "HOME", SCRATCH, "--setenv", "TMPDIR", SCRATCH]);
}

/// What a build of Nix has: the store with its inputs, where it leaves its outputs, too.
fn build(words: &mut Words, builder: &BuilderSpec, folder: &Path) {
    // Where inputs are mounted, empty files and folders appear among the outputs; only those that were asked for are taken.
    words.add(["--bind"]).path(&folder.join("out")).add([STORE]);
    for path in &builder.paths {
        let at = format!("{STORE}/{}", path.name);
        // A store path can be a link itself, which can't be mounted.
        match std::fs::read_link(&path.tree) {
            Ok(target) => words.add(["--symlink"]).path(&target).add([at]),
            Err(_) => words.add(["--ro-bind"]).path(&path.tree).add([at]),
        };
    }
    for (from, to) in [("scratch/build", BUILD), ("scratch/tmp", TEMPORARY)] {
        words.add(["--bind"]).path(&folder.join(from)).add([to]);
    }
    words
        .add(["--ro-bind"])
        .path(&folder.join("etc"))
        .add([ETC]);
    // It counts as the job's memory.
    words.add(["--tmpfs", SHARED_MEMORY]);
    if let Some(shell) = &builder.shell {
        words.add(["--symlink", shell, "/bin/sh"]);
    }
}

fn own(words: &mut Words, tools: &Tools) {
    words.add(["--ro-bind"]).path(&tools.job);
    words.add([format!("{OWN}/job")]);
    if let Some(loader) = &tools.needs.loader {
        words.add(["--ro-bind", loader]);
        words.add([format!("{OWN}/lib/loader")]);
    }
    for library in &tools.needs.libraries {
        let name = library.rsplit('/').next().unwrap_or(library);
        words.add(["--ro-bind", library]);
        words.add([format!("{OWN}/lib/{name}")]);
    }
}

fn devices(words: &mut Words) {
    for name in DEVICES {
        let file = format!("/dev/{name}");
        words.add(["--dev-bind", &file, &file]);
    }
    words.add(["--symlink", "/proc/self/fd", "/dev/fd"]);
    for (number, name) in ["stdin", "stdout", "stderr"].into_iter().enumerate() {
        words.add(["--symlink".to_owned(), format!("/proc/self/fd/{number}")]);
        words.add([format!("/dev/{name}")]);
    }
}

fn files(words: &mut Words, view: &View<'_>) {
    match view.files {
        None => {
            words.add(["--dir", OUTPUT, "--size", "1048576", "--tmpfs", SCRATCH]);
        }
        Some((folder, DiskBound::Watched { .. })) => {
            words.add(["--bind"]).path(&folder.join("out"));
            words.add([OUTPUT, "--bind"]).path(&folder.join("scratch"));
            words.add([SCRATCH]);
        }
        Some((folder, DiskBound::InMemory { bytes })) => {
            let file = Path::new(OUTPUT).join(RESULT);
            words.add(["--bind"]).path(&folder.join("out").join(RESULT));
            words
                .path(&file)
                .add(["--size".to_owned(), bytes.to_string()]);
            words.add(["--tmpfs", SCRATCH]);
        }
    }
    words.add(["--symlink", SCRATCH, "/tmp"]);
}

#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn add<W: Into<OsString>>(&mut self, words: impl IntoIterator<Item = W>) -> &mut Self {
        self.0.extend(words.into_iter().map(Into::into));
        self
    }

    fn path(&mut self, path: &Path) -> &mut Self {
        self.add([path])
    }
}

/// What bubblewrap's own words mean, and what to try.
pub(crate) fn in_words(said: &str) -> SandboxError {
    let said = said.trim();
    let denied = "Permission denied";
    // As Ubuntu 24.04 and later say it, where AppArmor has no profile for bubblewrap.
    let by_apparmor = (said.contains("setting up uid map") && said.contains(denied))
        || (said.contains("loopback: Failed RTM_NEWADDR") && said.contains("not permitted"));
    let hint = if by_apparmor {
        Some(
            "AppArmor denies user namespaces to programs without a profile (Ubuntu 24.04 and later): give bubblewrap one, as /etc/apparmor.d/bwrap with `userns,`",
        )
    } else if said.contains("No permissions to create") || said.contains("Creating new namespace") {
        Some(
            "user namespaces are switched off: `sysctl kernel.unprivileged_userns_clone` and `user.max_user_namespaces` say how",
        )
    } else if said.contains("Unknown option") {
        Some("bubblewrap 0.8 and later know what is needed")
    } else {
        None
    };
    let why = match said {
        "" => "it ended before it began, without a word".to_owned(),
        said => said.to_owned(),
    };
    SandboxError::Refused {
        why,
        hint: hint.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::advice::Advice as _;

    #[test]
    fn what_denies_namespaces_is_named() {
        for (said, hint) in [
            ("bwrap: setting up uid map: Permission denied\n", "AppArmor"),
            (
                "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
                "AppArmor",
            ),
            (
                "bwrap: No permissions to create a new namespace, likely because the kernel does not allow",
                "max_user_namespaces",
            ),
            ("bwrap: Unknown option --disable-userns", "0.8"),
        ] {
            let error = in_words(said);
            assert!(error.hint().unwrap().contains(hint), "{said}");
            assert!(error.to_string().contains(said.trim()));
        }
        assert!(in_words(" ").to_string().contains("without a word"));
    }
}
