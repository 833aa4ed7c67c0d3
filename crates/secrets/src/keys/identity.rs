//! Who secrets are encrypted to, and with what they are decrypted.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use age::{
    Decryptor, Encryptor, Identity, Recipient,
    armor::{ArmoredReader, ArmoredWriter, Format},
    secrecy::{ExposeSecret, SecretString},
};
use zeroize::Zeroizing;

use super::error::{KEY_FILE_BYTES_MAX, KeyError};
use undercroft_folder::{
    confined::{Confined, Modes},
    named::read_bounded,
};

/// The identity that is made where the inventory names no operators, in the state directory.
pub const OPERATOR_IDENTITY_FILE: &str = "operator-identity.txt";

/// Where identities are looked for.
#[derive(Debug, Clone)]
pub struct IdentitySource {
    /// The fleet's state directory, which may hold an identity of the fleet's own.
    pub state_dir: PathBuf,
    /// Identity files that the operator has named: of `age-keygen`, or SSH private keys.
    pub identity_files: Vec<PathBuf>,
    /// Whether to look where age and SSH keys usually are as well: the file that `SOPS_AGE_KEY_FILE`
    /// names, `~/.config/sops/age/keys.txt`, `~/.ssh/id_ed25519` and `~/.ssh/id_rsa`.
    pub well_known: bool,
}

impl IdentitySource {
    /// Files that the operator has named, and the usual places.
    pub fn usual(state_dir: impl Into<PathBuf>, identity_files: Vec<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            identity_files,
            well_known: true,
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.identity_files.clone();
        files.push(self.state_dir.join(OPERATOR_IDENTITY_FILE));
        if self.well_known {
            files.extend(std::env::var_os("SOPS_AGE_KEY_FILE").map(PathBuf::from));
            if let Some(home) = std::env::home_dir() {
                files.push(home.join(".config/sops/age/keys.txt"));
                files.push(home.join(".ssh/id_ed25519"));
                files.push(home.join(".ssh/id_rsa"));
            }
        }
        files
    }
}

impl IdentitySource {
    /// The identities in one of the files. Those that a person named, or that are in the usual
    /// places, may be links; the fleet's own is a file of the state.
    fn read(&self, file: &Path) -> Result<Vec<Box<dyn Identity>>, KeyError> {
        let bytes = if file == self.state_dir.join(OPERATOR_IDENTITY_FILE) {
            Confined::new(&self.state_dir)
                .read(OPERATOR_IDENTITY_FILE, KEY_FILE_BYTES_MAX)?
                .unwrap_or_default()
        } else {
            read_bounded(file, KEY_FILE_BYTES_MAX).map_err(|source| KeyError::Io {
                what: "read",
                path: file.to_owned(),
                source,
            })?
        };
        parse_identity(file, &Zeroizing::new(bytes))
    }
}

/// An identity that was made for the fleet, as its inventory names no operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeIdentity {
    /// Where it lies.
    pub path: PathBuf,
    /// Its public half.
    pub recipient: String,
}

/// The recipients of what is encrypted, and where to look for what decrypts it.
pub(crate) struct Identities {
    /// The operators of the inventory, as it writes them.
    operators: Vec<String>,
    /// The fleet's own identity, where there is one, as a recipient.
    own: RwLock<Vec<String>>,
    made: RwLock<Option<MadeIdentity>>,
    source: IdentitySource,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identities")
            .field("recipients", &self.recipient_texts().len())
            .field("source", &self.source)
            .finish()
    }
}

impl Identities {
    /// Looks for them. Nothing is made.
    pub(crate) fn open(operators: &[String], source: IdentitySource) -> Result<Self, KeyError> {
        for file in &source.identity_files {
            source.read(file)?;
        }
        for operator in operators {
            parse_recipient(operator)?;
        }
        let state = Confined::new(&source.state_dir);
        let mut own = Vec::new();
        if state.is_file(OPERATOR_IDENTITY_FILE)? {
            let recipients = own_recipients(&state)?;
            own.extend(recipients.iter().map(ToString::to_string));
        }
        Ok(Self {
            operators: operators.to_vec(),
            own: RwLock::new(own),
            made: RwLock::new(None),
            source,
        })
    }

    /// Makes the fleet's own identity, where the inventory names no operators and there is none.
    pub(super) fn make_own(&self) -> Result<(), KeyError> {
        if !self.operators.is_empty() {
            return Ok(());
        }
        let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
        if !own.is_empty() {
            return Ok(());
        }
        let path = self.source.state_dir.join(OPERATOR_IDENTITY_FILE);
        let identity = age::x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        let text = SecretString::from(format!(
            "# The operator of this fleet. Whoever has this file can read its secrets.\n# public key: {recipient}\n{}\n",
            identity.to_string().expose_secret()
        ));
        Confined::new(&self.source.state_dir).write_new(
            OPERATOR_IDENTITY_FILE,
            text.expose_secret().as_bytes(),
            Modes::PRIVATE,
        )?;
        own.push(recipient.clone());
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        *made = Some(MadeIdentity { path, recipient });
        Ok(())
    }

    /// The identity that was made by this run.
    pub(crate) fn made(&self) -> Option<MadeIdentity> {
        self.made
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Who everything is encrypted to, as age writes it: the operators, and the fleet's own
    /// identity where there is one. Nobody, where the inventory names none and that isn't at hand.
    pub(crate) fn recipient_texts(&self) -> Vec<String> {
        let mut texts = self.operators.clone();
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        texts.extend(own.iter().cloned());
        texts
    }

    /// Whether the fleet's own identity is the only one, and at hand: it opens everything.
    pub(super) fn is_sole(&self) -> bool {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        self.operators.is_empty() && !own.is_empty()
    }

    /// Whether an identity at hand is that recipient's: what is encrypted to it can be opened here.
    pub(crate) fn holds(&self, recipient: &str) -> bool {
        let probe = Path::new("a probe");
        let texts = [recipient.to_owned()];
        self.encrypt_to(&texts, b"probe", probe)
            .and_then(|sealed| self.decrypt(&sealed, probe))
            .is_ok()
    }

    /// The folder of the fleet's state.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.source.state_dir
    }

    /// All identities that can be read, and the files that were looked at. A file that the
    /// operator didn't name may be anything, and is passed over.
    pub(crate) fn at_hand(&self) -> (Vec<Box<dyn Identity>>, Vec<PathBuf>) {
        let mut identities = Vec::new();
        let mut tried = Vec::new();
        for file in self.source.files().into_iter().filter(|file| file.exists()) {
            identities.extend(self.source.read(&file).unwrap_or_default());
            tried.push(file);
        }
        (identities, tried)
    }

    pub(super) fn encrypt(&self, plain: &[u8], path: &Path) -> Result<Vec<u8>, KeyError> {
        self.encrypt_to(&self.recipient_texts(), plain, path)
    }

    fn encrypt_to(
        &self,
        recipients: &[String],
        plain: &[u8],
        path: &Path,
    ) -> Result<Vec<u8>, KeyError> {
        let failed = |detail: String| KeyError::BadKey {
            path: path.to_owned(),
            detail: format!("it can't be encrypted: {detail}"),
        };
        let recipients = recipients
            .iter()
            .map(|text| parse_recipient(text))
            .collect::<Result<Vec<_>, _>>()?;
        let recipients = recipients.iter().map(|r| {
            let recipient: &dyn Recipient = r.as_ref();
            recipient
        });
        let encryptor =
            Encryptor::with_recipients(recipients).map_err(|e| failed(e.to_string()))?;
        let mut sealed = Vec::new();
        let seal = || -> std::io::Result<()> {
            let armor = ArmoredWriter::wrap_output(&mut sealed, Format::AsciiArmor)?;
            let mut writer = encryptor.wrap_output(armor)?;
            writer.write_all(plain)?;
            writer.finish()?.finish()?;
            Ok(())
        };
        seal().map_err(|e| failed(e.to_string()))?;
        Ok(sealed)
    }

    /// Decrypts a file's content with the first identity that can.
    pub(super) fn decrypt(&self, sealed: &[u8], path: &Path) -> Result<SecretString, KeyError> {
        let mut tried = Vec::new();
        let mut last = "no identity is at hand".to_owned();
        for file in self.source.files() {
            if !file.exists() {
                continue;
            }
            // A file that the operator didn't name may be anything, such as an SSH key with a
            // passphrase; the next one may do.
            let identities = match self.source.read(&file) {
                Ok(identities) => identities,
                Err(e) => {
                    last = e.to_string();
                    tried.push(file);
                    continue;
                }
            };
            tried.push(file);
            match open_with(sealed, &identities) {
                Ok(text) => return Ok(text),
                Err(detail) => last = detail,
            }
        }
        Err(KeyError::CannotDecrypt {
            path: path.to_owned(),
            detail: last,
            tried,
        })
    }
}

fn open_with(sealed: &[u8], identities: &[Box<dyn Identity>]) -> Result<SecretString, String> {
    let decryptor = Decryptor::new(ArmoredReader::new(sealed)).map_err(|e| e.to_string())?;
    let mut reader = decryptor
        .decrypt(identities.iter().map(|i| {
            let identity: &dyn Identity = i.as_ref();
            identity
        }))
        .map_err(|e| e.to_string())?;
    // With room for all of it, as growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(sealed.len()));
    reader
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    Ok(SecretString::from(text.as_str()))
}

fn parse_recipient(text: &str) -> Result<Box<dyn Recipient + Send + Sync>, KeyError> {
    let bad = |detail: String| KeyError::BadRecipient {
        recipient: text.chars().take(80).collect(),
        detail,
    };
    if text.starts_with("ssh-") {
        let recipient: age::ssh::Recipient = text.parse().map_err(|e| bad(format!("{e:?}")))?;
        Ok(Box::new(recipient))
    } else {
        let recipient: age::x25519::Recipient =
            text.parse().map_err(|e: &str| bad(e.to_owned()))?;
        Ok(Box::new(recipient))
    }
}

/// The recipients of an identity file that this program wrote.
fn own_recipients(state: &Confined) -> Result<Vec<age::x25519::Recipient>, KeyError> {
    state.require_own(OPERATOR_IDENTITY_FILE)?;
    let bytes = state.read(OPERATOR_IDENTITY_FILE, KEY_FILE_BYTES_MAX)?;
    let bytes = Zeroizing::new(bytes.unwrap_or_default());
    let text = SecretString::from(String::from_utf8_lossy(&bytes).into_owned());
    let mut recipients = Vec::new();
    for line in text.expose_secret().lines() {
        if let Ok(identity) = line.trim().parse::<age::x25519::Identity>() {
            recipients.push(identity.to_public());
        }
    }
    if recipients.is_empty() {
        return Err(KeyError::BadIdentity {
            path: state.path(OPERATOR_IDENTITY_FILE),
            detail: "it holds no age identity".to_owned(),
        });
    }
    Ok(recipients)
}

fn parse_identity(path: &Path, bytes: &[u8]) -> Result<Vec<Box<dyn Identity>>, KeyError> {
    let bad = |detail: &str| KeyError::BadIdentity {
        path: path.to_owned(),
        detail: detail.to_owned(),
    };
    let text = SecretString::from(String::from_utf8_lossy(bytes).into_owned());
    let text = text.expose_secret();
    if text.contains("-----BEGIN") {
        let identity = age::ssh::Identity::from_buffer(text.as_bytes(), None)
            .map_err(|e| bad(&e.to_string()))?;
        return match identity {
            age::ssh::Identity::Unencrypted(_) => Ok(vec![Box::new(identity)]),
            age::ssh::Identity::Encrypted(_) => Err(bad("it is protected by a passphrase")),
            age::ssh::Identity::Unsupported(_) => Err(bad("it is of a kind that age doesn't use")),
        };
    }
    age::IdentityFile::from_buffer(text.as_bytes())
        .map_err(|e| bad(&e.to_string()))?
        .into_identities()
        .map_err(|e| bad(&e.to_string()))
}
