//! The host key that a machine is installed with.

use secrecy::SecretString;
use undercroft_model::{Failure, FailureKind, advice::Advice as _};
use undercroft_secrets::keys::KeyError;
use undercroft_ssh::HostKey;

use super::job::Job;

/// The private half of the machine's own host key.
pub(super) fn private_host_key(job: &Job<'_>) -> Result<SecretString, Failure> {
    let private = job.shared.parts.host_keys.private(job.name());
    private.map_err(|e| key_failure(&e))
}

/// The public half of the machine's own host key.
pub(super) fn public_host_key(job: &Job<'_>) -> Result<HostKey, Failure> {
    let public = job.shared.parts.host_keys.public(job.name());
    public.map_err(|e| key_failure(&e))?.ok_or_else(|| {
        Failure::new(
            FailureKind::Permanent,
            "no host key was made for the machine",
        )
        .with_hint("Plan again: planning makes it.")
    })
}

/// The machine's own host key, which must be the one that was planned with.
pub(super) fn final_host_key(job: &Job<'_>, fingerprint: &str) -> Result<HostKey, Failure> {
    let key = public_host_key(job)?;
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

fn key_failure(error: &KeyError) -> Failure {
    let failure = Failure::new(FailureKind::Permanent, error.to_string());
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
