//! Making secrets. Entropy comes from the operating system.

use std::fmt::Write as _;

use age::secrecy::{ExposeSecret as _, SecretString};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::{Timestamp, ToSpan as _, civil::Date, tz::Offset};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, date_time_ymd,
};
use sha2::{Digest as _, Sha256};
use ssh_key::{
    Algorithm, LineEnding, PrivateKey,
    rand_core::{OsRng, RngCore as _},
};
use zeroize::Zeroizing;

use super::catalogue::NatsKind;

/// The length of passwords, in characters of 62 kinds: 238 bits.
const PASSWORD_CHARS: usize = 40;
/// How long a CA is good, in years, as k3s and kubeadm have it.
const CA_YEARS: i32 = 10;
/// The length of the key that Kubernetes' secrets are encrypted with, in bytes: AES-256.
const ENCRYPTION_KEY_BYTES: usize = 32;

/// Fills a buffer with entropy.
pub(super) fn entropy(buffer: &mut [u8]) {
    OsRng.fill_bytes(buffer);
}

/// A password of letters and digits, each as likely as any other.
pub(super) fn password() -> SecretString {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(PASSWORD_CHARS);
    while text.len() < PASSWORD_CHARS {
        let mut byte = [0_u8; 1];
        entropy(&mut byte);
        // The bytes above the last whole round would make the first letters likelier.
        let [byte] = byte;
        if usize::from(byte) < 256 / LETTERS.len() * LETTERS.len()
            && let Some(letter) = LETTERS.get(usize::from(byte) % LETTERS.len())
        {
            text.push(char::from(*letter));
        }
    }
    SecretString::from(text)
}

/// The full form of a k3s token: the SHA-256 of the bytes of the file `server-ca.crt` as long as
/// that holds one certificate (k3s, pkg/clientaccess/token.go), the user, and the password.
pub(super) fn k3s_token(ca: &str, user: &str, password: &str) -> SecretString {
    SecretString::from(format!(
        "K10{}::{user}:{password}",
        hex(&Sha256::digest(ca.as_bytes()))
    ))
}

/// The password of a token in its full form.
pub(super) fn password_of_k3s_token(token: &str) -> Option<&str> {
    let (_, login) = token.split_once("::")?;
    login.split_once(':').map(|(_, password)| password)
}

/// A certificate and a key, both PEM.
pub(super) struct Authority {
    pub(super) certificate: SecretString,
    pub(super) key: SecretString,
}

/// A CA that signs itself, with a key of P-256, good for ten years from the day before `now_s`.
pub(super) fn authority(common_name: &str, now_s: u64) -> Result<Authority, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    let day = |date: Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        date_time_ymd(date.year().into(), month, day)
    };
    let (begins, ends) = validity(now_s);
    (params.not_before, params.not_after) = (day(begins), day(ends));
    let certificate = params.self_signed(&key)?;
    Ok(Authority {
        certificate: SecretString::from(pem(&certificate.pem())),
        key: SecretString::from(pem(&key.serialize_pem())),
    })
}

/// The key of a CA's public half, hashed as kubeadm's discovery has it.
pub(super) fn ca_hash(key_pem: &str) -> Result<SecretString, rcgen::Error> {
    let key = KeyPair::from_pem(key_pem)?;
    let hash = Sha256::digest(key.subject_public_key_info());
    Ok(SecretString::from(format!("sha256:{}", hex(&hash))))
}

/// A private key of P-256, PEM.
pub(super) fn signing_key() -> Result<SecretString, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(SecretString::from(pem(&key.serialize_pem())))
}

/// A private key of P-256 in the form of SEC 1 (RFC 5915), PEM. The API server reads the public half
/// off a private key of an elliptic curve in this form alone (k8s.io/client-go, util/keyutil,
/// ParsePublicKeysPEM), and k3s gives it the file that it signs with.
pub(super) fn signing_key_sec1() -> Result<SecretString, rcgen::Error> {
    /// PKCS #8 has the same within: version 1, and 32 bytes of a private key.
    const PRIVATE_KEY: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    /// The curve, which SEC 1 names within, and the start of the public half.
    const CURVE: [u8; 17] = [
        0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0xa1, 0x44, 0x03,
        0x42, 0x00,
    ];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let pkcs8 = Zeroizing::new(key.serialize_der());
    let private = pkcs8
        .windows(PRIVATE_KEY.len() + 32)
        .find(|window| window.starts_with(&PRIVATE_KEY))
        .ok_or(rcgen::Error::CouldNotParseKeyPair)?;
    let mut der = Zeroizing::new(Vec::with_capacity(121));
    der.extend([0x30, 0x77]);
    der.extend(private);
    der.extend(CURVE);
    der.extend(key.public_key_raw());
    let base64 = Zeroizing::new(BASE64.encode(&*der));
    let mut text = Zeroizing::new(String::with_capacity(256));
    text.push_str("-----BEGIN EC PRIVATE KEY-----");
    for (i, letter) in base64.chars().enumerate() {
        if i % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str("\n-----END EC PRIVATE KEY-----");
    Ok(SecretString::from(pem(&text)))
}

/// The public half of a private key, PEM.
pub(super) fn public_key(key_pem: &str) -> Result<SecretString, rcgen::Error> {
    let key = KeyPair::from_pem(key_pem)?;
    Ok(SecretString::from(pem(&key.public_key_pem())))
}

/// An EncryptionConfiguration of the API server. k3s reads AES-CBC alone from its file.
pub(super) fn encryption_config(json: bool) -> SecretString {
    let mut key = [0_u8; ENCRYPTION_KEY_BYTES];
    entropy(&mut key);
    let key = SecretString::from(BASE64.encode(key));
    SecretString::from(if json {
        format!(
            concat!(
                r#"{{"kind":"EncryptionConfiguration","apiVersion":"apiserver.config.k8s.io/v1","#,
                r#""resources":[{{"resources":["secrets"],"providers":["#,
                r#"{{"aescbc":{{"keys":[{{"name":"aescbckey","secret":"{}"}}]}}}},{{"identity":{{}}}}]}}]}}"#
            ),
            key.expose_secret()
        )
    } else {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  - resources:\n      - secrets\n    providers:\n      - secretbox:\n          keys:\n            - name: key1\n              secret: {}\n      - identity: {{}}\n",
            key.expose_secret()
        )
    })
}

/// An age identity.
pub(super) fn age_identity() -> SecretString {
    age::x25519::Identity::generate().to_string()
}

/// A private key as Tailscale writes them.
pub(super) fn tailscale_key() -> SecretString {
    let mut key = [0_u8; 32];
    entropy(&mut key);
    // The bits that every private key of X25519 has (RFC 7748, section 5).
    let [first, .., last] = &mut key;
    *first &= 248;
    *last = (*last & 127) | 64;
    SecretString::from(format!("privkey:{}", hex(&key)))
}

/// A seed of NATS' keys.
pub(super) fn nats_seed(kind: NatsKind) -> Result<SecretString, nkeys::error::Error> {
    let pair = match kind {
        NatsKind::Operator => nkeys::KeyPair::new_operator(),
        NatsKind::Account => nkeys::KeyPair::new_account(),
        NatsKind::User => nkeys::KeyPair::new_user(),
    };
    pair.seed().map(SecretString::from)
}

/// An ed25519 key of OpenSSH's.
pub(super) fn ssh_key(comment: &str) -> Result<SecretString, ssh_key::Error> {
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519)?;
    key.set_comment(comment);
    Ok(SecretString::from(key.to_openssh(LineEnding::LF)?.as_str()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A PEM text as it stands in files: lines end in LF, and so does the text.
fn pem(text: &str) -> String {
    format!("{}\n", text.replace("\r\n", "\n").trim_end())
}

/// The day before a moment, in UTC, and the day on which a CA that is made then ends: ten years later, or, as X.509 knows
/// no years of more digits, with the year 9999.
fn validity(now_s: u64) -> (Date, Date) {
    let now = i64::try_from(now_s).map(Timestamp::from_second);
    let now = now.ok().and_then(Result::ok).unwrap_or(Timestamp::MAX);
    // A machine whose clock is a little behind must take it already.
    let begins = Offset::UTC.to_datetime(now).date().saturating_sub(1.day());
    (begins, begins.saturating_add(CA_YEARS.years()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_good_from_the_day_before_and_for_ten_years() {
        for (now_s, begins, ends) in [
            (0, "1969-12-31", "1979-12-31"),
            (1_767_225_600, "2025-12-31", "2035-12-31"),
            // The 29th of February isn't in every year.
            (1_709_251_200, "2024-02-29", "2034-02-28"),
            (253_402_207_200, "9999-12-29", "9999-12-31"),
            (u64::MAX, "9999-12-29", "9999-12-31"),
        ] {
            let (from, to) = validity(now_s);
            assert_eq!(
                (from.to_string(), to.to_string()),
                (begins.into(), ends.into())
            );
            assert!(authority("edge", now_s).is_ok());
        }
    }
}
