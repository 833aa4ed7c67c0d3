//! What changes a fleet's secrets: making, rotating, rekeying, and a person's edits.

use std::borrow::Cow;

use undercroft_model::NodeName;
use undercroft_sops::{Comment, MapEntry, Opened, Value};
use zeroize::Zeroizing;

use super::{
    Vault,
    lock::Lock,
    open::{Open, source_of},
    split,
};
use crate::keys::{HOST_KEYS_DIR, KeyError, MadeIdentity};
use crate::{Make, Secret, SecretFile, SecretString, SecretsError, rules};

/// Values of a file that were made or changed, by name alone.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Changed {
    /// The file, from the repository's folder.
    pub file: String,
    /// The secret.
    pub name: String,
    /// What to do so that it is used.
    pub after: String,
}

/// What `init` did.
#[derive(Debug, Default)]
pub struct Initialised {
    /// The identity that was made for the fleet, where the inventory names no operators.
    pub identity: Option<MadeIdentity>,
    /// Machines that got a host key.
    pub host_keys: Vec<NodeName>,
    /// Secrets that were made.
    pub made: Vec<Changed>,
    /// Secrets that a person must give.
    pub asked: Vec<Changed>,
    /// Whether the rules for `sops` itself were written.
    pub rules: bool,
    /// Whether there are rules that somebody else wrote.
    pub foreign_rules: bool,
}

/// What `rekey` did to a file, or would do.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Rekeyed {
    /// The file, from the repository's folder.
    pub file: String,
    /// Who can open it now and couldn't before.
    pub added: Vec<String>,
    /// Who can no longer open what is written from now on.
    pub removed: Vec<String>,
    /// The secrets that those who were removed may still know.
    pub rotate: Vec<String>,
    /// What else to do, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Cow<'static, str>>,
}

/// What is to be done about host keys that somebody knows who was removed.
const HOST_KEYS_AFTER: &str = "Whoever was removed has been able to read the machines' host keys, and with one the machine's secrets. Where that matters, take its NODE.age and NODE.pub away and install the machine anew: `undercroft up --reinstall NODE`.";

/// A file that is open for a person to change.
pub struct Edit {
    path: String,
    opened: Option<Opened>,
    tree: Value,
    /// Nobody else changes the file while somebody has it in an editor.
    _lock: Lock,
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edit")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Edit {
    /// The plain text, for a place that is memory alone.
    pub fn to_plain(&self) -> Zeroizing<String> {
        undercroft_sops::to_plain(&self.tree)
    }
}

impl Vault {
    /// Makes what is missing: host keys, files, secrets, the rules for `sops`. What is there is
    /// never made anew.
    ///
    /// # Errors
    /// When no identity at hand could open what is made; nothing is written then. When a file
    /// can't be opened or written; those before it stay.
    pub fn init(&self, now_s: u64) -> Result<Initialised, SecretsError> {
        // Where files are there already, the identity that opens them was, too.
        for file in &self.files {
            if !self.knows_operators() && self.read(&file.path)?.is_some() {
                return Err(KeyError::NoOperator.into());
            }
        }
        self.host_keys.make_own_identity()?;
        self.require_own_identity(now_s)?;
        let _lock = self.lock()?;
        // Files that can't be opened are found before host keys are written.
        let mut open = Open::all(self)?;
        let mut done = Initialised {
            identity: self.identities.made(),
            ..Initialised::default()
        };
        for node in &self.nodes {
            if self.host_keys.public(node)?.is_none() {
                done.host_keys.push(node.clone());
            }
        }
        for derived in [false, true] {
            for file in &self.files {
                for secret in &file.secrets {
                    open.require_text(self, &file.path, &secret.name)?;
                    if source_of(&secret.make).is_some() != derived
                        || open.text(&file.path, &secret.name).is_some()
                    {
                        continue;
                    }
                    if secret.make == Make::Asked {
                        done.asked.push(self.changed(file, secret));
                        continue;
                    }
                    let made = open.make(self, file, secret, now_s)?;
                    done.made.extend(made.iter().map(|s| self.changed(file, s)));
                }
            }
        }
        let mut writings = open.writings(self)?;
        if !done.host_keys.is_empty() {
            writings.push(self.writing_host_keys(None)?);
        }
        writings.extend(self.writing_rules()?);
        self.agree(writings)?;
        for node in &self.nodes {
            self.host_keys.ensure(node)?;
        }
        // The keys that were made just now are nobody else's.
        let made = done.host_keys.iter().map(|node| self.node(node));
        let made: Vec<_> = made.collect::<Result<_, _>>()?;
        let made = made.into_iter().flatten();
        self.host_keys
            .agreed()
            .add(made.map(|recipient| recipient.as_str().to_owned()))?;
        open.save(self, now_s)?;
        (done.rules, done.foreign_rules) = rules::write(self)?;
        Ok(done)
    }

    fn changed(&self, file: &SecretFile, secret: &Secret) -> Changed {
        Changed {
            file: self.shown(&file.path),
            name: secret.name.clone(),
            after: secret.after_rotation.to_owned(),
        }
    }

    /// Gives a secret a new value, made or given, and makes anew what follows from it.
    ///
    /// # Errors
    /// When there is no such secret, it follows from another, or a file can't be opened or
    /// written.
    pub fn rotate(
        &self,
        name: &str,
        given: Option<SecretString>,
        now_s: u64,
    ) -> Result<Vec<Changed>, SecretsError> {
        let (file_name, name) = split(name);
        let found: Vec<(&SecretFile, &Secret)> = self
            .files
            .iter()
            .filter(|file| file_name.is_none_or(|f| f == file.path || f == self.shown(&file.path)))
            .flat_map(|file| file.secrets.iter().map(move |secret| (file, secret)))
            .filter(|(_, secret)| secret.name == name)
            .collect();
        let (file, secret) = match found.as_slice() {
            [one] => *one,
            [] => {
                return Err(SecretsError::NoSuchSecret {
                    name: name.to_owned(),
                });
            }
            several => {
                return Err(SecretsError::Ambiguous {
                    name: name.to_owned(),
                    files: several.iter().map(|(file, _)| file.path.clone()).collect(),
                });
            }
        };
        if let Some(from) = source_of(&secret.make)
            && !matches!(secret.make, Make::K3sToken { .. })
        {
            return Err(SecretsError::Follows {
                name: name.to_owned(),
                from: from.to_owned(),
            });
        }
        let _lock = self.lock()?;
        let mut open = Open::all(self)?;
        let mut changed = Vec::new();
        if let Some(value) = given {
            open.put(&file.path, &secret.name, &value);
            changed.push(self.changed(file, secret));
        } else {
            // A token that is made anew has no password to keep.
            open.take(&file.path, &secret.name);
            let made = open.make(self, file, secret, now_s)?;
            changed.extend(made.iter().map(|s| self.changed(file, s)));
        }
        for other in &self.files {
            for follower in &other.secrets {
                let from = source_of(&follower.make);
                if from.is_some_and(|from| changed.iter().any(|c| c.name == from)) {
                    let made = open.make(self, other, follower, now_s)?;
                    changed.extend(made.iter().map(|s| self.changed(other, s)));
                }
            }
        }
        self.agree(open.writings(self)?)?;
        open.save(self, now_s)?;
        Ok(changed)
    }

    /// Makes every file open to those whom the inventory wants, and to nobody else.
    ///
    /// Where somebody is removed, the file gets a new data key; what they have read before they
    /// may still know.
    ///
    /// # Errors
    /// When a file can't be opened or written; those before it stay.
    pub fn rekey(&self, now_s: u64, dry_run: bool) -> Result<Vec<Rekeyed>, SecretsError> {
        // Where nobody knows who the operators are, everything would be taken from them.
        if !self.knows_operators() {
            if dry_run {
                return Ok(Vec::new());
            }
            return Err(KeyError::NoOperator.into());
        }
        let _lock = if dry_run { None } else { Some(self.lock()?) };
        if !dry_run {
            self.agree_to_rekeying()?;
        }
        let called = self.called();
        let mut done = Vec::new();
        if let Some(rekeyed) = self.rekey_host_keys(dry_run)? {
            done.push(rekeyed);
        }
        for file in &self.files {
            let Some(encrypted) = self.read(&file.path)? else {
                continue;
            };
            let wanted = self.wanted(file)?;
            let present: Vec<String> = encrypted
                .recipients()
                .into_iter()
                .map(ToOwned::to_owned)
                .collect();
            let added: Vec<String> = wanted
                .iter()
                .filter(|(recipient, _)| !present.iter().any(|p| p == recipient.as_str()))
                .map(|(_, name)| name.clone())
                .collect();
            let removed: Vec<String> = present
                .iter()
                .filter(|p| !wanted.iter().any(|(recipient, _)| recipient.as_str() == *p))
                .map(|p| called.get(p).cloned().unwrap_or_else(|| p.clone()))
                .collect();
            if added.is_empty() && removed.is_empty() {
                continue;
            }
            if !dry_run && let Some(opened) = self.unlock(&file.path)? {
                self.write(file, Some(&opened), &opened.tree, now_s)?;
            }
            done.push(Rekeyed {
                file: self.shown(&file.path),
                rotate: if removed.is_empty() {
                    Vec::new()
                } else {
                    encrypted.names()
                },
                added,
                removed,
                after: None,
            });
        }
        if !dry_run {
            rules::write(self)?;
        }
        Ok(done)
    }

    /// Has everybody agreed to who comes and goes by a rekeying.
    fn agree_to_rekeying(&self) -> Result<(), SecretsError> {
        let mut writings = Vec::new();
        for file in &self.files {
            if self.read(&file.path)?.is_some() {
                writings.push(self.writing(file)?);
            }
        }
        if self.host_keys.difference()?.is_some() {
            writings.push(self.writing_host_keys(Some(self.host_keys.noted()?))?);
        }
        writings.extend(self.writing_rules()?);
        self.agree(writings)
    }

    /// Makes the host keys open to the operators, and to nobody else. They are age files, which
    /// don't say to whom they are encrypted; that is noted beside them.
    fn rekey_host_keys(&self, dry_run: bool) -> Result<Option<Rekeyed>, SecretsError> {
        let Some(difference) = self.host_keys.difference()? else {
            return Ok(None);
        };
        let named = |recipients: Vec<String>| -> Vec<String> {
            let name = |one: String| match self.people.get(&one) {
                Some(person) => format!("operator {person}"),
                None => one,
            };
            recipients.into_iter().map(name).collect()
        };
        let rekeyed = Rekeyed {
            file: self.shown(HOST_KEYS_DIR),
            after: (!difference.removed.is_empty()).then_some(HOST_KEYS_AFTER.into()),
            added: named(difference.added),
            removed: named(difference.removed),
            rotate: Vec::new(),
        };
        if !dry_run {
            self.host_keys.rekey()?;
        }
        Ok(Some(rekeyed))
    }

    /// Opens a file for a person to change; one that isn't there yet is empty.
    ///
    /// # Errors
    /// When it is no file of secrets, or can't be opened.
    pub fn edit(&self, given: &str) -> Result<Edit, SecretsError> {
        let file = self.file(given)?;
        let lock = self.lock()?;
        let opened = self.unlock(&file.path)?;
        let tree = match &opened {
            Some(opened) => opened.tree.clone(),
            None => Value::Map(vec![MapEntry::Comment(Comment::line(" NAME: value"))]),
        };
        Ok(Edit {
            path: file.path.clone(),
            opened,
            tree,
            _lock: lock,
        })
    }

    /// Takes the changed plain text of a file. The names whose values differ come back.
    ///
    /// # Errors
    /// When the text can't be kept, with its place; nothing is written then.
    pub fn finish_edit(
        &self,
        edit: &Edit,
        plain: &[u8],
        now_s: u64,
    ) -> Result<Vec<String>, SecretsError> {
        let file = self.file(&edit.path)?;
        let tree = undercroft_sops::parse_plain(plain).map_err(|source| SecretsError::File {
            path: self.path(&edit.path),
            source,
        })?;
        if edit.opened.is_some() && tree == edit.tree {
            return Ok(Vec::new());
        }
        for secret in &file.secrets {
            if !matches!(
                tree.get(&secret.name),
                None | Some(Value::Text(_) | Value::Null)
            ) {
                return Err(SecretsError::NotText {
                    path: self.path(&edit.path),
                    name: secret.name.clone(),
                });
            }
        }
        let (before, after) = (edit.tree.names(), tree.names());
        let has_value = |tree: &Value, names: &[String]| {
            names.iter().any(|name| {
                !matches!(tree.get(name), None | Some(Value::Null))
                    && tree.get(name).and_then(Value::as_text) != Some("")
            })
        };
        if !has_value(&tree, &after) {
            if edit.opened.is_none() {
                return Ok(Vec::new());
            }
            if has_value(&edit.tree, &before) {
                return Err(SecretsError::Emptied {
                    path: self.path(&edit.path),
                });
            }
        }
        let mut changed: Vec<String> = before
            .iter()
            .filter(|name| !after.contains(name))
            .map(|name| format!("- {name}"))
            .collect();
        for name in &after {
            if !before.contains(name) {
                changed.push(format!("+ {name}"));
            } else if edit.tree.get(name) != tree.get(name) {
                changed.push(format!("~ {name}"));
            }
        }
        if changed.is_empty() {
            changed.push("~ (comments or order)".to_owned());
        }
        self.agree(vec![self.writing(file)?])?;
        self.write(file, edit.opened.as_ref(), &tree, now_s)?;
        Ok(changed)
    }
}
