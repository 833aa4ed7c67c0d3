//! What a relay says in option 82 (RFC 3046).

use std::net::Ipv4Addr;

/// What a relay says of itself and of the client, as far as an answer hangs on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelayInfo {
    /// The whole option, as the relay wrote it, for the echo.
    pub raw: Vec<u8>,
    /// Sub-option 5: an address of the client's network, where that isn't the relay's own
    /// (RFC 3527).
    pub link: Option<Ipv4Addr>,
    /// Sub-option 11: the address that clients are to take for the server, so that all of their
    /// packets go by the relay (RFC 5107).
    pub server: Option<Ipv4Addr>,
    /// Sub-option 19: answers go to the port that the relay sends from (RFC 8357).
    pub answers_to_source_port: bool,
}

impl RelayInfo {
    /// Reads the option. What is cut off or has another length than its format allows is left
    /// out; it is echoed all the same.
    pub fn parse(raw: &[u8]) -> Self {
        let mut info = Self {
            raw: raw.to_vec(),
            ..Self::default()
        };
        let mut rest = raw;
        while let [code, len, tail @ ..] = rest {
            let Some((value, tail)) = tail.split_at_checked(usize::from(*len)) else {
                break;
            };
            let address = <[u8; 4]>::try_from(value)
                .ok()
                .map(Ipv4Addr::from)
                .filter(|address| !address.is_unspecified() && !address.is_broadcast());
            match code {
                5 => info.link = address.or(info.link),
                11 => info.server = address.filter(|a| !a.is_multicast()).or(info.server),
                19 => info.answers_to_source_port = true,
                _ => {}
            }
            rest = tail;
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sub_options_are_read_and_the_whole_is_kept() {
        let raw = [
            &[1, 4][..],
            b"eth1",
            &[5, 4, 10, 77, 0, 254, 11, 4, 10, 77, 0, 253, 19, 0],
        ]
        .concat();
        let info = RelayInfo::parse(&raw);
        assert_eq!(info.raw, raw);
        assert_eq!(info.link, Some(Ipv4Addr::new(10, 77, 0, 254)));
        assert_eq!(info.server, Some(Ipv4Addr::new(10, 77, 0, 253)));
        assert!(info.answers_to_source_port);
        for bad in [&[5, 3, 1, 2, 3][..], &[5, 9, 1], &[11, 4, 0, 0, 0, 0], &[5]] {
            let info = RelayInfo::parse(bad);
            assert_eq!((info.link, info.server), (None, None), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read(raw in prop::collection::vec(any::<u8>(), 0..255)) {
            prop_assert_eq!(RelayInfo::parse(&raw).raw, raw);
        }
    }
}
