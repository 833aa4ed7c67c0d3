//! Who can open the host keys, when operators come and go.
//!
//! An age file doesn't say to whom it is encrypted. So that is noted in a file beside the host
//! keys, which is written after them: where a rekeying was cut short, the note is still the old
//! one, and the next does it again.

use std::{collections::BTreeSet, path::PathBuf};

use age::secrecy::ExposeSecret as _;

use super::{
    HostKeys,
    agreed::{agree, without_comment},
    change::ReaderChange,
    error::{KEY_FILE_BYTES_MAX, KeyError},
};
use undercroft_folder::confined::{FileKind, Modes};

/// The note, in the folder of the host keys.
pub(crate) const READERS_FILE: &str = "recipients.txt";
const HEADER: &str =
    "# To whom the host keys in this folder are encrypted. Made by `undercroft`.\n";

/// Who should be able to open the host keys and can't, and the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Recipients that are to be added.
    pub(crate) added: Vec<String>,
    /// Recipients that are to be shut out.
    pub(crate) removed: Vec<String>,
}

impl HostKeys {
    /// What is to be changed about who can open the host keys; `None` where it is nothing.
    ///
    /// # Errors
    /// When the folder or the note can't be read.
    pub(crate) fn difference(&self) -> Result<Option<Difference>, KeyError> {
        // Where the inventory names nobody, and the fleet's own identity isn't at hand, nobody here
        // knows who should.
        if self.private_files()?.is_empty() || self.wanted_readers().is_empty() {
            return Ok(None);
        }
        let noted = self.noted_readers()?.unwrap_or_default();
        let wanted = self.wanted_readers();
        let less = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect();
        let difference = Difference {
            added: less(&wanted, &noted),
            removed: less(&noted, &wanted),
        };
        let none = difference.added.is_empty() && difference.removed.is_empty();
        Ok((!none).then_some(difference))
    }

    /// Has the readers of a new host key agreed to: those who are neither at hand nor were agreed
    /// to before.
    pub(super) fn agree_to_readers(&self) -> Result<(), KeyError> {
        let wanted = self.wanted_readers();
        let agreed = self.agreed().load()?;
        let known = match &agreed {
            Some(agreed) => agreed.clone(),
            // Where nobody was asked yet, the repository is as good as it was cloned.
            None => self.noted_readers()?.unwrap_or_default(),
        };
        let file = self.dir.display().to_string();
        let changes = wanted
            .iter()
            .filter(|key| !known.contains(*key) && !self.identities.holds(key))
            .map(|key| ReaderChange {
                file: file.clone(),
                who: "an operator of [secrets]".to_owned(),
                key: key.clone(),
                comes: true,
            });
        agree(&self.consent, changes.collect())?;
        self.agreed().add(wanted)
    }

    /// Encrypts every host key anew, to the operators as they are now: those too of machines that
    /// are no longer in the inventory.
    ///
    /// # Errors
    /// When one can't be opened or written; those before it stay, and the next run does them
    /// again.
    pub(crate) fn rekey(&self) -> Result<(), KeyError> {
        self.clear_leftovers();
        for name in self.private_files()? {
            let path = self.repository.path(&name);
            let sealed = self.required(&name)?;
            let text = self.identities.decrypt(&sealed, &path)?;
            let sealed = self
                .identities
                .encrypt(text.expose_secret().as_bytes(), &path)?;
            self.repository.replace(&name, &sealed, Modes::PRIVATE)?;
        }
        self.note_readers()
    }

    /// Notes to whom host keys are encrypted, where there are none yet.
    pub(super) fn note_first_readers(&self) -> Result<(), KeyError> {
        if self.private_files()?.is_empty() {
            self.note_readers()?;
        }
        Ok(())
    }

    fn note_readers(&self) -> Result<(), KeyError> {
        let mut text = HEADER.to_owned();
        for recipient in self.wanted_readers() {
            text.push_str(&recipient);
            text.push('\n');
        }
        let modes = Modes {
            file: 0o644,
            ..Modes::PRIVATE
        };
        Ok(self
            .repository
            .replace(self.dir.join(READERS_FILE), text.as_bytes(), modes)?)
    }

    /// Takes away what a command that was killed left among the host keys.
    pub(crate) fn clear_leftovers(&self) {
        self.repository.clear_leftovers(&self.dir);
    }

    /// Who can open the host keys, as it was noted.
    pub(crate) fn noted(&self) -> Result<Vec<String>, KeyError> {
        let noted = self.noted_readers()?.unwrap_or_default();
        Ok(noted.into_iter().collect())
    }

    fn noted_readers(&self) -> Result<Option<BTreeSet<String>>, KeyError> {
        let name = self.dir.join(READERS_FILE);
        let Some(text) = self.repository.read(name, KEY_FILE_BYTES_MAX)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(str::trim);
        let recipients = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(Some(recipients.map(ToOwned::to_owned).collect()))
    }

    fn wanted_readers(&self) -> BTreeSet<String> {
        let texts = self.identities.recipient_texts();
        texts.iter().map(|text| without_comment(text)).collect()
    }

    /// The names of the encrypted private keys, in order.
    pub(super) fn private_files(&self) -> Result<Vec<PathBuf>, KeyError> {
        let mut files = Vec::new();
        for entry in self.repository.list(&self.dir)? {
            let name = self.dir.join(&entry.name);
            if name.extension().is_some_and(|e| e == "age") && entry.kind == FileKind::File {
                files.push(name);
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::keys::IdentitySource;
    use undercroft_model::NodeName;

    fn person(dir: &Path, name: &str) -> (String, PathBuf) {
        let identity = age::x25519::Identity::generate();
        let file = dir.join(name);
        fs::write(&file, identity.to_string().expose_secret()).unwrap();
        (identity.to_public().to_string(), file)
    }

    fn keys(dir: &Path, operators: &[String], identity: &Path) -> HostKeys {
        let source = IdentitySource {
            state_dir: dir.join("state"),
            identity_files: vec![identity.to_owned()],
            well_known: false,
        };
        HostKeys::open(&dir.join("secrets"), operators, source).unwrap()
    }

    #[test]
    fn an_operator_who_comes_opens_host_keys_and_one_who_goes_doesnt() {
        let dir = tempfile::tempdir().unwrap();
        let (ada, ada_file) = person(dir.path(), "ada");
        let (bob, bob_file) = person(dir.path(), "bob");
        let node = NodeName::new("gpu-01").unwrap();
        let operators = |list: &[&String]| list.iter().map(|o| (*o).clone()).collect::<Vec<_>>();
        let alone = keys(dir.path(), &operators(&[&ada]), &ada_file);
        let public = alone.ensure(&node).unwrap();
        assert_eq!(alone.difference().unwrap(), None);

        let both = operators(&[&ada, &bob]);
        assert!(keys(dir.path(), &both, &bob_file).private(&node).is_err());
        let with_ada = keys(dir.path(), &both, &ada_file);
        let difference = with_ada.difference().unwrap().unwrap();
        assert_eq!(
            (difference.added, difference.removed),
            (vec![bob.clone()], vec![])
        );
        with_ada.rekey().unwrap();
        assert_eq!(with_ada.difference().unwrap(), None);
        let with_bob = keys(dir.path(), &both, &bob_file);
        with_bob.private(&node).unwrap();
        assert_eq!(with_bob.public(&node).unwrap(), Some(public));

        let bob_alone = operators(&[&bob]);
        keys(dir.path(), &bob_alone, &bob_file).rekey().unwrap();
        assert!(
            keys(dir.path(), &bob_alone, &ada_file)
                .private(&node)
                .is_err()
        );
        keys(dir.path(), &bob_alone, &bob_file)
            .private(&node)
            .unwrap();
    }

    #[test]
    fn a_rekeying_that_was_cut_short_is_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let (ada, ada_file) = person(dir.path(), "ada");
        let (bob, bob_file) = person(dir.path(), "bob");
        let keys_of_ada = keys(dir.path(), std::slice::from_ref(&ada), &ada_file);
        for name in ["a", "b"] {
            keys_of_ada.ensure(&NodeName::new(name).unwrap()).unwrap();
        }
        let both = [ada, bob];
        let rekeying = keys(dir.path(), &both, &ada_file);
        // The second key can't be opened: the first is encrypted anew, the note isn't.
        let second = dir.path().join("secrets/host-keys/b.age");
        let whole = fs::read(&second).unwrap();
        fs::write(&second, "no age file").unwrap();
        assert!(rekeying.rekey().is_err());
        assert!(rekeying.difference().unwrap().is_some());
        fs::write(&second, whole).unwrap();
        rekeying.rekey().unwrap();
        assert_eq!(rekeying.difference().unwrap(), None);
        let of_bob = keys(dir.path(), &both, &bob_file);
        for name in ["a", "b"] {
            of_bob.private(&NodeName::new(name).unwrap()).unwrap();
        }
    }
}
