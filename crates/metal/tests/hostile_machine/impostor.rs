//! Something that answers as an SSH server does, up to where a key would be proved (RFC 4253).

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    time::Duration,
};

use undercroft_ssh::HostKey;

const DISCONNECT: u8 = 1;
const KEXINIT: u8 = 20;
/// The server's half of the key exchange: its key and its signature.
const REPLY: u8 = 31;
const PATIENCE: Duration = Duration::from_secs(20);
/// How many connections one impostor takes; a test makes one or two.
const CONNECTIONS_MAX: usize = 4;

/// Where the words are put.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Says {
    /// In lines before the protocol's version.
    Greeting,
    /// In the reason of a disconnect.
    Disconnect,
    /// As the name of a cipher, which the client repeats when it knows none of the offered.
    Ciphers,
}

/// What is done to the packets of a real server.
#[derive(Clone)]
enum Between {
    /// After its key was shown, it breaks off in these words; in none, it lets all pass.
    BreakOff(String),
    /// The key that it shows is exchanged for this one, in the form of the wire.
    Key(Vec<u8>),
}

/// A listener of loopback, which ends with the test.
pub(crate) struct Impostor {
    pub(crate) port: u16,
}

fn listen(each: impl Fn(TcpStream) -> io::Result<()> + Send + 'static) -> Impostor {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(CONNECTIONS_MAX).flatten() {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = each(stream);
        }
    });
    Impostor { port }
}

impl Impostor {
    /// Answers by itself.
    pub(crate) fn start(says: Says, words: &str) -> Self {
        let words = words.to_owned();
        listen(move |stream| answer(stream, says, &words))
    }

    /// Stands before a real server.
    pub(crate) fn between(server: u16, words: &str) -> Self {
        let how = Between::BreakOff(words.to_owned());
        listen(move |stream| stand_between(stream, server, &how))
    }

    /// Stands before a real server, and shows another's key instead of its own.
    pub(crate) fn with_key(server: u16, key: &HostKey) -> Self {
        let text = key.to_string();
        let blob = text.split_whitespace().nth(1).unwrap();
        let blob = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, blob);
        let how = Between::Key(blob.unwrap());
        listen(move |stream| stand_between(stream, server, &how))
    }
}

fn answer(mut stream: TcpStream, says: Says, words: &str) -> io::Result<()> {
    if let Says::Greeting = says {
        stream.write_all(words.as_bytes())?;
        stream.write_all(b"\r\n")?;
        return stream.shutdown(Shutdown::Both);
    }
    stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n")?;
    read_line(&mut stream)?;
    let payload = match says {
        Says::Ciphers => key_exchange_offer(words),
        _ => disconnect(words),
    };
    stream.write_all(&packet(&payload))?;
    // Until the client has read it: closing with unread bytes would take it back.
    let mut rest = Vec::new();
    let _ = stream.take(64 * 1024).read_to_end(&mut rest);
    Ok(())
}

fn stand_between(mut client: TcpStream, port: u16, how: &Between) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let version = read_line(&mut server)?;
    client.write_all(&version)?;
    loop {
        let (whole, payload) = read_packet(&mut server)?;
        if payload.first() != Some(&REPLY) {
            client.write_all(&whole)?;
            continue;
        }
        match how {
            Between::BreakOff(words) if words.is_empty() => client.write_all(&whole)?,
            Between::BreakOff(words) => {
                client.write_all(&whole)?;
                client.write_all(&packet(&disconnect(words)))?;
            }
            Between::Key(key) => client.write_all(&packet(&with_key(&payload, key)))?,
        }
        break;
    }
    if !matches!(how, Between::BreakOff(words) if !words.is_empty()) {
        io::copy(&mut server, &mut client)?;
    }
    client.shutdown(Shutdown::Write)
}

/// The same reply with another key.
fn with_key(payload: &[u8], key: &[u8]) -> Vec<u8> {
    let length = u32::from_be_bytes(payload[1..5].try_into().unwrap());
    let mut out = vec![REPLY];
    string(&mut out, key);
    out.extend(&payload[5 + usize::try_from(length).unwrap()..]);
    out
}

fn read_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 255 && line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(line)
}

/// A packet before encryption, and what is in it.
fn read_packet(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut whole = vec![0; 4];
    stream.read_exact(&mut whole)?;
    let length = u32::from_be_bytes([whole[0], whole[1], whole[2], whole[3]]);
    let length = usize::try_from(length.min(256 * 1024)).unwrap();
    whole.resize(4 + length, 0);
    stream.read_exact(&mut whole[4..])?;
    let padding = usize::from(whole[4]);
    let payload = whole[5..whole.len() - padding].to_vec();
    Ok((whole, payload))
}

fn packet(payload: &[u8]) -> Vec<u8> {
    let mut padding = 8 - (payload.len() + 5) % 8;
    if padding < 4 {
        padding += 8;
    }
    let mut out = u32::try_from(payload.len() + padding + 1)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    out.push(u8::try_from(padding).unwrap());
    out.extend(payload);
    out.resize(out.len() + padding, 0);
    out
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text);
}

fn disconnect(words: &str) -> Vec<u8> {
    let mut out = vec![DISCONNECT];
    out.extend(2_u32.to_be_bytes());
    string(&mut out, words.as_bytes());
    string(&mut out, b"");
    out
}

fn key_exchange_offer(cipher: &str) -> Vec<u8> {
    let mut out = vec![KEXINIT];
    out.extend([7; 16]);
    let lists = [
        "curve25519-sha256",
        "ssh-ed25519",
        cipher,
        cipher,
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ];
    for list in lists {
        string(&mut out, list.as_bytes());
    }
    out.push(0);
    out.extend(0_u32.to_be_bytes());
    out
}
