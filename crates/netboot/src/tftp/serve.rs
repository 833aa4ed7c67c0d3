//! TFTP's sockets: one that listens, and one for each transfer.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::decision::{BootAction, BootProtocol, BootRequest, decide};
use crate::event::{DropReason, EventKind, Service};
use crate::server::shared::{About, Shared};
use crate::server::sockets;
use crate::tftp::packet::{ClientPacket, ErrorCode, ReadRequest, data_header, error, parse};
use crate::tftp::transfer::{Step, Transfer};
use crate::tftp::{MAX_FILE_BYTES, MAX_REQUEST_BYTES, MAX_TRANSFERS};

/// The longest that a transfer may take. The slowest client that is worth waiting for, a
/// Raspberry Pi's boot ROM with 1.7 MB/s, fetches 6 GB in it.
const MAX_TRANSFER: Duration = Duration::from_secs(3600);
/// How much of a file is read at once, in bytes.
const READ_AHEAD_BYTES: usize = 256 << 10;

/// The clients with a transfer under way. A boot ROM repeats its request, from the same port,
/// until the first answer has reached it.
type Active = Arc<Mutex<BTreeSet<SocketAddrV4>>>;

pub(crate) async fn serve(socket: UdpSocket, interface: String, shared: Arc<Shared>) {
    let interface: Arc<str> = interface.into();
    let active: Active = Arc::default();
    let mut transfers = JoinSet::new();
    let mut stop = shared.stop.clone();
    let mut buffer = [0; MAX_REQUEST_BYTES + 1];
    loop {
        let received = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some(_) = transfers.join_next() => continue,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error here is the echo of a refused packet (ICMP), and concerns no one any more.
        let Ok((len, SocketAddr::V4(client))) = received else {
            continue;
        };
        let packet = buffer.get(..len).unwrap_or_default();
        let about = shared.about_address(*client.ip());
        let request = match parse(packet) {
            Ok(ClientPacket::Read(request)) => request,
            Ok(ClientPacket::ReadOtherMode(path)) => {
                let answer = error(ErrorCode::IllegalOperation, "only octet mode is served");
                refuse(
                    &socket,
                    client,
                    &shared,
                    &about,
                    path,
                    "not octet mode",
                    &answer,
                )
                .await;
                continue;
            }
            Ok(ClientPacket::Write(path)) => {
                let answer = error(ErrorCode::AccessViolation, "nothing can be written");
                refuse(
                    &socket,
                    client,
                    &shared,
                    &about,
                    path,
                    "a write request",
                    &answer,
                )
                .await;
                continue;
            }
            Ok(ClientPacket::Ack(_) | ClientPacket::Error { .. }) => {
                shared.drop_packet(&about, Service::Tftp, DropReason::NotForUs);
                continue;
            }
            Err(reason) => {
                shared.drop_packet(&about, Service::Tftp, reason);
                continue;
            }
        };
        if transfers.len() >= MAX_TRANSFERS {
            shared.drop_packet(&about, Service::Tftp, DropReason::TooMany);
            continue;
        }
        let Some(claim) = Claim::new(&active, client) else {
            shared.drop_packet(&about, Service::Tftp, DropReason::Duplicate);
            continue;
        };
        shared.tell(
            &about,
            EventKind::TftpRequest {
                path: request.path.clone(),
            },
        );
        let source = match open(&shared, &about, &request.path) {
            Ok(source) => source,
            Err(why) => {
                let answer = error(ErrorCode::NotFound, "file not found");
                refuse(
                    &socket,
                    client,
                    &shared,
                    &about,
                    request.path,
                    &why,
                    &answer,
                )
                .await;
                continue;
            }
        };
        let shared = shared.clone();
        let interface = interface.clone();
        transfers.spawn(async move {
            let _claim = claim;
            run(&interface, client, &shared, &about, request, source).await;
        });
    }
}

/// A client's place among the transfers under way.
struct Claim {
    active: Active,
    client: SocketAddrV4,
}

impl Claim {
    fn new(active: &Active, client: SocketAddrV4) -> Option<Self> {
        let is_new = active
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(client);
        is_new.then(|| Self {
            active: active.clone(),
            client,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.active
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.client);
    }
}

async fn refuse(
    socket: &UdpSocket,
    client: SocketAddrV4,
    shared: &Shared,
    about: &About,
    path: String,
    reason: &str,
    answer: &[u8],
) {
    // An error packet is sent once and not acknowledged (RFC 1350, section 7).
    let _ = socket.send_to(answer, client).await;
    let reason = reason.to_owned();
    shared.tell(about, EventKind::TftpRefused { path, reason });
}

/// What a transfer reads from.
enum Source {
    Text(Vec<u8>),
    File { file: File, bytes: u64 },
}

impl Source {
    fn bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }
}

fn open(shared: &Shared, about: &About, path: &str) -> Result<Source, String> {
    let decision = {
        let request = BootRequest {
            mac: about.mac,
            path: Some(path),
            ..BootRequest::new(BootProtocol::Tftp)
        };
        decide(&shared.table(), &shared.site, &request)
    };
    let name = match decision.action {
        BootAction::Text(text) => return Ok(Source::Text(text.into_bytes())),
        BootAction::Serve(name) => name,
        _ => return Err(decision.reason.to_string()),
    };
    let path = shared
        .artifacts
        .path(&name)
        .ok_or("there is no such file")?;
    let file = File::open(path).map_err(|e| format!("opening {}: {e}", path.display()))?;
    let bytes = file
        .metadata()
        .map_err(|e| format!("reading {}: {e}", path.display()))?
        .len();
    if bytes > MAX_FILE_BYTES {
        return Err(format!("{bytes} bytes are too many for TFTP"));
    }
    Ok(Source::File { file, bytes })
}

async fn run(
    interface: &str,
    client: SocketAddrV4,
    shared: &Shared,
    about: &About,
    request: ReadRequest,
    source: Source,
) {
    let began = Instant::now();
    let mut transfer = Transfer::new(&request, source.bytes());
    let outcome = match sockets::tftp_transfer(interface, shared.site.address, client) {
        Ok(socket) => drive(&socket, &mut transfer, Blocks::new(source)).await,
        Err(error) => Err(format!("opening a socket: {error}")),
    };
    let path = request.path;
    let event = match outcome {
        Ok(bytes) => EventKind::TftpDone {
            path,
            bytes,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
        Err(reason) => EventKind::TftpAborted {
            path,
            bytes: transfer.acked_bytes(),
            reason,
        },
    };
    shared.tell(about, event);
}

/// Carries a transfer out to its end.
async fn drive(
    socket: &UdpSocket,
    transfer: &mut Transfer,
    mut blocks: Blocks,
) -> Result<u64, String> {
    let give_up = Instant::now() + MAX_TRANSFER;
    let mut buffer = [0; MAX_REQUEST_BYTES + 1];
    let mut step = transfer.start();
    let mut deadline = Instant::now();
    loop {
        match step {
            Step::SendOptions(packet) => {
                send(socket, &packet).await?;
                deadline = Instant::now() + Duration::from_millis(transfer.timeout_ms());
            }
            Step::SendBlocks { first, count } => {
                for block in first..first.saturating_add(count) {
                    let packet = blocks
                        .packet(block, transfer.block_bytes())
                        .map_err(|e| format!("reading the file: {e}"))?;
                    send(socket, packet).await?;
                }
                deadline = Instant::now() + Duration::from_millis(transfer.timeout_ms());
            }
            Step::Wait => {}
            Step::Done => return Ok(transfer.acked_bytes()),
            Step::Abort(reason) => {
                // The client may be gone, or may have ended the transfer itself.
                let _ = socket.try_send(&error(ErrorCode::NotDefined, "transfer given up"));
                return Err(reason);
            }
        }
        if Instant::now() >= give_up {
            return Err(format!("not done after {} s", MAX_TRANSFER.as_secs()));
        }
        step = match receive(socket, &mut buffer, deadline).await? {
            Some(len) => match parse(buffer.get(..len).unwrap_or_default()) {
                Ok(packet) => transfer.receive(&packet),
                Err(_) => Step::Wait,
            },
            None => transfer.timed_out(),
        };
    }
}

async fn send(socket: &UdpSocket, packet: &[u8]) -> Result<(), String> {
    match socket.send(packet).await {
        Ok(_) => Ok(()),
        // A lost packet is no different from one that the network dropped: the client's silence
        // will have it sent again.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
            Ok(())
        }
        Err(error) => Err(gone(&error)),
    }
}

async fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    deadline: Instant,
) -> Result<Option<usize>, String> {
    match socket.try_recv(buffer) {
        Ok(len) => return Ok(Some(len)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(gone(&error)),
    }
    match tokio::time::timeout_at(deadline, socket.recv(buffer)).await {
        Ok(Ok(len)) => Ok(Some(len)),
        Ok(Err(error)) => Err(gone(&error)),
        Err(_) => Ok(None),
    }
}

fn gone(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        "the client closed its port".to_owned()
    } else {
        error.to_string()
    }
}

/// Cuts a file into data packets, reading ahead.
struct Blocks {
    source: Source,
    /// A part of the file, and where it begins.
    ahead: Vec<u8>,
    ahead_at: u64,
    packet: Vec<u8>,
}

impl Blocks {
    fn new(source: Source) -> Self {
        let (source, ahead) = match source {
            Source::Text(text) => (Source::Text(Vec::new()), text),
            file => (file, Vec::new()),
        };
        Self {
            source,
            ahead,
            ahead_at: 0,
            packet: Vec::new(),
        }
    }

    /// The data packet of a block, counted from 1.
    fn packet(&mut self, block: u64, block_bytes: u64) -> io::Result<&[u8]> {
        let offset = block.saturating_sub(1).saturating_mul(block_bytes);
        let want = usize::try_from(block_bytes).unwrap_or(usize::MAX);
        self.read_ahead(offset, want)?;
        let from = usize::try_from(offset.saturating_sub(self.ahead_at)).unwrap_or(usize::MAX);
        let rest = self.ahead.get(from..).unwrap_or_default();
        let payload = rest.get(..want).unwrap_or(rest);
        self.packet.clear();
        self.packet.extend_from_slice(&data_header(block));
        self.packet.extend_from_slice(payload);
        Ok(&self.packet)
    }

    fn read_ahead(&mut self, offset: u64, want: usize) -> io::Result<()> {
        let Source::File { file, bytes } = &self.source else {
            return Ok(());
        };
        let want = usize::try_from(bytes.saturating_sub(offset))
            .unwrap_or(usize::MAX)
            .min(want);
        let end = offset.saturating_add(want as u64);
        let have = self.ahead_at..self.ahead_at.saturating_add(self.ahead.len() as u64);
        if want == 0 || (have.contains(&offset) && end <= have.end) {
            return Ok(());
        }
        let left = usize::try_from(bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.ahead.resize(left.min(READ_AHEAD_BYTES), 0);
        self.ahead_at = offset;
        // A file that has become shorter since it was opened is an error here, and not a short
        // block, which the client would take for its end.
        let read = file.read_exact_at(&mut self.ahead, offset);
        if read.is_err() {
            self.ahead.clear();
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn blocks_cut_a_file_and_a_text_alike() {
        let content: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let bytes = content.len() as u64;
        let sources = [Source::File { file, bytes }, Source::Text(content.clone())];
        for source in sources {
            let mut blocks = Blocks::new(source);
            let mut whole = Vec::new();
            let count = content.len() as u64 / 1468 + 1;
            for block in 1..=count {
                let packet = blocks.packet(block, 1468).unwrap();
                assert_eq!(packet[..4], data_header(block));
                whole.extend_from_slice(&packet[4..]);
            }
            assert_eq!(whole, content);
            assert_eq!(blocks.packet(1, 1468).unwrap()[4..], content[..1468]);
        }
    }

    #[test]
    fn a_file_that_shrank_is_an_error_and_not_a_short_block() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        let mut blocks = Blocks::new(Source::File { file, bytes: 5000 });
        assert!(blocks.packet(1, 1468).is_err());
    }
}
