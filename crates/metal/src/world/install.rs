//! Making what was copied boot: host key, files, profile, boot loader.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use undercroft_model::advice::Advice as _;
use undercroft_model::{Evidence, Failure, FailureKind, Work};

use super::{
    Done, Job, Stop,
    installer::{Installer, exit, refused, values},
};
use undercroft_secrets::keys::KeyError;
use undercroft_ssh::HostKey;

/// Where OpenSSH keeps an ed25519 host key.
const HOST_KEY_PATH: &str = "/etc/ssh/ssh_host_ed25519_key";

/// Delivers the host key and the extra files, and makes the system boot; a probe looks whether
/// all of that is done.
pub(super) async fn install(
    job: &Job<'_>,
    toplevel: &str,
    host_key_fingerprint: &str,
    work: Work,
) -> Done {
    // The approval is checked before the secret is as much as decrypted.
    let installer = Installer::of(job)?;
    let public = final_host_key(job, host_key_fingerprint)?;
    let private = job
        .shared
        .parts
        .host_keys
        .private(job.name())
        .map_err(|e| key_failure(&e))?;
    let mut words = vec!["/undercroft/install", toplevel];
    if work == Work::Probe {
        let digest = hex(&Sha256::digest(private.expose_secret().as_bytes()));
        let probe = ["/undercroft/deliver", "--probe", HOST_KEY_PATH, &digest];
        let output = installer.run(&probe).await?;
        match output.code {
            exit::DONE => {}
            exit::NOT_YET => return Err(Stop::NotDone),
            _ => return Err(refused(&output).into()),
        }
        words.push("--probe");
    } else {
        deliver(&installer, HOST_KEY_PATH, "0600", &private).await?;
        let line = SecretString::from(format!("{public} root@{}\n", job.name()));
        deliver(&installer, &format!("{HOST_KEY_PATH}.pub"), "0644", &line).await?;
        for file in job.shared.parts.options.extra_files()? {
            let mode = format!("{:04o}", file.mode);
            let words = ["/undercroft/deliver", &file.path_on_machine, &mode];
            let output = installer.run_with_file(&words, &file.file).await?;
            if output.code != exit::DONE {
                return Err(refused(&output).into());
            }
        }
    }
    let output = installer.run(&words).await?;
    match output.code {
        exit::DONE => {}
        exit::NOT_YET if work == Work::Probe => return Err(Stop::NotDone),
        _ => return Err(refused(&output).into()),
    }
    let values = values(&output.stdout);
    match values.get("entry") {
        Some(entry) if !entry.is_empty() => Ok(Evidence::Installed {
            boot_id: installer.boot_id(),
            default_entry: undercroft_process::printable(entry),
        }),
        _ => Err(Stop::Failed(
            Failure::new(
                FailureKind::Transient,
                "the installer names no boot entry that it has read back",
            )
            .with_command(output.failed_command()),
        )),
    }
}

/// The machine's own host key, which must be the one that was planned with.
pub(super) fn final_host_key(job: &Job<'_>, fingerprint: &str) -> Result<HostKey, Failure> {
    let key = job
        .shared
        .parts
        .host_keys
        .public(job.name())
        .map_err(|e| key_failure(&e))?
        .ok_or_else(|| {
            Failure::new(
                FailureKind::Permanent,
                "no host key was made for the machine",
            )
            .with_hint("Plan again: planning makes it.")
        })?;
    let actual = key.fingerprint();
    if actual == fingerprint {
        Ok(key)
    } else {
        Err(Failure::new(
            FailureKind::Permanent,
            format!(
                "the plan was made with the host key {fingerprint}, and the repository has {actual}"
            ),
        )
        .with_hint("Bring the planned key back from the repository's history, or plan again."))
    }
}

async fn deliver(
    installer: &Installer<'_>,
    path: &str,
    mode: &str,
    content: &SecretString,
) -> Result<(), Failure> {
    let words = ["/undercroft/deliver", path, mode];
    let output = installer.run_with_secret(&words, content).await?;
    if output.code != exit::DONE {
        return Err(refused(&output));
    }
    let wanted = hex(&Sha256::digest(content.expose_secret().as_bytes()));
    if values(&output.stdout).get("sha256") == Some(&wanted.as_str()) {
        Ok(())
    } else {
        Err(Failure::new(
            FailureKind::Transient,
            format!("{path} was read back from the machine with another content than was sent"),
        ))
    }
}

fn key_failure(error: &KeyError) -> Failure {
    let failure = Failure::new(FailureKind::Permanent, error.to_string());
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
