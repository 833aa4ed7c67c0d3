//! Single values: AES-256-GCM with an initialisation vector of 32 bytes and the value's path as
//! additional data, written as `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]` (getsops/sops,
//! aes/cipher.go).

use aes_gcm::{
    AesGcm, KeyInit as _,
    aead::{
        AeadInPlace as _,
        consts::{U12, U32},
        generic_array::{ArrayLength, GenericArray},
    },
    aes::Aes256,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use crate::value::Value;

/// The length of a data key, in bytes.
pub(crate) const DATA_KEY_BYTES: usize = 32;
/// The length of an initialisation vector that we write, in bytes.
pub(crate) const IV_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const PREFIX: &str = "ENC[AES256_GCM,data:";

/// The key of one file's values.
pub(crate) type DataKey = Zeroizing<[u8; DATA_KEY_BYTES]>;

/// What a value is, beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Text,
    Int,
    Float,
    Bool,
    Time,
    Bytes,
    Comment,
}

impl Kind {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Text, "str"),
        (Self::Int, "int"),
        (Self::Float, "float"),
        (Self::Bool, "bool"),
        (Self::Time, "time"),
        (Self::Bytes, "bytes"),
        (Self::Comment, "comment"),
    ];

    pub(crate) fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("str", |(_, word)| word)
    }
}

/// The bytes that stand for a value, in the MAC and under encryption; `None` for what SOPS leaves
/// as it is.
pub(crate) fn bytes_of(value: &Value) -> Option<(Kind, Zeroizing<Vec<u8>>)> {
    let plain = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    Some(match value {
        Value::Bool(value) => (Kind::Bool, plain(if *value { "True" } else { "False" })),
        Value::Int(number) => (Kind::Int, plain(&number.to_string())),
        // The shortest decimal that is read as the same number, never with an exponent.
        Value::Float(number) => (Kind::Float, plain(&number.to_string())),
        Value::Text(text) => (Kind::Text, plain(text)),
        Value::Time(text) => (Kind::Time, plain(text)),
        Value::Null | Value::Map(_) | Value::List(_) => return None,
    })
}

/// A decrypted value, or `None` where the bytes aren't of their kind.
pub(crate) fn value_of(kind: Kind, bytes: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(match kind {
        Kind::Text | Kind::Bytes => Value::text(text),
        Kind::Int => Value::Int(text.parse().ok()?),
        Kind::Float => Value::Float(
            text.parse()
                .ok()
                .filter(|number: &f64| number.is_finite())?,
        ),
        Kind::Bool => Value::Bool(match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => return None,
        }),
        Kind::Time => Value::Time(Zeroizing::new(text.to_owned())),
        Kind::Comment => return None,
    })
}

/// Whether a text has the form of an encrypted value.
pub(crate) fn is_sealed(text: &str) -> bool {
    text.starts_with(PREFIX) && text.ends_with(']')
}

/// Encrypts a value's bytes. What is empty stays empty, as SOPS has it.
pub(crate) fn seal(
    kind: Kind,
    plain: &[u8],
    key: &DataKey,
    iv: &[u8; IV_BYTES],
    path: &str,
) -> Option<String> {
    if plain.is_empty() {
        return Some(String::new());
    }
    let cipher = AesGcm::<Aes256, U32>::new(GenericArray::from_slice(key.as_slice()));
    let mut data = Zeroizing::new(plain.to_vec());
    let tag = cipher
        .encrypt_in_place_detached(GenericArray::from_slice(iv), path.as_bytes(), &mut data)
        .ok()?;
    Some(format!(
        "{PREFIX}{},iv:{},tag:{},type:{}]",
        BASE64.encode(&*data),
        BASE64.encode(iv),
        BASE64.encode(tag),
        kind.word()
    ))
}

/// Decrypts what [`seal`] or SOPS made, or says nothing about why it can't.
pub(crate) fn open(text: &str, key: &DataKey, path: &str) -> Option<(Kind, Zeroizing<Vec<u8>>)> {
    if text.is_empty() {
        return Some((Kind::Text, Zeroizing::new(Vec::new())));
    }
    let rest = text.strip_prefix(PREFIX)?.strip_suffix(']')?;
    let (data, rest) = rest.split_once(",iv:")?;
    let (iv, rest) = rest.split_once(",tag:")?;
    let (tag, word) = rest.split_once(",type:")?;
    let (kind, _) = Kind::ALL.into_iter().find(|(_, w)| *w == word)?;
    let mut data = Zeroizing::new(BASE64.decode(data).ok()?);
    let iv = BASE64.decode(iv).ok()?;
    let tag = BASE64.decode(tag).ok()?;
    if tag.len() != TAG_BYTES {
        return None;
    }
    match iv.len() {
        32 => open_with::<U32>(&mut data, key, &iv, &tag, path)?,
        12 => open_with::<U12>(&mut data, key, &iv, &tag, path)?,
        _ => return None,
    }
    Some((kind, data))
}

fn open_with<N: ArrayLength<u8>>(
    data: &mut [u8],
    key: &DataKey,
    iv: &[u8],
    tag: &[u8],
    path: &str,
) -> Option<()> {
    AesGcm::<Aes256, N>::new(GenericArray::from_slice(key.as_slice()))
        .decrypt_in_place_detached(
            GenericArray::from_slice(iv),
            path.as_bytes(),
            data,
            GenericArray::from_slice(tag),
        )
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> (DataKey, String) {
        let key = DataKey::new([7; DATA_KEY_BYTES]);
        let text = seal(Kind::Text, b"a word", &key, &[9; IV_BYTES], "a:").unwrap();
        (key, text)
    }

    /// The parts of a sealed value: data, iv, tag.
    fn with(text: &str, part: &str, bytes: &[u8]) -> String {
        let (before, rest) = text.split_once(part).unwrap();
        let old: String = rest.chars().take_while(|c| !",]".contains(*c)).collect();
        let after = rest.strip_prefix(&old).unwrap();
        format!("{before}{part}{}{after}", BASE64.encode(bytes))
    }

    #[test]
    fn a_tag_or_a_vector_of_another_length_opens_nothing() {
        let (key, text) = sealed();
        let (kind, plain) = open(&text, &key, "a:").unwrap();
        assert_eq!((kind, plain.as_slice()), (Kind::Text, &b"a word"[..]));
        let tag = text.split_once("tag:").unwrap().1;
        let tag = BASE64.decode(tag.split_once(',').unwrap().0).unwrap();
        assert_eq!(with(&text, "tag:", &tag), text);
        // GCM takes shorter tags, which are guessed more easily; none of them may reach it.
        for length in (0..TAG_BYTES).chain([TAG_BYTES + 1, 32]) {
            let mut other = tag.clone();
            other.resize(length, 0);
            assert_eq!(
                open(&with(&text, "tag:", &other), &key, "a:"),
                None,
                "{length}"
            );
        }
        for length in [0, 1, 11, 13, 16, 31, 33] {
            let iv = vec![9; length];
            assert_eq!(open(&with(&text, "iv:", &iv), &key, "a:"), None, "{length}");
        }
        assert_eq!(open(&text, &key, "b:"), None, "it is of another path");
        assert_eq!(open(&text, &DataKey::new([8; DATA_KEY_BYTES]), "a:"), None);
    }

    #[test]
    fn every_kind_is_written_with_its_own_word_and_comes_back() {
        let key = DataKey::new([7; DATA_KEY_BYTES]);
        for (kind, word) in [
            (Kind::Text, "str"),
            (Kind::Int, "int"),
            (Kind::Float, "float"),
            (Kind::Bool, "bool"),
            (Kind::Time, "time"),
            (Kind::Bytes, "bytes"),
            (Kind::Comment, "comment"),
        ] {
            let text = seal(kind, b"1", &key, &[9; IV_BYTES], "a:").unwrap();
            assert!(text.ends_with(&format!(",type:{word}]")), "{text}");
            assert!(is_sealed(&text));
            let (back, plain) = open(&text, &key, "a:").unwrap();
            assert_eq!((back, plain.as_slice()), (kind, &b"1"[..]));
            // The kind is outside of what is authenticated: one that SOPS hasn't got is none.
            let other = text.replace(&format!(",type:{word}]"), ",type:other]");
            assert_eq!(open(&other, &key, "a:"), None);
        }
        // What is empty has nothing to hide, and is a text.
        assert_eq!(
            seal(Kind::Text, b"", &key, &[9; IV_BYTES], "a:").unwrap(),
            ""
        );
        let (kind, plain) = open("", &key, "a:").unwrap();
        assert_eq!((kind, plain.as_slice()), (Kind::Text, &b""[..]));
        for text in ["ENC[AES256_GCM,data:x", "data:x]", "]", "word"] {
            assert!(!is_sealed(text), "{text}");
            assert_eq!(open(text, &key, "a:"), None, "{text}");
        }
    }

    #[test]
    fn a_vector_of_twelve_bytes_is_read_as_the_first_releases_wrote_it() {
        let (key, path) = (DataKey::new([7; DATA_KEY_BYTES]), "a:");
        let iv = [3_u8; 12];
        let mut data = b"a word".to_vec();
        let tag = AesGcm::<Aes256, U12>::new(GenericArray::from_slice(key.as_slice()))
            .encrypt_in_place_detached(GenericArray::from_slice(&iv), path.as_bytes(), &mut data)
            .unwrap();
        let [data, iv, tag] = [&data[..], &iv, tag.as_slice()].map(|part| BASE64.encode(part));
        let text = format!("{PREFIX}{data},iv:{iv},tag:{tag},type:str]");
        let (kind, plain) = open(&text, &key, path).unwrap();
        assert_eq!((kind, plain.as_slice()), (Kind::Text, &b"a word"[..]));
        assert_eq!(open(&text, &key, "b:"), None, "it is of another path");
    }

    #[test]
    fn numbers_that_are_none_are_no_values() {
        for text in [
            "inf", "-inf", "+inf", "infinity", "NaN", "nan", "-nan", "1e400", "-1e999",
        ] {
            assert!(value_of(Kind::Float, text.as_bytes()).is_none(), "{text}");
        }
        for text in ["", "x", "1,5", "0x10", " 1"] {
            assert!(value_of(Kind::Float, text.as_bytes()).is_none(), "{text:?}");
        }
        for (text, number) in [("1.5", 1.5), ("-0.25", -0.25), ("1e3", 1000.0)] {
            assert_eq!(
                value_of(Kind::Float, text.as_bytes()),
                Some(Value::Float(number))
            );
        }
        for text in ["", "1.5", "x", "9223372036854775808"] {
            assert!(value_of(Kind::Int, text.as_bytes()).is_none(), "{text:?}");
        }
        assert_eq!(value_of(Kind::Int, b"-3"), Some(Value::Int(-3)));
        for (text, truth) in [
            ("True", Some(true)),
            ("f", Some(false)),
            ("yes", None),
            ("", None),
        ] {
            assert_eq!(
                value_of(Kind::Bool, text.as_bytes()),
                truth.map(Value::Bool),
                "{text}"
            );
        }
        assert!(value_of(Kind::Text, &[0xff]).is_none(), "it is no text");
        assert!(
            value_of(Kind::Comment, b"a").is_none(),
            "a comment is no value"
        );
    }
}
