//! Names and addresses that carry their own proof of being well formed.

use std::{cmp::Ordering, fmt, marker::PhantomData, mem, str::FromStr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::Visitor};

/// Why a text is no value of one of this module's types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidId {
    /// The text as it was given, at most its first 80 characters.
    pub text: String,
    /// What was expected, with its article: "a DNS label (…)".
    pub expected: &'static str,
}

impl InvalidId {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.chars().take(80).collect(),
            expected,
        }
    }
}

/// Whether a text is a DNS label: 1 to 63 of a-z, 0-9 and `-`, with no `-` at either end
/// (RFC 1123, section 2.1, in lower case as Kubernetes asks of node names).
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

/// Reads a text as a value, without a copy of the text.
struct Parsed<T>(PhantomData<T>);

impl<T: FromStr<Err = InvalidId>> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// The bytes of the longest text that [`hexadecimal`] writes: a UUID has 16 octets and 4 separators.
const HEXADECIMAL_BYTES_MAX: usize = 36;

/// Writes octets as two hexadecimal digits each, with a separator before those at the given places.
fn hexadecimal(
    f: &mut fmt::Formatter<'_>,
    octets: &[u8],
    separator: u8,
    before: impl Fn(usize) -> bool,
) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    // Identities are written millions of times in a rehearsal, so nothing is allocated: the longest is a UUID.
    let mut text = [0_u8; HEXADECIMAL_BYTES_MAX];
    let mut left = text.as_mut_slice();
    for (i, octet) in octets.iter().enumerate() {
        if before(i)
            && let Some((place, behind)) = mem::take(&mut left).split_first_mut()
        {
            *place = separator;
            left = behind;
        }
        if let Some((places, behind)) = mem::take(&mut left).split_first_chunk_mut() {
            *places = [digit(octet >> 4), digit(octet & 0x0f)];
            left = behind;
        }
    }
    let length = HEXADECIMAL_BYTES_MAX - left.len();
    let text = text.get(..length).unwrap_or_default();
    f.pad(std::str::from_utf8(text).unwrap_or_default())
}

macro_rules! label_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        /// A copy shares its text.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a DNS label.
            ///
            /// # Errors
            /// When the text is no DNS label; see [`is_dns_label`].
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidId> {
                let text = text.into();
                if is_dns_label(&text) {
                    Ok(Self(text))
                } else {
                    Err(InvalidId::new(
                        &text,
                        "a DNS label (1 to 63 of a-z, 0-9 and '-', not at the ends)",
                    ))
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) {
                    return Ordering::Equal;
                }
                self.0.cmp(&other.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Parsed(PhantomData))
            }
        }
    };
}

label_type! {
    /// A machine of the cluster, as `[nodes.NAME]` names it.
    NodeName
}
label_type! {
    /// A class of machines, as `[classes.NAME]` names it.
    ClassName
}
label_type! {
    /// A developer's PC, as `[pcs.NAME]` names it.
    PcName
}
label_type! {
    /// A person, as `[users.NAME]` names it.
    UserName
}
label_type! {
    /// A machine that lends: a PC, a phone, a board.
    DeviceName
}
label_type! {
    /// A kind of machine that lends, such as `pc` or `phone`.
    DeviceClass
}
label_type! {
    /// Work that is lent: its name stands in a subject and in a key of NATS.
    JobId
}
label_type! {
    /// Who has work done.
    Tenant
}
label_type! {
    /// Who brings work, as `[lending.submitters.NAME]` names them.
    SubmitterName
}
label_type! {
    /// Something that work needs of a device and a device says it has, such as `gpu`.
    Feature
}

/// An Ethernet address, printed as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Whether the address names a group of machines rather than one (IEEE 802: the lowest bit
    /// of the first octet).
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(f, &self.0, b':', |i| i > 0)
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = InvalidId;

    /// Reads six two-digit hexadecimal octets, separated by `:` or by `-` throughout.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId::new(text, "an Ethernet address such as 52:54:00:12:34:56");
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0u8; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(invalid)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            Err(invalid())
        } else {
            Ok(Self(octets))
        }
    }
}

/// An SMBIOS UUID, kept and printed in lower case with hyphens.
///
/// The order of the octets is that of the printed form; DHCP's option 97 carries the first three
/// fields in little-endian order on most firmware (SMBIOS 3.7, section 7.2.1), which is the
/// netboot crate's business.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineUuid(pub [u8; 16]);

impl MachineUuid {
    /// Whether all octets are 0x00 or all are 0xff, which SMBIOS defines as "not set".
    pub fn is_unset(self) -> bool {
        self.0.iter().all(|b| *b == 0) || self.0.iter().all(|b| *b == 0xff)
    }
}

impl fmt::Display for MachineUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(f, &self.0, b'-', |i| matches!(i, 4 | 6 | 8 | 10))
    }
}

impl fmt::Debug for MachineUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MachineUuid {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid =
            || InvalidId::new(text, "a UUID such as 7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3d");
        let well_formed = text.len() == 36
            && text.bytes().enumerate().all(|(i, b)| match i {
                8 | 13 | 18 | 23 => b == b'-',
                _ => b.is_ascii_hexdigit(),
            });
        if !well_formed {
            return Err(invalid());
        }
        let mut digits = text.chars().filter_map(|c| c.to_digit(16));
        let mut digit = || digits.next().and_then(|d| u8::try_from(d).ok());
        let mut octets = [0u8; 16];
        for octet in &mut octets {
            let (Some(high), Some(low)) = (digit(), digit()) else {
                return Err(invalid());
            };
            *octet = high << 4 | low;
        }
        Ok(Self(octets))
    }
}

macro_rules! text_serde {
    ($name:ident, $format:literal, $pattern:literal) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Parsed(PhantomData))
            }
        }
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format, "pattern": $pattern })
            }
        }
    };
}

text_serde!(MacAddr, "mac", "^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$");
text_serde!(
    MachineUuid,
    "uuid",
    "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
);

/// The processor and operating system of a machine, in Nix's words.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum System {
    /// 64-bit x86 Linux.
    #[serde(rename = "x86_64-linux")]
    X86_64Linux,
    /// 64-bit Arm Linux.
    #[serde(rename = "aarch64-linux")]
    Aarch64Linux,
    /// 64-bit x86 macOS; developer PCs only.
    #[serde(rename = "x86_64-darwin")]
    X86_64Darwin,
    /// 64-bit Arm macOS; developer PCs only.
    #[serde(rename = "aarch64-darwin")]
    Aarch64Darwin,
}

impl System {
    /// Nix's name of the system.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64Linux => "x86_64-linux",
            Self::Aarch64Linux => "aarch64-linux",
            Self::X86_64Darwin => "x86_64-darwin",
            Self::Aarch64Darwin => "aarch64-darwin",
        }
    }

    /// The serial port that is the console of QEMU's machine for that processor, as Linux names it.
    pub fn serial_console(self) -> &'static str {
        match self {
            Self::X86_64Linux | Self::X86_64Darwin => "ttyS0",
            Self::Aarch64Linux | Self::Aarch64Darwin => "ttyAMA0",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "gpu-01", "0", &"a".repeat(63)] {
            assert!(NodeName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "GPU", "a.b", "a_b", "é", &"a".repeat(64)] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mac_reads_what_it_prints_and_refuses_the_rest() {
        let mac: MacAddr = "52-54-00-AB-cd-0f".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:0f");
        assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
        for bad in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:0f:00",
            "52:54-00:ab:cd:0f",
            "+2:54:00:ab:cd:0f",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_uuid_reads_what_it_prints_and_refuses_the_rest() {
        let text = "7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3d";
        let uuid: MachineUuid = text.to_uppercase().parse().unwrap();
        assert_eq!(uuid.to_string(), text);
        assert!(
            "7d4b1c1e8f4e4a539c340d7a3e1b2c3d"
                .parse::<MachineUuid>()
                .is_err()
        );
        assert!(
            "7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3é"
                .parse::<MachineUuid>()
                .is_err()
        );
        assert!(MachineUuid([0xff; 16]).is_unset() && !uuid.is_unset());
    }
}
