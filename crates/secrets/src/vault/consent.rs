//! Who reads a file from now on, agreed to before it is written.

use std::collections::BTreeSet;

use undercroft_sops::Recipient;

use super::Vault;
use crate::keys::{HOST_KEYS_DIR, ReaderChange, agree, without_comment};
use crate::{SecretFile, SecretsError, rules};

/// A file that is about to be written.
pub(super) struct Writing {
    /// The file, from the repository's folder.
    shown: String,
    /// Its readers up to now; `None` where it is new.
    present: Option<Vec<String>>,
    /// Its readers from now on, each with what it is called.
    wanted: Vec<(Recipient, String)>,
}

impl Vault {
    /// A file of secrets that is about to be written.
    pub(super) fn writing(&self, file: &SecretFile) -> Result<Writing, SecretsError> {
        let present = self.read(&file.path)?.map(|encrypted| {
            let recipients = encrypted.recipients().into_iter();
            recipients.map(ToOwned::to_owned).collect()
        });
        Ok(Writing {
            shown: self.shown(&file.path),
            present,
            wanted: self.wanted(file)?,
        })
    }

    /// The rules for `sops` itself, where they are about to change: it encrypts to whom they name.
    pub(super) fn writing_rules(&self) -> Result<Option<Writing>, SecretsError> {
        if self.files.is_empty() || rules::current(self)? != Some(false) {
            return Ok(None);
        }
        let mut wanted: Vec<(Recipient, String)> = Vec::new();
        for file in &self.files {
            wanted.extend(self.wanted(file)?);
        }
        wanted.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        wanted.dedup_by(|(a, _), (b, _)| a.as_str() == b.as_str());
        Ok(Some(Writing {
            shown: rules::RULES_FILE.to_owned(),
            present: rules::recipients(self)?,
            wanted,
        }))
    }

    /// Has those who come and go agreed to, and notes them. To be called before the first file is
    /// written.
    ///
    /// What the repository says is no reason to believe a reader: whoever changes the inventory
    /// changes a note, or a file's own list, as well. So who isn't at hand, and was never agreed to
    /// in the state folder, is asked about, even where a file has them already; in a fresh clone,
    /// where nobody was asked yet, a file's readers are taken as they are.
    pub(super) fn agree(&self, writings: Vec<Writing>) -> Result<(), SecretsError> {
        let agreed = self.host_keys.agreed();
        let known = agreed.load()?;
        let called = self.called();
        let mut changes = Vec::new();
        let mut at_hand: BTreeSet<String> = BTreeSet::new();
        let mut readers: BTreeSet<String> = BTreeSet::new();
        for writing in writings {
            for (recipient, who) in &writing.wanted {
                let key = recipient.as_str().to_owned();
                readers.insert(without_comment(&key));
                let was = writing
                    .present
                    .as_ref()
                    .map(|present| present.contains(&key));
                let is_known = known
                    .as_ref()
                    .is_some_and(|known| known.contains(&without_comment(&key)));
                let comes = match was {
                    Some(false) => true,
                    Some(true) => known.is_some() && !is_known,
                    None => !is_known,
                };
                if !comes || (was != Some(false) && at_hand.contains(&key)) {
                    continue;
                }
                if was != Some(false) && self.identities.holds(&key) {
                    at_hand.insert(key);
                    continue;
                }
                changes.push(ReaderChange {
                    file: writing.shown.clone(),
                    who: who.clone(),
                    key,
                    comes: true,
                });
            }
            for key in writing.present.unwrap_or_default() {
                if !writing
                    .wanted
                    .iter()
                    .any(|(wanted, _)| wanted.as_str() == key)
                {
                    changes.push(ReaderChange {
                        file: writing.shown.clone(),
                        who: called.get(&key).unwrap_or(&key).clone(),
                        key,
                        comes: false,
                    });
                }
            }
        }
        changes.sort();
        changes.dedup();
        agree(&self.consent, changes)?;
        agreed.add(readers)?;
        Ok(())
    }

    /// The operators, as readers of host keys that are about to be made or encrypted anew.
    pub(super) fn writing_host_keys(
        &self,
        present: Option<Vec<String>>,
    ) -> Result<Writing, SecretsError> {
        Ok(Writing {
            shown: self.shown(HOST_KEYS_DIR),
            present,
            wanted: self.operators_called()?,
        })
    }
}
