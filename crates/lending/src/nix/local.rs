//! A build on this machine, in a sandbox like Nix' own: its inputs, its outputs, and little else.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::{place, request::NixRequest, told::LentBuildError};

/// Whom a builder takes itself for, as in Nix' own sandbox: its user and its group.
const USER: &str = "1000";
/// See [`USER`].
const GROUP: &str = "100";
/// Inputs that bubblewrap mounts at most: it takes 9,000 words, and each mount is three.
const MOUNTS_MAX: usize = 2_500;
/// What is shown to builds that may use the network, as Nix does.
const OF_NETWORK: [&str; 3] = ["/etc/resolv.conf", "/etc/services", "/etc/ssl"];

/// Builds it, and says with which exit code the builder ended.
pub(super) async fn build(
    request: &NixRequest,
    bwrap: Option<&Path>,
    shell: Option<&str>,
) -> Result<i32, LentBuildError> {
    let made = request.top_tmp_dir.join("store");
    let is_narrow = request.input_paths.len() <= MOUNTS_MAX;
    let sandbox = |why: String| LentBuildError::Sandbox { why };
    let etc = etc(request).map_err(|error| sandbox(error.to_string()))?;
    fs::create_dir(&made).map_err(|error| sandbox(format!("{}: {error}", made.display())))?;
    let store = match is_narrow {
        true => made.as_path(),
        false => request.real_store_dir.as_path(),
    };
    let words = words(request, store, &etc, shell, is_narrow);
    let program = bwrap.unwrap_or(Path::new("bwrap"));
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        // That bubblewrap is found; the build gets none of it.
        command.env("PATH", path);
    }
    undercroft_process::trace::started(command.as_std());
    let status = command.status().await;
    let status = status.map_err(|error| sandbox(format!("{}: {error}", program.display())))?;
    let signal = || status.signal().map(|signal| 128 + signal);
    let code = status.code().or_else(signal).unwrap_or(1);
    if code == 0 && is_narrow {
        let outputs = request.output_names();
        let spare = request.top_tmp_dir.join("moved.nar");
        place::move_from(&made, &outputs, &request.real_store_dir, &spare)
            .map_err(|why| LentBuildError::Outputs { why })?;
    }
    Ok(code)
}

/// The files that programs look themselves up in.
fn etc(request: &NixRequest) -> std::io::Result<PathBuf> {
    let etc = request.top_tmp_dir.join("etc");
    let home = &request.tmp_dir_in_sandbox;
    fs::create_dir(&etc)?;
    for (name, text) in [
        (
            "passwd",
            format!(
                "root:x:0:0:Nix build user:{home}:/noshell\nnixbld:x:{USER}:{GROUP}:Nix build user:{home}:/noshell\nnobody:x:65534:65534:Nobody:/:/noshell\n"
            ),
        ),
        (
            "group",
            format!("root:x:0:\nnixbld:!:{GROUP}:\nnogroup:x:65534:\n"),
        ),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
        (
            "nsswitch.conf",
            "hosts: files dns\nservices: files\n".to_owned(),
        ),
    ] {
        fs::write(etc.join(name), text)?;
    }
    Ok(etc)
}

fn words(
    request: &NixRequest,
    store: &Path,
    etc: &Path,
    shell: Option<&str>,
    is_narrow: bool,
) -> Vec<OsString> {
    let mut words = namespaces(request, etc);
    let mut add = |some: &[&dyn AsRef<std::ffi::OsStr>]| {
        words.extend(some.iter().map(|word| word.as_ref().to_owned()));
    };
    add(&[&"--bind", &store, &request.store_dir]);
    if is_narrow {
        for path in &request.input_paths {
            let real = request.real_store_dir.join(request.name(path));
            // A store path can be a link itself, which can't be mounted.
            match fs::read_link(&real) {
                Ok(target) => add(&[&"--symlink", &target, &path]),
                Err(_) => add(&[&"--ro-bind", &real, &path]),
            }
        }
    }
    add(&[&"--bind", &request.tmp_dir, &request.tmp_dir_in_sandbox]);
    add(&[&"--chdir", &request.tmp_dir_in_sandbox]);
    if let Some(shell) = shell {
        add(&[&"--ro-bind-try", &shell, &"/bin/sh"]);
    }
    add(&[&"--clearenv"]);
    for (name, value) in &request.env {
        add(&[&"--setenv", name, value]);
    }
    // Read only, so that nothing is left but what was meant.
    add(&[&"--remount-ro", &"/", &"--", &request.builder]);
    for word in &request.args {
        add(&[word]);
    }
    words
}

/// What of the machine is there beside the store.
fn namespaces(request: &NixRequest, etc: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |some: &[&dyn AsRef<std::ffi::OsStr>]| {
        words.extend(some.iter().map(|word| word.as_ref().to_owned()));
    };
    add(&[&"--unshare-all", &"--die-with-parent", &"--new-session"]);
    add(&[
        &"--uid",
        &USER,
        &"--gid",
        &GROUP,
        &"--hostname",
        &"localhost",
    ]);
    if request.is_fixed() {
        add(&[&"--share-net"]);
        for file in OF_NETWORK {
            add(&[&"--ro-bind-try", &file, &file]);
        }
    }
    add(&[
        &"--dev",
        &"/dev",
        &"--proc",
        &"/proc",
        &"--tmpfs",
        &"/dev/shm",
        &"--tmpfs",
        &"/tmp",
    ]);
    if request
        .features()
        .split_whitespace()
        .any(|one| one == "kvm")
    {
        add(&[&"--dev-bind-try", &"/dev/kvm", &"/dev/kvm"]);
    }
    for name in ["passwd", "group", "hosts", "nsswitch.conf"] {
        let to = format!("/etc/{name}");
        add(&[&"--ro-bind", &etc.join(name), &to]);
    }
    words
}
