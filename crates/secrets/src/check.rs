//! Everything that is wrong with the secrets of a repository.

mod file;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use undercroft_model::{NodeName, Severity, advice::Advice as _};
use undercroft_sops::Encrypted;

use super::{
    ExposeSecret as _, RULES_FILE, SecretsError, Vault, rules,
    scan::{self, FoundSecret},
    vault::{Open, source_of},
};
use crate::keys::{HOST_KEYS_DIR, KeyError, READERS_FILE};
use undercroft_folder::confined::FileKind;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SecretsFinding {
    /// How bad it is.
    pub severity: Severity,
    /// A word for programs.
    pub code: Cow<'static, str>,
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

/// What is known of the machines' host keys.
#[derive(Debug, Default)]
struct Keys {
    /// Machines whose public half can't be used.
    bad: BTreeSet<NodeName>,
    /// Whether there are some that couldn't be compared.
    unverified: bool,
}

impl Vault {
    /// Everything that is wrong, in the order of the files. Values are looked at where an identity
    /// at hand can open them.
    ///
    /// # Errors
    /// When the repository itself can't be read.
    pub fn check(&self) -> Result<Vec<SecretsFinding>, SecretsError> {
        let mut findings = Vec::new();
        let keys = self.check_own_keys(&mut findings);
        for file in &self.files {
            file::check(self, file, &keys, &mut findings)?;
        }
        self.check_derived(&mut findings);
        self.check_host_keys(&mut findings)?;
        self.check_rules(&mut findings)?;
        self.check_folder(&mut findings);
        self.check_repository(&mut findings);
        Ok(findings)
    }

    /// Machines' public halves against their private halves, and what nobody here can tell.
    fn check_own_keys(&self, findings: &mut Vec<SecretsFinding>) -> Keys {
        let mut keys = Keys::default();
        let mut unverified = 0_usize;
        for node in &self.nodes {
            match self.host_keys.public(node) {
                Ok(None) => {}
                Ok(Some(_)) if self.host_keys.is_verified(node) => {}
                Ok(Some(_)) => unverified += 1,
                Err(error) => {
                    keys.bad.insert(node.clone());
                    findings.push(SecretsFinding {
                        severity: Severity::Error,
                        code: match error {
                            KeyError::Swapped { .. } | KeyError::Foreign { .. } => {
                                "swapped-host-key"
                            }
                            _ => "bad-host-key",
                        }
                        .into(),
                        file: self.shown(&format!("{HOST_KEYS_DIR}/{node}.pub")),
                        line: None,
                        message: error.to_string(),
                        hint: error.hint(),
                    });
                }
            }
        }
        let mut warn = |code, message: String, hint: &str| {
            findings.push(SecretsFinding {
                severity: Severity::Warning,
                code: Cow::Borrowed(code),
                file: self.shown(HOST_KEYS_DIR),
                line: None,
                message,
                hint: Some(hint.to_owned()),
            });
        };
        if unverified > 0 {
            keys.unverified = true;
            warn(
                "unverified",
                format!(
                    "{unverified} of the machines' public keys weren't compared with their private halves: no identity at hand opens those"
                ),
                "Run it where your identity is, or name it with --identity.",
            );
        }
        let is_any_there = self
            .files
            .iter()
            .any(|file| !matches!(self.read(&file.path), Ok(None)));
        if is_any_there && !self.knows_operators() {
            warn(
                "unknown-operator",
                "who the operators are isn't known here, so that it wasn't checked who beside the machines can open the files: `operators` of [secrets] is empty, and the fleet's own identity isn't at hand".to_owned(),
                "Name the operators' recipients as `operators` of [secrets], and it is checked everywhere.",
            );
        }
        keys
    }

    /// Secrets that don't fit those that they follow from: whoever wrote both files was stopped in
    /// between, or one was changed by hand. Nothing is said where a file can't be opened; that was
    /// said before.
    fn check_derived(&self, findings: &mut Vec<SecretsFinding>) {
        let Ok(open) = Open::all(self) else {
            return;
        };
        for file in &self.files {
            for secret in &file.secrets {
                let (Some(source), Some(text)) =
                    (source_of(&secret.make), open.text(&file.path, &secret.name))
                else {
                    continue;
                };
                let fits = match open.value(file, secret) {
                    Ok(value) => value.expose_secret() == text,
                    Err(_) => false,
                };
                if !fits {
                    findings.push(SecretsFinding {
                        severity: Severity::Error,
                        code: "stale".into(),
                        file: self.shown(&file.path),
                        line: None,
                        message: format!("{} doesn't fit {source}, which it follows from", secret.name),
                        hint: Some(format!(
                            "Take {} away with `undercroft secrets edit`, and `undercroft secrets init` makes it from {source}.",
                            secret.name
                        )),
                    });
                }
            }
        }
    }

    fn check_host_keys(&self, findings: &mut Vec<SecretsFinding>) -> Result<(), SecretsError> {
        let Some(difference) = self.host_keys.difference()? else {
            return Ok(());
        };
        let mut add = |code, message: String| {
            findings.push(SecretsFinding {
                severity: Severity::Error,
                code: Cow::Borrowed(code),
                file: self.shown(HOST_KEYS_DIR),
                line: None,
                message,
                hint: Some(REKEY.to_owned()),
            });
        };
        let name = |one: &String| self.called().get(one).unwrap_or(one).clone();
        for one in &difference.added {
            add(
                "missing-recipient",
                format!("{} can't open them", name(one)),
            );
        }
        for one in &difference.removed {
            add(
                "extra-recipient",
                format!("{} can open them, and isn't to", name(one)),
            );
        }
        Ok(())
    }

    fn check_rules(&self, findings: &mut Vec<SecretsFinding>) -> Result<(), SecretsError> {
        let unusable = self
            .nodes
            .iter()
            .any(|node| self.host_keys.public(node).is_err());
        if self.files.is_empty() || unusable || !self.knows_operators() {
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
        findings.push(SecretsFinding {
            severity,
            code: "rules".into(),
            file: RULES_FILE.to_owned(),
            line: None,
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
        });
        Ok(())
    }

    /// What lies in the secrets folder and isn't encrypted.
    fn check_folder(&self, findings: &mut Vec<SecretsFinding>) {
        let mut folders = vec![PathBuf::from(&self.folder)];
        while let Some(folder) = folders.pop() {
            // What can't be listed was said of its files, or isn't there.
            for entry in self.repository.list(&folder).unwrap_or_default() {
                let name = folder.join(&entry.name);
                let mut add = |code, message: &str, hint: &str| {
                    findings.push(SecretsFinding {
                        severity: Severity::Error,
                        code: Cow::Borrowed(code),
                        file: name.display().to_string(),
                        line: None,
                        message: message.to_owned(),
                        hint: Some(hint.to_owned()),
                    });
                };
                // Links aren't followed: one to a folder above it has no end.
                match entry.kind {
                    FileKind::Folder => folders.push(name),
                    // The next command that writes takes it away, and git doesn't know it.
                    FileKind::File
                        if self.repository.is_leftover(&name, entry.kind, entry.owner) => {}
                    FileKind::File if self.belongs(&name) => {}
                    FileKind::File => add(
                        "plain-file",
                        "it lies among the secrets and isn't encrypted",
                        LEAKED,
                    ),
                    _ => add(
                        "no-file",
                        "it lies among the secrets and is no file of its own",
                        "Put the file itself there, in place of a link.",
                    ),
                }
            }
        }
    }

    /// Whether a file of the secrets folder may lie there: encrypted by SOPS or by age, or a
    /// machine's public key. Files of the catalogue were looked at already.
    fn belongs(&self, name: &Path) -> bool {
        if self.files.iter().any(|file| self.name(&file.path) == name) {
            return true;
        }
        let beginning = self.repository.read_beginning(name, scan::SCAN_BYTES_MAX);
        let Ok(Some(bytes)) = beginning else {
            return false;
        };
        let in_host_keys = name.parent() == Some(self.name(HOST_KEYS_DIR).as_path());
        if in_host_keys && name.file_name().is_some_and(|name| name == READERS_FILE) {
            return true;
        }
        match name.extension().and_then(|e| e.to_str()) {
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
    fn check_repository(&self, findings: &mut Vec<SecretsFinding>) {
        let files = match scan::repository_files(self.repository.root()) {
            Ok(files) => files,
            Err(error) => {
                findings.push(SecretsFinding {
                    severity: Severity::Warning,
                    code: "not-scanned".into(),
                    file: ".".to_owned(),
                    line: None,
                    message: format!("the repository can't be looked through: {error}"),
                    hint: None,
                });
                return;
            }
        };
        for path in files {
            let Ok(name) = path.strip_prefix(self.repository.root()) else {
                continue;
            };
            let beginning = self.repository.read_beginning(name, scan::SCAN_BYTES_MAX);
            let Ok(Some(bytes)) = beginning else {
                continue;
            };
            if bytes.len() as u64 >= scan::SCAN_BYTES_MAX {
                findings.push(SecretsFinding {
                    severity: Severity::Warning,
                    code: "not-scanned".into(),
                    file: self.in_repository(&path),
                    line: None,
                    message: format!(
                        "only its first {} MiB were looked through",
                        scan::SCAN_BYTES_MAX / (1024 * 1024)
                    ),
                    hint: None,
                });
            }
            for FoundSecret { line, what } in scan::scan(&bytes) {
                findings.push(SecretsFinding {
                    severity: Severity::Error,
                    code: "plain-secret".into(),
                    file: self.in_repository(&path),
                    line: Some(line),
                    message: format!("this looks like {what} in plain text"),
                    hint: Some(LEAKED.to_owned()),
                });
            }
        }
    }

    fn in_repository(&self, path: &Path) -> String {
        path.strip_prefix(self.repository.root())
            .unwrap_or(path)
            .display()
            .to_string()
    }
}
