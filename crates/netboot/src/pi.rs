//! How a Raspberry Pi's boot ROM shows itself in DHCP and TFTP.
//!
//! Source: the Raspberry Pi documentation, "Raspberry Pi boot EEPROM" (settings `DHCP_OPTION97`,
//! `PXE_OPTION43` and `TFTP_PREFIX`), and raspberrypi/rpi-eeprom issues 82 and 103.

use serde::{Deserialize, Serialize};
use undercroft_model::MacAddr;

/// The address prefixes that Raspberry Pi boards carry (IEEE's registry).
const OUIS: [[u8; 3]; 7] = [
    [0xb8, 0x27, 0xeb],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x28, 0xcd, 0xc1],
    [0xd8, 0x3a, 0xdd],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];

/// Whether an address belongs to the Raspberry Pi's makers.
pub fn is_pi_mac(mac: MacAddr) -> bool {
    let [a, b, c, ..] = mac.0;
    OUIS.contains(&[a, b, c])
}

/// What option 97 of a Raspberry Pi says: `RPi4` or `RPi5`, the board's revision, the low half of
/// its Ethernet address and its serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PiIdent {
    /// The digit after `RPi`: 4 or 5; `None` where an old EEPROM sends only its serial number.
    pub model: Option<u8>,
    /// The board's revision code; `None` where an old EEPROM sends only its serial number.
    pub revision: Option<u32>,
    /// The low 32 bits of the serial number; TFTP paths begin with them as eight hex digits.
    pub serial: u32,
}

impl PiIdent {
    /// Reads the 16 octets of option 97 that follow its type octet. All fields are little-endian.
    /// `mac` is the client's: the old form, the serial number four times over, is believed only
    /// of an address that belongs to a Raspberry Pi.
    pub fn parse(octets: &[u8; 16], mac: MacAddr) -> Option<Self> {
        let word = |i: usize| {
            octets
                .get(i * 4..i * 4 + 4)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_le_bytes)
        };
        let (first, second, third, serial) = (word(0)?, word(1)?, word(2)?, word(3)?);
        if octets.starts_with(b"RPi") {
            let model = octets.get(3).filter(|b| b.is_ascii_digit())?;
            return Some(Self {
                model: Some(model - b'0'),
                revision: Some(second),
                serial,
            });
        }
        (is_pi_mac(mac) && first == second && second == third && third == serial).then_some(Self {
            model: None,
            revision: None,
            serial,
        })
    }
}

/// Splits a TFTP path such as `a1b2c3d4/config.txt` into the serial number and the rest.
pub fn split_tftp_path(path: &str) -> Option<(u32, &str)> {
    let (prefix, rest) = path.split_once('/')?;
    let plain = prefix.len() == 8 && prefix.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain || rest.is_empty() {
        return None;
    }
    Some((u32::from_str_radix(prefix, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PI: MacAddr = MacAddr([0xdc, 0xa6, 0x32, 1, 2, 3]);
    const PC: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 3]);

    #[test]
    fn option_97_of_new_and_old_eeproms() {
        let mut octets = *b"RPi4\x11\x31\xc0\x00\x32\x01\x02\x03\xd4\xc3\xb2\xa1";
        assert_eq!(
            PiIdent::parse(&octets, PC),
            Some(PiIdent {
                model: Some(4),
                revision: Some(0x00c0_3111),
                serial: 0xa1b2_c3d4
            })
        );
        for chunk in octets.chunks_mut(4) {
            chunk.copy_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
        }
        assert_eq!(PiIdent::parse(&octets, PI).unwrap().serial, 0xa1b2_c3d4);
        assert_eq!(PiIdent::parse(&octets, PC), None);
    }

    #[test]
    fn tftp_paths() {
        assert_eq!(
            split_tftp_path("a1b2c3d4/overlays/x.dtbo"),
            Some((0xa1b2_c3d4, "overlays/x.dtbo"))
        );
        for other in [
            "config.txt",
            "a1b2c3d4/",
            "a1b2c3d/x",
            "+1b2c3d4/x",
            "é1b2c3/x",
        ] {
            assert_eq!(split_tftp_path(other), None, "{other}");
        }
    }

    #[test]
    fn another_form_of_option_97_is_no_pis() {
        let old = |words: [u32; 4]| {
            let mut octets = [0; 16];
            for (chunk, word) in octets.chunks_mut(4).zip(words) {
                chunk.copy_from_slice(&word.to_le_bytes());
            }
            PiIdent::parse(&octets, PI)
        };
        let want = PiIdent {
            model: None,
            revision: None,
            serial: 7,
        };
        assert_eq!(old([7; 4]), Some(want));
        for words in [
            [8, 7, 7, 7],
            [7, 8, 7, 7],
            [7, 7, 8, 7],
            [7, 7, 7, 8],
            [7, 7, 8, 8],
        ] {
            assert_eq!(old(words), None, "{words:?}");
        }
        let new = |model: u8| {
            let mut octets = *b"RPi4\x11\x31\xc0\x00\x32\x01\x02\x03\xd4\xc3\xb2\xa1";
            octets[3] = model;
            PiIdent::parse(&octets, PC).and_then(|pi| pi.model)
        };
        assert_eq!(new(b'5'), Some(5));
        assert_eq!(new(b'0'), Some(0));
        assert_eq!((new(b'x'), new(b'/'), new(b':')), (None, None, None));
        for (first, is_pi) in [(0xdc, true), (0xdd, false)] {
            assert_eq!(is_pi_mac(MacAddr([first, 0xa6, 0x32, 0, 0, 0])), is_pi);
        }
        assert!(!is_pi_mac(MacAddr([0xdc, 0xa6, 0x33, 0, 0, 0])));
    }
}
