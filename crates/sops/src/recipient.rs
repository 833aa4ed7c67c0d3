//! Who can open a file: age recipients, and SSH keys made into them.

use std::{fmt, io::Read as _, io::Write as _, str::FromStr};

use age::{
    Decryptor, Encryptor, Identity,
    armor::{ArmoredReader, ArmoredWriter, Format},
};
use bech32::{ToBase32 as _, Variant};
use curve25519_dalek::edwards::CompressedEdwardsY;
use sha2::{Digest as _, Sha512};
use ssh_key::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::{
    cipher::{DATA_KEY_BYTES, DataKey},
    error::SopsError,
};

/// A recipient: `age1…`, or an SSH public key, which age can use itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipient {
    text: String,
}

impl Recipient {
    /// The recipient as files name it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The recipient of a machine: its ed25519 host key as an X25519 one, as ssh-to-age and
    /// sops-nix make it.
    ///
    /// The key is the same point of the curve, in its other form (RFC 7748, section 4.1).
    ///
    /// # Errors
    /// When the key is of another kind.
    pub fn of_ssh_host_key(line: &str) -> Result<Self, SopsError> {
        let bad = |detail: &str| SopsError::BadRecipient {
            recipient: line.chars().take(80).collect(),
            detail: detail.to_owned(),
        };
        let key = PublicKey::from_openssh(line).map_err(|e| bad(&e.to_string()))?;
        let key = key
            .key_data()
            .ed25519()
            .ok_or_else(|| bad("only a host key of the kind ssh-ed25519 can be a recipient"))?;
        let point = CompressedEdwardsY(key.0)
            .decompress()
            .ok_or_else(|| bad("it is no point of the curve"))?;
        if point.is_small_order() {
            return Err(bad("it is a point that hides nothing"));
        }
        let bytes = point.to_montgomery().to_bytes();
        let text = bech32::encode("age", bytes.to_base32(), Variant::Bech32)
            .map_err(|e| bad(&e.to_string()))?;
        Ok(Self { text })
    }

    /// The recipient as age uses it.
    fn to_age(&self) -> Result<Box<dyn age::Recipient + Send + Sync>, SopsError> {
        let bad = |detail: String| SopsError::BadRecipient {
            recipient: self.text.chars().take(80).collect(),
            detail,
        };
        if self.text.starts_with("ssh-") {
            let recipient: age::ssh::Recipient =
                self.text.parse().map_err(|e| bad(format!("{e:?}")))?;
            Ok(Box::new(recipient))
        } else {
            let recipient: age::x25519::Recipient =
                self.text.parse().map_err(|e: &str| bad(e.to_owned()))?;
            Ok(Box::new(recipient))
        }
    }
}

impl FromStr for Recipient {
    type Err = SopsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        // The comment of an SSH key says who, not what: it isn't part of the recipient.
        let text = if text.starts_with("ssh-") {
            let mut words = text.split_whitespace();
            [words.next(), words.next()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ")
        } else {
            text.to_owned()
        };
        let recipient = Self { text };
        recipient.to_age()?;
        Ok(recipient)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({})", self.text)
    }
}

/// The identity of a machine: its ed25519 host key as an X25519 one, `AGE-SECRET-KEY-1…`.
///
/// The scalar is the first half of the seed's SHA-512 (RFC 8032, section 5.1.5).
///
/// # Errors
/// When the text is no ed25519 private key of OpenSSH without a passphrase.
pub fn identity_of_ssh_host_key(openssh: &str) -> Result<Zeroizing<String>, SopsError> {
    let bad = |detail: &str| SopsError::BadRecipient {
        recipient: "(a private host key)".to_owned(),
        detail: detail.to_owned(),
    };
    let key = PrivateKey::from_openssh(openssh).map_err(|e| bad(&e.to_string()))?;
    let pair = key
        .key_data()
        .ed25519()
        .ok_or_else(|| bad("only a host key of the kind ssh-ed25519 can be an identity"))?;
    let mut hash = Zeroizing::new([0_u8; 64]);
    hash.copy_from_slice(&Sha512::digest(pair.private.as_ref()));
    let (scalar, _) = hash.split_at(32);
    let text = bech32::encode("age-secret-key-", scalar.to_base32(), Variant::Bech32)
        .map(Zeroizing::new)
        .map_err(|e| bad(&e.to_string()))?;
    Ok(Zeroizing::new(text.to_uppercase()))
}

/// Encrypts a data key to one recipient, as an armored age file. age takes its entropy from the
/// operating system.
pub(crate) fn wrap(key: &DataKey, recipient: &Recipient) -> Result<String, SopsError> {
    let to = recipient.to_age()?;
    let failed = |detail: String| SopsError::Seal { detail };
    let one: &dyn age::Recipient = to.as_ref();
    let encryptor =
        Encryptor::with_recipients(std::iter::once(one)).map_err(|e| failed(e.to_string()))?;
    let mut sealed = Vec::new();
    let seal = || -> std::io::Result<()> {
        let armor = ArmoredWriter::wrap_output(&mut sealed, Format::AsciiArmor)?;
        let mut writer = encryptor.wrap_output(armor)?;
        writer.write_all(key.as_slice())?;
        writer.finish()?.finish()?;
        Ok(())
    };
    seal().map_err(|e| failed(e.to_string()))?;
    String::from_utf8(sealed).map_err(|e| failed(e.to_string()))
}

/// Decrypts a data key, where one of the identities can.
pub(crate) fn unwrap(sealed: &str, identities: &[&dyn Identity]) -> Option<DataKey> {
    let decryptor = Decryptor::new(ArmoredReader::new(sealed.as_bytes())).ok()?;
    let mut reader = decryptor.decrypt(identities.iter().copied()).ok()?;
    let mut key = DataKey::default();
    let mut end = [0_u8; 1];
    reader.read_exact(key.as_mut_slice()).ok()?;
    // A key of another length is none.
    (reader.read(&mut end).ok()? == 0 && key.len() == DATA_KEY_BYTES).then_some(key)
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::{ED25519_BASEPOINT_COMPRESSED, EIGHT_TORSION};
    use ssh_key::public::{Ed25519PublicKey, KeyData};

    use super::*;

    fn line(point: CompressedEdwardsY) -> String {
        let key = KeyData::Ed25519(Ed25519PublicKey(point.to_bytes()));
        PublicKey::new(key, "").to_openssh().unwrap()
    }

    #[test]
    fn a_host_key_that_hides_nothing_is_no_recipient() {
        // Whoever encrypts to one of these points encrypts to everybody.
        for point in EIGHT_TORSION {
            let refused = Recipient::of_ssh_host_key(&line(point.compress())).unwrap_err();
            let said = refused.to_string();
            assert!(said.contains("hides nothing"), "{point:?}: {said}");
        }
        let good = Recipient::of_ssh_host_key(&line(ED25519_BASEPOINT_COMPRESSED)).unwrap();
        assert!(good.as_str().starts_with("age1"));
        // Not every 32 bytes are a point.
        let none = (2_u8..=255)
            .map(|byte| CompressedEdwardsY([byte; 32]))
            .find(|bytes| bytes.decompress().is_none());
        let refused = Recipient::of_ssh_host_key(&line(none.unwrap())).unwrap_err();
        assert!(refused.to_string().contains("no point"), "{refused}");
    }
}
