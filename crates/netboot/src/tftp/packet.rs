//! Reading and writing TFTP packets.

use crate::event::DropReason;
use crate::tftp::MAX_REQUEST_BYTES;

/// The error codes of RFC 1350, and RFC 2347's eighth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    /// See the message.
    NotDefined = 0,
    /// No such file.
    NotFound = 1,
    /// Not allowed.
    AccessViolation = 2,
    /// Not an operation that is known or fits here.
    IllegalOperation = 4,
    /// Not the port of this transfer.
    UnknownTransfer = 5,
}

impl ErrorCode {
    fn number(self) -> u16 {
        match self {
            Self::NotDefined => 0,
            Self::NotFound => 1,
            Self::AccessViolation => 2,
            Self::IllegalOperation => 4,
            Self::UnknownTransfer => 5,
        }
    }
}

/// A read request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadRequest {
    /// The path, without leading slashes.
    pub path: String,
    /// `blksize`, in bytes.
    pub block_bytes: Option<u64>,
    /// `timeout`, in seconds.
    pub timeout_s: Option<u64>,
    /// `tsize` was asked for.
    pub wants_size: bool,
    /// `windowsize`, in blocks.
    pub window_blocks: Option<u64>,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientPacket {
    /// RRQ.
    Read(ReadRequest),
    /// RRQ in a mode other than `octet`.
    ReadOtherMode(String),
    /// WRQ.
    Write(String),
    /// ACK of a block's number.
    Ack(u16),
    /// ERROR: the client ends the transfer.
    Error {
        /// Its code.
        code: u16,
        /// Its message, cleaned of control characters.
        message: String,
    },
}

/// Reads a packet from a client.
///
/// # Errors
/// Says why the packet is not to be answered.
pub fn parse(packet: &[u8]) -> Result<ClientPacket, DropReason> {
    if packet.len() > MAX_REQUEST_BYTES {
        return Err(DropReason::Oversized);
    }
    let [high, low, rest @ ..] = packet else {
        return Err(DropReason::Truncated);
    };
    match u16::from_be_bytes([*high, *low]) {
        1 => read_request(rest),
        2 => Ok(ClientPacket::Write(readable(cut(rest).0))),
        4 => match rest {
            [high, low, ..] => Ok(ClientPacket::Ack(u16::from_be_bytes([*high, *low]))),
            _ => Err(DropReason::Truncated),
        },
        5 => match rest {
            [high, low, message @ ..] => Ok(ClientPacket::Error {
                code: u16::from_be_bytes([*high, *low]),
                message: readable(cut(message).0),
            }),
            _ => Err(DropReason::Truncated),
        },
        3 | 6 => Err(DropReason::NotARequest),
        _ => Err(DropReason::Malformed),
    }
}

/// Splits at the first NUL; the second part is `None` where there is none.
fn cut(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|b| *b == 0) {
        Some(end) => {
            let (text, rest) = bytes.split_at(end);
            (text, rest.split_first().map(|(_, rest)| rest))
        }
        None => (bytes, None),
    }
}

fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn read_request(rest: &[u8]) -> Result<ClientPacket, DropReason> {
    let (path, rest) = cut(rest);
    let (mode, rest) = cut(rest.ok_or(DropReason::Truncated)?);
    let mut rest = rest.ok_or(DropReason::Truncated)?;
    // Firmware that takes the file's name from option 67 sends what lies behind it too: 0xff.
    let end = path
        .iter()
        .rposition(|b| *b != 0xff)
        .map_or(0, |last| last + 1);
    let path = path.get(..end).unwrap_or_default();
    let path = std::str::from_utf8(path)
        .ok()
        .filter(|path| !path.chars().any(char::is_control))
        .ok_or(DropReason::Malformed)?
        .trim_start_matches('/');
    if path.is_empty() {
        return Err(DropReason::Malformed);
    }
    if !mode.eq_ignore_ascii_case(b"octet") {
        return Ok(ClientPacket::ReadOtherMode(path.to_owned()));
    }
    let mut request = ReadRequest {
        path: path.to_owned(),
        ..ReadRequest::default()
    };
    // Options come in pairs, each part ended by a NUL. What lies behind the last whole pair is
    // left alone: some boot ROMs fill their packets up.
    while let (name, Some(tail)) = cut(rest) {
        let (value, Some(tail)) = cut(tail) else {
            break;
        };
        rest = tail;
        // RFC 2347: an option whose value makes no sense is left out of the answer.
        let number = std::str::from_utf8(value)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse::<u64>().ok());
        match name.to_ascii_lowercase().as_slice() {
            b"blksize" => request.block_bytes = number.filter(|n| (8..=65_464).contains(n)),
            b"timeout" => request.timeout_s = number.filter(|n| (1..=255).contains(n)),
            b"tsize" => request.wants_size = number.is_some(),
            b"windowsize" => request.window_blocks = number.filter(|n| (1..=65_535).contains(n)),
            _ => {}
        }
    }
    Ok(ClientPacket::Read(request))
}

/// Writes an option acknowledgement.
pub fn option_ack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut packet = vec![0, 6];
    for (name, value) in options {
        packet.extend_from_slice(name.as_bytes());
        packet.push(0);
        packet.extend_from_slice(value.to_string().as_bytes());
        packet.push(0);
    }
    packet
}

/// Writes an error.
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut packet = vec![0, 5];
    packet.extend_from_slice(&code.number().to_be_bytes());
    packet.extend(message.bytes().filter(|b| *b != 0));
    packet.push(0);
    packet
}

/// Writes the header of a data block into the front of a buffer that holds its payload.
pub fn data_header(block: u64) -> [u8; 4] {
    // Numbers have 16 bits and roll over to 0.
    let [.., high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> ReadRequest {
        match parse(bytes) {
            Ok(ClientPacket::Read(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_are_read_whatever_their_case_and_order() {
        let request = read(
            b"\0\x01ipxe.efi\0Octet\0TSIZE\x000\0blksize\x001468\0WindowSize\x0064\0timeout\x003\0",
        );
        assert_eq!(
            request,
            ReadRequest {
                path: "ipxe.efi".into(),
                block_bytes: Some(1468),
                timeout_s: Some(3),
                wants_size: true,
                window_blocks: Some(64),
            }
        );
    }

    #[test]
    fn senseless_options_are_left_out() {
        let request =
            read(b"\0\x01/a\0octet\0blksize\x007\0windowsize\x000\0timeout\x00256\0tsize\0x\0blk");
        assert_eq!(
            request,
            ReadRequest {
                path: "a".into(),
                ..ReadRequest::default()
            }
        );
    }

    #[test]
    fn a_name_with_padding_from_option_67_is_trimmed() {
        assert_eq!(read(b"\0\x01ipxe.efi\xff\xff\0octet\0").path, "ipxe.efi");
    }

    #[test]
    fn the_rest_is_refused() {
        assert_eq!(parse(b""), Err(DropReason::Truncated));
        assert_eq!(parse(b"\0\x01a"), Err(DropReason::Truncated));
        assert_eq!(parse(b"\0\x01a\0octet"), Err(DropReason::Truncated));
        assert_eq!(parse(b"\0\x01\0octet\0"), Err(DropReason::Malformed));
        assert_eq!(parse(b"\0\x01a\nb\0octet\0"), Err(DropReason::Malformed));
        assert_eq!(parse(b"\0\x03\0\x01x"), Err(DropReason::NotARequest));
        assert_eq!(parse(b"\0\x09"), Err(DropReason::Malformed));
        assert_eq!(parse(&[0; 513]), Err(DropReason::Oversized));
        assert_eq!(
            parse(b"\0\x01a\0netascii\0"),
            Ok(ClientPacket::ReadOtherMode("a".into()))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn requests_read_back(path in "[a-z0-9./-]{1,60}", block in 8u64..65_464, window in 1u64..65_535) {
            prop_assume!(!path.trim_start_matches('/').is_empty());
            let bytes = [b"\0\x01".as_slice(), path.as_bytes(), b"\0octet\0blksize\0", block.to_string().as_bytes(),
                b"\0windowsize\0", window.to_string().as_bytes(), b"\0"].concat();
            let request = read(&bytes);
            prop_assert_eq!(request.path.as_str(), path.trim_start_matches('/'));
            prop_assert_eq!(request.block_bytes, Some(block));
            prop_assert_eq!(request.window_blocks, Some(window));
        }
    }
}
