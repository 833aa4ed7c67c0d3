//! Reading the head of a request.

use crate::http::{MAX_HEAD_BYTES, MAX_HEADERS};

/// The methods that something here answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// Any other.
    Other(String),
}

impl Method {
    /// The method's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Other(name) => name,
        }
    }
}

/// A byte range that was asked for (RFC 9110, section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From an offset to another, both included, or to the end.
    From(u64, Option<u64>),
    /// The last bytes.
    Last(u64),
}

/// The part of a file that answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// `bytes` bytes from `offset`.
    Slice {
        /// The first byte.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// The range begins behind the end.
    Unsatisfiable,
}

impl ByteRange {
    /// The part of a file of `file_bytes` bytes.
    pub fn of(self, file_bytes: u64) -> Part {
        match self {
            Self::From(first, _) if first >= file_bytes => Part::Unsatisfiable,
            Self::From(first, last) => {
                let last = last.unwrap_or(u64::MAX).min(file_bytes - 1);
                Part::Slice {
                    offset: first,
                    bytes: last - first + 1,
                }
            }
            Self::Last(0) => Part::Unsatisfiable,
            Self::Last(_) if file_bytes == 0 => Part::Unsatisfiable,
            Self::Last(count) => {
                let bytes = count.min(file_bytes);
                Part::Slice {
                    offset: file_bytes - bytes,
                    bytes,
                }
            }
        }
    }
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The path, decoded, with its leading slash.
    pub path: String,
    /// The query, decoded, in pairs.
    pub query: Vec<(String, String)>,
    /// The path and the query as they came.
    pub target: String,
    /// Whether the connection is kept after the answer.
    pub keep_alive: bool,
    /// The range that was asked for, if it is a single one.
    pub range: Option<ByteRange>,
    /// The length of the body, in bytes.
    pub body_bytes: u64,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The length of this head, in bytes.
    pub head_bytes: usize,
}

/// Why a head can't be answered as it should; the connection is closed after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// 400: it breaks the protocol's rules.
    #[error("the request is malformed")]
    Malformed,
    /// 411: its body has no length.
    #[error("a body needs a Content-Length")]
    LengthRequired,
    /// 417: it expects what isn't done here.
    #[error("the expectation can't be met")]
    Expectation,
    /// 431: it is too long or has too many fields.
    #[error("the request's head is too large")]
    TooLarge,
}

impl HeadError {
    /// The status code.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::LengthRequired => 411,
            Self::Expectation => 417,
            Self::TooLarge => 431,
        }
    }
}

/// Reads a head from the front of what a client has sent so far; `None` where its end has not
/// come yet.
///
/// # Errors
/// When it can't be answered as it should.
pub fn parse_head(bytes: &[u8]) -> Result<Option<RequestHead>, HeadError> {
    let looked_at = bytes.get(..MAX_HEAD_BYTES).unwrap_or(bytes);
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let head_bytes = match request.parse(looked_at) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(HeadError::TooLarge);
        }
        Err(_) => return Err(HeadError::Malformed),
    };
    let mut head = read_target(
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    )?;
    head.head_bytes = head_bytes;
    // HTTP/1.1 keeps a connection unless told otherwise, HTTP/1.0 only when asked.
    head.keep_alive = request.version == Some(1);
    read_fields(&mut head, request.headers, request.version == Some(1))?;
    Ok(Some(head))
}

fn read_target(method: &str, target: &str) -> Result<RequestHead, HeadError> {
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        other => Method::Other(other.to_owned()),
    };
    // The absolute form, http://host/path, must be understood (RFC 9112, section 3.2.2).
    let target = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest
            .find('/')
            .and_then(|slash| rest.get(slash..))
            .unwrap_or("/"),
        _ => target,
    };
    if !target.starts_with('/') {
        return Err(HeadError::Malformed);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decode = |text: &str| percent_decode(text).ok_or(HeadError::Malformed);
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decode(key)?, decode(value)?));
    }
    Ok(RequestHead {
        method,
        path: decode(path)?,
        query: pairs,
        target: target.to_owned(),
        keep_alive: true,
        range: None,
        body_bytes: 0,
        expects_continue: false,
        head_bytes: 0,
    })
}

fn read_fields(
    head: &mut RequestHead,
    fields: &[httparse::Header<'_>],
    is_http_1_1: bool,
) -> Result<(), HeadError> {
    let mut body_bytes = None;
    let mut hosts = 0;
    let mut if_range = false;
    for field in fields {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        match field.name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" => {
                if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(HeadError::Malformed);
                }
                let bytes: u64 = value.parse().map_err(|_| HeadError::Malformed)?;
                // Two lengths that differ are an attack on whoever reads the other one.
                if body_bytes
                    .replace(bytes)
                    .is_some_and(|first| first != bytes)
                {
                    return Err(HeadError::Malformed);
                }
            }
            "transfer-encoding" => return Err(HeadError::LengthRequired),
            "connection" => {
                for token in value.split(',').map(str::trim) {
                    if token.eq_ignore_ascii_case("close") {
                        head.keep_alive = false;
                    } else if token.eq_ignore_ascii_case("keep-alive") && !is_http_1_1 {
                        head.keep_alive = true;
                    }
                }
            }
            "range" => head.range = parse_range(value),
            "if-range" => if_range = true,
            "expect" => {
                if !value.eq_ignore_ascii_case("100-continue") {
                    return Err(HeadError::Expectation);
                }
                head.expects_continue = true;
            }
            _ => {}
        }
    }
    // RFC 9112, section 3.2: exactly one Host in HTTP/1.1.
    if is_http_1_1 && hosts != 1 {
        return Err(HeadError::Malformed);
    }
    if if_range {
        // We give out no validators, so none can match, and the whole file is the answer.
        head.range = None;
    }
    head.body_bytes = body_bytes.unwrap_or(0);
    Ok(())
}

/// Reads a `Range` field. Several ranges, another unit or nonsense count as none, and the whole
/// file is the answer (RFC 9110, section 14.2, allows that).
fn parse_range(value: &str) -> Option<ByteRange> {
    let spec = value.strip_prefix("bytes=")?.trim();
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (first, last) {
        ("", last) => number(last).map(ByteRange::Last),
        (first, "") => number(first).map(|first| ByteRange::From(first, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(ByteRange::From(first, Some(last)))
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: u8| char::from(b).to_digit(16);
        let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
        bytes.push(u8::try_from(value).ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> RequestHead {
        parse_head(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_request_of_ipxe() {
        let head = head(
            "GET /boot.ipxe?mac=52%3a54-00&uuid=&arch=7 HTTP/1.1\r\nUser-Agent: iPXE\r\nHost: x:8080\r\nConnection: keep-alive\r\n\r\n",
        );
        assert_eq!(
            (head.method, head.path.as_str(), head.keep_alive),
            (Method::Get, "/boot.ipxe", true)
        );
        let pairs: Vec<_> = head.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["mac=52:54-00", "uuid=", "arch=7"]);
    }

    #[test]
    fn what_closes_and_what_keeps() {
        assert!(head("GET / HTTP/1.1\r\nHost: x\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(head("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn heads_that_are_refused() {
        for (text, error) in [
            ("GET x HTTP/1.1\r\nHost: x\r\n\r\n", HeadError::Malformed),
            ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", HeadError::Malformed),
            (
                "GET /a%00 HTTP/1.1\r\nHost: x\r\n\r\n",
                HeadError::Malformed,
            ),
            ("GET / HTTP/1.1\r\n\r\n", HeadError::Malformed),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
                HeadError::Malformed,
            ),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
                HeadError::Malformed,
            ),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                HeadError::Malformed,
            ),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadError::LengthRequired,
            ),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n",
                HeadError::Expectation,
            ),
        ] {
            assert_eq!(parse_head(text.as_bytes()), Err(error), "{text}");
        }
        let endless = format!("GET /{}", "a".repeat(MAX_HEAD_BYTES));
        assert_eq!(parse_head(endless.as_bytes()), Err(HeadError::TooLarge));
        let fields = "A: b\r\n".repeat(MAX_HEADERS + 1);
        assert_eq!(
            parse_head(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()),
            Err(HeadError::TooLarge)
        );
    }

    #[test]
    fn ranges() {
        let part = |range: &str, bytes| parse_range(range).map(|r| r.of(bytes));
        let slice = |offset, bytes| Some(Part::Slice { offset, bytes });
        assert_eq!(part("bytes=0-0", 10), slice(0, 1));
        assert_eq!(part("bytes=5-", 10), slice(5, 5));
        assert_eq!(part("bytes=5-99999999999999999999999", 10), slice(5, 5));
        assert_eq!(part("bytes=-3", 10), slice(7, 3));
        assert_eq!(part("bytes=-30", 10), slice(0, 10));
        assert_eq!(part("bytes=10-", 10), Some(Part::Unsatisfiable));
        assert_eq!(part("bytes=-0", 10), Some(Part::Unsatisfiable));
        assert_eq!(part("bytes=0-", 0), Some(Part::Unsatisfiable));
        for none in [
            "bytes=5-2",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=a-b",
            "bytes=-",
        ] {
            assert_eq!(part(none, 10), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_head_or_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_head(&bytes);
        }

        #[test]
        fn a_slice_lies_within_its_file(first in any::<u64>(), last in any::<Option<u64>>(), bytes in 0u64..1000) {
            prop_assume!(last.is_none_or(|last| first <= last));
            for range in [ByteRange::From(first % 2000, last.map(|l| l.max(first % 2000))), ByteRange::Last(first % 2000)] {
                if let Part::Slice { offset, bytes: len } = range.of(bytes) {
                    prop_assert!(len > 0 && offset + len <= bytes);
                }
            }
        }

        #[test]
        fn a_head_is_the_same_in_one_piece_and_in_two(cut in 0usize..120) {
            let text = b"GET /artifacts/x HTTP/1.1\r\nHost: x\r\nRange: bytes=1-2\r\n\r\nrest";
            let cut = cut.min(text.len());
            let first = parse_head(&text[..cut]).unwrap();
            let whole = parse_head(text).unwrap().unwrap();
            prop_assert!(first.is_none_or(|head| head == whole));
        }
    }
}
