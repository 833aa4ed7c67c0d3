//! Our own stand-in for `ssh-to-age -private-key -i FILE`: prints the age identity of an ed25519
//! private key of OpenSSH, from a file or, without `-i`, from standard input.
//!
//! Tests on the virtual rack use it where the real `ssh-to-age` isn't at hand. That both print the
//! same is a test of its own, in `tests/peers.rs`.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use undercroft_sops::identity_of_ssh_host_key;
use zeroize::Zeroizing;

/// The largest key that is read, in bytes; one of ed25519 has about 400.
const KEY_BYTES_MAX: u64 = 64 * 1024;

const USAGE: &str = "usage: ssh_to_age -private-key [-i FILE]";

fn main() -> ExitCode {
    match convert(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("ssh_to_age: {why}");
            ExitCode::FAILURE
        }
    }
}

fn convert(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<(), String> {
    let mut private = false;
    let mut file: Option<PathBuf> = None;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("-private-key") => private = true,
            Some("-i") => file = Some(arguments.next().ok_or(USAGE)?.into()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    if !private {
        return Err(USAGE.to_owned());
    }
    let mut key = Zeroizing::new(String::new());
    match file {
        Some(path) => std::fs::File::open(&path)
            .and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut key))
            .map_err(|e| format!("{}: {e}", path.display()))?,
        None => std::io::stdin()
            .take(KEY_BYTES_MAX)
            .read_to_string(&mut key)
            .map_err(|e| format!("standard input: {e}"))?,
    };
    let identity = identity_of_ssh_host_key(&key).map_err(|e| e.to_string())?;
    let mut out = std::io::stdout();
    out.write_all(identity.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .map_err(|e| format!("standard output: {e}"))
}
