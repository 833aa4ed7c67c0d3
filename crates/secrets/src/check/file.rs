//! Everything that is wrong with one file of secrets.

use std::borrow::Cow;

use undercroft_model::{Severity, advice::Advice as _};
use undercroft_sops::{Encrypted, SopsError, Value};

use super::{INIT, Keys, LEAKED, REKEY, SecretsFinding};
use crate::{Make, Secret, SecretFile, SecretsError, Vault};

const REKEY_WHERE_VERIFIED: &str = "Run `undercroft secrets check` where your identity is: it tells whether a machine's key is its own. Only then `undercroft secrets rekey`.";
const MEND_KEYS: &str = "Mend the host key that is named above first, then look again.";
const GIVE: &str = "A person gives it: `undercroft secrets rotate NAME --stdin`.";

/// Adds what is wrong with a file of the catalogue.
pub(super) fn check(
    vault: &Vault,
    file: &SecretFile,
    keys: &Keys,
    findings: &mut Vec<SecretsFinding>,
) -> Result<(), SecretsError> {
    let mut check = FileCheck {
        vault,
        file,
        keys,
        shown: vault.shown(&file.path),
        findings,
    };
    check.host_keys()?;
    let Some(encrypted) = check.read()? else {
        return Ok(());
    };
    check.names(&encrypted);
    check.plain_text(&encrypted);
    check.recipients(&encrypted)?;
    check.values()
}

struct FileCheck<'a> {
    vault: &'a Vault,
    file: &'a SecretFile,
    keys: &'a Keys,
    /// The file, as findings name it.
    shown: String,
    findings: &'a mut Vec<SecretsFinding>,
}

impl FileCheck<'_> {
    fn add(&mut self, severity: Severity, code: &'static str, message: String, hint: Option<&str>) {
        self.findings.push(SecretsFinding {
            severity,
            code: Cow::Borrowed(code),
            file: self.shown.clone(),
            line: None,
            message,
            hint: hint.map(ToOwned::to_owned),
        });
    }

    fn error(&mut self, code: &'static str, message: String, hint: Option<&str>) {
        self.add(Severity::Error, code, message, hint);
    }

    /// Whether those that are to open it have a key to open it with.
    fn host_keys(&mut self) -> Result<(), SecretsError> {
        for node in self.vault.without_host_key(self.file, &self.keys.bad)? {
            self.error(
                "no-host-key",
                format!("{node} has no host key yet, so that it can't open it"),
                Some(
                    "`undercroft secrets init` makes the host key, and then `undercroft secrets rekey` encrypts the file to it.",
                ),
            );
        }
        Ok(())
    }

    /// The file's content, where it is there and is one of SOPS'.
    fn read(&mut self) -> Result<Option<Encrypted>, SecretsError> {
        let secrets = &self.file.secrets;
        match self.vault.read(&self.file.path) {
            Ok(Some(encrypted)) => return Ok(Some(encrypted)),
            Ok(None) if secrets.iter().all(|s| s.make == Make::Asked) => {
                let about: Vec<_> = secrets.iter().map(|s| s.about).collect();
                self.add(
                    Severity::Warning,
                    "not-given",
                    format!("it isn't there: {}", about.join(", ")),
                    Some(GIVE),
                );
            }
            Ok(None) => self.error("missing-file", "it isn't there".to_owned(), Some(INIT)),
            Err(SecretsError::File { source, .. }) => {
                let code = if source == SopsError::NotEncrypted {
                    "plain-file"
                } else {
                    "bad-file"
                };
                self.error(code, source.to_string(), source.hint());
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    /// Whether every secret of the catalogue is in it.
    fn names(&mut self, encrypted: &Encrypted) {
        let names = encrypted.names();
        let missing = |secret: &&Secret| !names.contains(&secret.name);
        for secret in self.file.secrets.iter().filter(missing) {
            let message = format!("{} isn't there: {}", secret.name, secret.about);
            if secret.make == Make::Asked {
                self.add(Severity::Warning, "not-given", message, Some(GIVE));
            } else {
                self.error("missing-secret", message, Some(INIT));
            }
        }
    }

    /// Whether all its values are encrypted, and stay so.
    fn plain_text(&mut self, encrypted: &Encrypted) {
        if !encrypted.has_usual_rule() {
            let path = self.vault.path(&self.file.path);
            self.error(
                "rule",
                "what it says of which values are encrypted isn't what SOPS has by itself, so that secrets may be in it in plain text, or get there".to_owned(),
                SecretsError::Rule { path }.hint().as_deref(),
            );
        }
        for name in encrypted.plain_names() {
            let message = format!("the value of {name} is in plain text");
            self.error("plain-value", message, Some(LEAKED));
        }
    }

    /// Whether those can open it that are to, and nobody else.
    fn recipients(&mut self, encrypted: &Encrypted) -> Result<(), SecretsError> {
        let vault = self.vault;
        let called = vault.called();
        let wanted = vault.wanted_of(self.file, &self.keys.bad)?;
        // A step that would encrypt to a key that somebody has put there is no advice.
        let rekey = match (self.keys.bad.is_empty(), self.keys.unverified) {
            (true, false) => REKEY,
            (true, true) => REKEY_WHERE_VERIFIED,
            (false, _) => MEND_KEYS,
        };
        let recipients = encrypted.recipients();
        for (recipient, name) in &wanted {
            if !recipients.contains(&recipient.as_str()) {
                let message = format!("{name} can't open it");
                self.error("missing-recipient", message, Some(rekey));
            }
        }
        // The machine's own key is in the file still, or nobody knows who else should be.
        let unknown = !self.keys.bad.is_empty() || !vault.knows_operators();
        for recipient in recipients {
            let name = called.get(recipient).map(String::as_str);
            let is_wanted = wanted
                .iter()
                .any(|(wanted, _)| wanted.as_str() == recipient);
            if is_wanted || (unknown && name.is_none()) {
                continue;
            }
            let name = name.unwrap_or(recipient);
            let message = format!("{name} can open it, and isn't to");
            self.error("extra-recipient", message, Some(rekey));
        }
        Ok(())
    }

    /// Its values, where an identity at hand opens them.
    fn values(&mut self) -> Result<(), SecretsError> {
        let vault = self.vault;
        match vault.unlock(&self.file.path) {
            Ok(opened) => {
                let tree = opened.map_or_else(Value::map, |opened| opened.tree.clone());
                for secret in &self.file.secrets {
                    let value = tree.get(&secret.name);
                    if !matches!(value, None | Some(Value::Text(_) | Value::Null)) {
                        self.error(
                            "no-text",
                            format!("the value of {} is no text", secret.name),
                            Some("Put it in quotes, with `undercroft secrets edit`."),
                        );
                    }
                }
            }
            Err(SecretsError::Locked { source, .. }) => self.add(
                Severity::Warning,
                "locked",
                format!("its values weren't checked: {source}"),
                source.hint(),
            ),
            Err(SecretsError::File { source, .. }) => {
                let code = if source == SopsError::BadMac {
                    "bad-mac"
                } else {
                    "bad-value"
                };
                self.error(code, source.to_string(), source.hint());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
