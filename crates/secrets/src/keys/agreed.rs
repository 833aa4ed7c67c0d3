//! Whom this operator has agreed to as readers of the fleet's secrets.
//!
//! The inventory, the host keys' public halves, the notes beside them and what an encrypted file says
//! of its recipients all lie in the repository, where whoever proposes a change can change all of them
//! alike. So none of them is a reason to encrypt to somebody new: a person at a terminal is, or
//! `--yes`. What was agreed to is kept in the state folder, which isn't in the repository.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    change::ReaderChange,
    error::{KEY_FILE_BYTES_MAX, KeyError},
};
use undercroft_folder::confined::{Confined, Modes};

/// The file of those who were agreed to, in the state folder.
pub const AGREED_FILE: &str = "recipients.txt";
/// The longest such file that is read, in bytes: some sixty thousand recipients.
const AGREED_BYTES_MAX: u64 = 64 * KEY_FILE_BYTES_MAX;
const HEADER: &str = "# To whom the operator here has agreed as readers of the fleet's secrets.\n";

/// Shows a person the changes, and gives the answer.
pub type Ask = Arc<dyn Fn(&[ReaderChange]) -> bool + Send + Sync>;

/// How a change of readers is agreed to.
#[derive(Clone, Default)]
pub enum Consent {
    /// By nobody: nobody is there who could be asked.
    #[default]
    Nobody,
    /// By the command line.
    Given,
    /// By a person who is shown the changes, and answers.
    Ask(Ask),
}

impl std::fmt::Debug for Consent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Given => "Given",
            Self::Ask(_) => "Ask",
        })
    }
}

/// Those who were agreed to, as they stand in the state folder.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    state: Confined,
}

impl Agreed {
    pub(crate) fn of(state_dir: &Path) -> Self {
        Self {
            state: Confined::new(state_dir),
        }
    }

    /// The recipients; `None` where nobody was ever asked here, as in a fresh clone.
    pub(crate) fn load(&self) -> Result<Option<BTreeSet<String>>, KeyError> {
        let Some(text) = self.state.read(AGREED_FILE, AGREED_BYTES_MAX)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(Some(
            lines
                .map(without_comment)
                .filter(|key| !key.is_empty())
                .collect(),
        ))
    }

    /// Notes more of them.
    pub(crate) fn add(&self, keys: impl IntoIterator<Item = String>) -> Result<(), KeyError> {
        let there = self.load()?;
        let mut all = there.clone().unwrap_or_default();
        all.extend(keys);
        if there.as_ref() == Some(&all) {
            return Ok(());
        }
        let mut text = HEADER.to_owned();
        for key in all {
            text.push_str(&key);
            text.push('\n');
        }
        Ok(self
            .state
            .replace(AGREED_FILE, text.as_bytes(), Modes::PRIVATE)?)
    }
}

/// Has changes agreed to. Nothing is written before this returns well.
pub(crate) fn agree(consent: &Consent, changes: Vec<ReaderChange>) -> Result<(), KeyError> {
    if changes.is_empty() {
        return Ok(());
    }
    match consent {
        Consent::Given => Ok(()),
        Consent::Ask(ask) if ask(&changes) => Ok(()),
        Consent::Ask(_) => Err(KeyError::NotAgreed),
        Consent::Nobody => Err(KeyError::NobodyAgreed { changes }),
    }
}

/// A recipient without the comment of an SSH key, which says nothing about who can decrypt.
pub(crate) fn without_comment(text: &str) -> String {
    if text.trim().starts_with("ssh-") {
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        words.join(" ")
    } else {
        text.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_agreed_to_is_kept_and_comments_mean_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let agreed = Agreed::of(&dir.path().join("state"));
        assert_eq!(agreed.load().unwrap(), None);
        agreed.add(["age1b".to_owned()]).unwrap();
        agreed
            .add(["age1a".to_owned(), "age1b".to_owned()])
            .unwrap();
        let all: Vec<String> = agreed.load().unwrap().unwrap().into_iter().collect();
        assert_eq!(all, ["age1a", "age1b"]);
        assert_eq!(
            without_comment("ssh-ed25519 AAAA ada@desk"),
            "ssh-ed25519 AAAA"
        );
    }

    #[test]
    fn without_somebody_who_agrees_nothing_goes_on() {
        let changes = || {
            vec![ReaderChange {
                file: "secrets/x".to_owned(),
                who: "gpu-01".to_owned(),
                key: "age1x".to_owned(),
                comes: true,
            }]
        };
        let refused = agree(&Consent::Nobody, changes()).unwrap_err().to_string();
        assert!(
            refused.contains("+ gpu-01, age1x, in secrets/x"),
            "{refused}"
        );
        agree(&Consent::Given, changes()).unwrap();
        agree(&Consent::Nobody, Vec::new()).unwrap();
        let no = Consent::Ask(Arc::new(|_| false));
        assert!(matches!(agree(&no, changes()), Err(KeyError::NotAgreed)));
    }
}
