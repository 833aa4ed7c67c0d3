//! Everything that is wrong with the secrets of a repository.

use std::path::Path;

use serde::Serialize;
use undercroft_sops::{Encrypted, SopsError};

use super::{
    Make, RULES_FILE, SecretFile, SecretsError, Vault, rules,
    scan::{self, Found},
};
use crate::keys::HOST_KEYS_DIR;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is wrong.
    Error,
    /// Something is worth knowing.
    Warning,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A word for programs.
    pub code: &'static str,
    /// The file, from the repository's folder.
    pub file: String,
    /// The line, from 1, where it is of one.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

const INIT: &str = "`undercroft secrets init` makes what is missing.";
const REKEY: &str = "`undercroft secrets rekey` encrypts it to those whom the inventory names.";
const LEAKED: &str =
    "Count it as known: take it out of the repository and its history, and make a new one.";

impl Vault {
    /// Everything that is wrong, in the order of the files. Values are looked at where an identity
    /// at hand can open them.
    ///
    /// # Errors
    /// When the repository itself can't be read.
    pub fn check(&self) -> Result<Vec<Finding>, SecretsError> {
        let mut findings = Vec::new();
        for file in &self.files {
            self.check_file(file, &mut findings)?;
        }
        self.check_rules(&mut findings)?;
        self.check_folder(&mut findings);
        self.check_repository(&mut findings);
        Ok(findings)
    }

    fn check_file(
        &self,
        file: &SecretFile,
        findings: &mut Vec<Finding>,
    ) -> Result<(), SecretsError> {
        let shown = self.shown(&file.path);
        let mut add = |severity, code, message: String, hint: Option<&str>| {
            findings.push(Finding {
                severity,
                code,
                file: shown.clone(),
                line: None,
                message,
                hint: hint.map(ToOwned::to_owned),
            });
        };
        for node in self.without_host_key(file)? {
            add(
                Severity::Warning,
                "no-host-key",
                format!("{node} has no host key yet, so that it can't be a recipient"),
                Some(INIT),
            );
        }
        let all_asked = file.secrets.iter().all(|s| s.make == Make::Asked);
        let encrypted = match self.read(&file.path) {
            Ok(Some(encrypted)) => encrypted,
            Ok(None) if all_asked => {
                add(
                    Severity::Warning,
                    "not-given",
                    format!(
                        "it isn't there: {}",
                        file.secrets
                            .iter()
                            .map(|s| s.about)
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                    Some("A person gives it: `undercroft secrets rotate NAME --stdin`."),
                );
                return Ok(());
            }
            Ok(None) => {
                add(
                    Severity::Error,
                    "missing-file",
                    "it isn't there".to_owned(),
                    Some(INIT),
                );
                return Ok(());
            }
            Err(SecretsError::File { source, .. }) => {
                let code = if source == SopsError::NotEncrypted {
                    "plain-file"
                } else {
                    "bad-file"
                };
                add(Severity::Error, code, source.to_string(), source.hint());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let names = encrypted.names();
        for secret in file.secrets.iter().filter(|s| !names.contains(&s.name)) {
            if secret.make == Make::Asked {
                add(
                    Severity::Warning,
                    "not-given",
                    format!("{} isn't there: {}", secret.name, secret.about),
                    Some("A person gives it: `undercroft secrets rotate NAME --stdin`."),
                );
            } else {
                add(
                    Severity::Error,
                    "missing-secret",
                    format!("{} isn't there: {}", secret.name, secret.about),
                    Some(INIT),
                );
            }
        }
        for name in encrypted.plain_names() {
            add(
                Severity::Error,
                "plain-value",
                format!("the value of {name} is in plain text"),
                Some(LEAKED),
            );
        }
        let called = self.called();
        let wanted = self.wanted(file)?;
        for (recipient, name) in &wanted {
            if !encrypted.recipients().contains(&recipient.as_str()) {
                add(
                    Severity::Error,
                    "missing-recipient",
                    format!("{name} can't open it"),
                    Some(REKEY),
                );
            }
        }
        for recipient in encrypted.recipients() {
            if !wanted
                .iter()
                .any(|(wanted, _)| wanted.as_str() == recipient)
            {
                let name = called.get(recipient).map_or(recipient, String::as_str);
                add(
                    Severity::Error,
                    "extra-recipient",
                    format!("{name} can open it, and isn't to"),
                    Some(REKEY),
                );
            }
        }
        match self.unlock(&file.path) {
            Ok(_) => {}
            Err(SecretsError::Locked { source, .. }) => add(
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
                add(Severity::Error, code, source.to_string(), source.hint());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn check_rules(&self, findings: &mut Vec<Finding>) -> Result<(), SecretsError> {
        if self.files.is_empty() {
            return Ok(());
        }
        let (severity, message, hint) = match rules::current(self)? {
            Some(true) => return Ok(()),
            Some(false) => (
                Severity::Error,
                "it isn't as the inventory wants it, so that `sops` itself encrypts to the wrong recipients",
                REKEY,
            ),
            None => (
                Severity::Warning,
                "it isn't Undercroft's own and was left alone; see to it that its rules name the same recipients",
                "Take it away and run `undercroft secrets init` to have it made.",
            ),
        };
        findings.push(Finding {
            severity,
            code: "rules",
            file: RULES_FILE.to_owned(),
            line: None,
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
        });
        Ok(())
    }

    /// What lies in the secrets folder and isn't encrypted.
    fn check_folder(&self, findings: &mut Vec<Finding>) {
        let folder = self.repository.join(&self.folder);
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if !self.belongs(&path) {
                    findings.push(Finding {
                        severity: Severity::Error,
                        code: "plain-file",
                        file: self.in_repository(&path),
                        line: None,
                        message: "it lies among the secrets and isn't encrypted".to_owned(),
                        hint: Some(LEAKED.to_owned()),
                    });
                }
            }
        }
    }

    /// Whether a file of the secrets folder may lie there: encrypted by SOPS or by age, or a
    /// machine's public key. Files of the catalogue were looked at already.
    fn belongs(&self, path: &Path) -> bool {
        if self.files.iter().any(|file| self.path(&file.path) == path) {
            return true;
        }
        let Ok(bytes) = scan::read_for_scan(path) else {
            return false;
        };
        let in_host_keys = path.parent() == Some(self.path(HOST_KEYS_DIR).as_path());
        match path.extension().and_then(|e| e.to_str()) {
            Some("pub") => in_host_keys && bytes.starts_with(b"ssh-"),
            Some("age") => {
                bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
                    || bytes.starts_with(b"age-encryption.org/v1")
            }
            Some("yaml" | "yml") => {
                Encrypted::parse(&bytes).is_ok_and(|file| file.plain_names().is_empty())
            }
            Some("md") => true,
            // Other formats of SOPS aren't read here; their own mark is.
            _ => {
                let text = String::from_utf8_lossy(&bytes);
                text.contains("ENC[AES256_GCM,") && text.contains("sops")
            }
        }
    }

    /// What in the rest of the repository looks like a secret.
    fn check_repository(&self, findings: &mut Vec<Finding>) {
        let files = match scan::repository_files(&self.repository) {
            Ok(files) => files,
            Err(error) => {
                findings.push(Finding {
                    severity: Severity::Warning,
                    code: "not-scanned",
                    file: ".".to_owned(),
                    line: None,
                    message: format!("the repository can't be looked through: {error}"),
                    hint: None,
                });
                return;
            }
        };
        for path in files {
            let Ok(bytes) = scan::read_for_scan(&path) else {
                continue;
            };
            for Found { line, what } in scan::scan(&bytes) {
                findings.push(Finding {
                    severity: Severity::Error,
                    code: "plain-secret",
                    file: self.in_repository(&path),
                    line: Some(line),
                    message: format!("this looks like {what} in plain text"),
                    hint: Some(LEAKED.to_owned()),
                });
            }
        }
    }

    fn in_repository(&self, path: &Path) -> String {
        path.strip_prefix(&self.repository)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}
