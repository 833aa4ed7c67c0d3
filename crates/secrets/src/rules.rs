//! `.sops.yaml`: who the real `sops` encrypts each file to.

use std::fmt::Write as _;

use super::{SecretsError, Vault};
use undercroft_folder::confined::Modes;

/// The file of rules, in the repository's folder.
pub const RULES_FILE: &str = ".sops.yaml";
/// How our own rules begin; a file that begins otherwise is somebody else's.
const HEADER: &str =
    "# Made by `undercroft secrets`, from undercroft.toml. Changes are overwritten.\n";
/// The largest file of rules that is read, in bytes.
const RULES_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The rules for the files that there should be.
pub(super) fn render(vault: &Vault) -> Result<String, SecretsError> {
    let mut text = format!("{HEADER}creation_rules:\n");
    for file in &vault.files {
        let path = escape(&vault.shown(&file.path));
        // Writing to a String can't fail.
        let _ = writeln!(text, "    - path_regex: '^{path}$'\n      age: >-");
        let wanted = vault.wanted(file)?;
        let last = wanted.len().saturating_sub(1);
        for (i, (recipient, _)) in wanted.iter().enumerate() {
            let comma = if i == last { "" } else { "," };
            let _ = writeln!(text, "        {recipient}{comma}");
        }
    }
    Ok(text)
}

/// Writes the rules, unless they are somebody else's. Whether they changed, and whether they are
/// somebody else's.
pub(super) fn write(vault: &Vault) -> Result<(bool, bool), SecretsError> {
    if vault.files.is_empty() {
        return Ok((false, false));
    }
    let text = render(vault)?;
    if let Some(present) = vault.repository.read(RULES_FILE, RULES_BYTES_MAX)? {
        if present == text.as_bytes() {
            return Ok((false, false));
        }
        if !present.starts_with(HEADER.as_bytes()) {
            return Ok((false, true));
        }
    }
    vault
        .repository
        .replace(RULES_FILE, text.as_bytes(), Modes::PUBLIC)?;
    Ok((true, false))
}

/// Whether our own rules are there and as they should be; `None` where they are somebody else's.
pub(super) fn current(vault: &Vault) -> Result<Option<bool>, SecretsError> {
    let Some(present) = vault.repository.read(RULES_FILE, RULES_BYTES_MAX)? else {
        return Ok(Some(false));
    };
    if !present.starts_with(HEADER.as_bytes()) {
        return Ok(None);
    }
    Ok(Some(present == render(vault)?.as_bytes()))
}

/// The recipients that our own rules name; `None` where there are none of ours.
pub(super) fn recipients(vault: &Vault) -> Result<Option<Vec<String>>, SecretsError> {
    let Some(present) = vault.repository.read(RULES_FILE, RULES_BYTES_MAX)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&present);
    let lines = text.lines().map(|line| line.trim().trim_end_matches(','));
    let mut recipients: Vec<String> = lines
        .filter(|line| line.starts_with("age1") || line.starts_with("ssh-"))
        .map(ToOwned::to_owned)
        .collect();
    recipients.sort();
    recipients.dedup();
    Ok(Some(recipients))
}

fn escape(path: &str) -> String {
    path.replace('.', "\\.")
}
