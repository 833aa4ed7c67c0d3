//! TFTP's sockets: one that listens, and one for each transfer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::decision::{BootAction, BootProtocol, BootRequest, decide};
use crate::event::{DropReason, EventKind, Service};
use crate::pi::split_tftp_path;
use crate::server::places::{Place, Places, Standing};
use crate::server::shared::{About, Shared};
use crate::server::sockets;
use crate::tftp::packet::{ClientPacket, ErrorCode, ReadRequest, data_header, error, parse};
use crate::tftp::transfer::{Step, Transfer};
use crate::tftp::{
    MAX_BLOCK_BYTES, MAX_FILE_BYTES, MAX_REQUEST_BYTES, MAX_SILENCE_MS, NEVER_ACKED_MS,
};

/// The longest that a transfer may take. The slowest client that is worth waiting for, a
/// Raspberry Pi's boot ROM with 1.7 MB/s, fetches 6 GB in it.
const MAX_TRANSFER: Duration = Duration::from_secs(3600);
/// How often it is looked at how much of a file a client has taken.
const SLOW_WINDOW: Duration = Duration::from_secs(60);
/// The least that a client has to take of a file in [`SLOW_WINDOW`], in bytes: one block of 512
/// a second, and some. Whoever takes less only holds a place.
const SLOWEST_BYTES: u64 = 32 << 10;
/// The most of a file that is read at once, in bytes.
const READ_AHEAD_BYTES: usize = 256 << 10;
/// How much of a file is read at first, in bytes: a request under a false address costs no more.
const FIRST_READ_BYTES: usize = 4 << 10;
/// How often the first packet is sent again because the request was.
const MAX_REPEATS: u32 = 8;

/// The transfers under way, by who asked.
type Active = Arc<Mutex<BTreeMap<SocketAddrV4, Arc<ScriptRequest>>>>;

/// What a client has asked for.
#[derive(Debug)]
struct ScriptRequest {
    request: ReadRequest,
    /// It has acknowledged something.
    proven: AtomicBool,
    repeats: AtomicU32,
    /// The same request has come again.
    again: Notify,
    /// Another request has come from the same port.
    replaced: Notify,
}

pub(crate) async fn serve(
    socket: UdpSocket,
    interface: String,
    places: Arc<Places>,
    shared: Arc<Shared>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let server = Server {
        socket,
        interface: interface.into(),
        places,
        shared,
        active: Active::default(),
    };
    let mut transfers = JoinSet::new();
    let mut buffer = [0; MAX_REQUEST_BYTES + 1];
    loop {
        let received = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some(_) = transfers.join_next() => continue,
            received = server.socket.recv_from(&mut buffer) => received,
        };
        // An error here is the echo of a refused packet (ICMP), and concerns no one any more.
        let Ok((len, SocketAddr::V4(client))) = received else {
            continue;
        };
        let packet = buffer.get(..len).unwrap_or_default();
        let about = server.shared.about_address(*client.ip());
        let Some(request) = server.read_request(client, &about, packet).await else {
            continue;
        };
        if let Some(begun) = server.begin(client, about, request).await {
            transfers.spawn(run(begun));
        }
    }
}

/// The socket that listens, and what it needs to begin a transfer.
struct Server {
    socket: UdpSocket,
    interface: Arc<str>,
    places: Arc<Places>,
    shared: Arc<Shared>,
    active: Active,
}

/// A transfer that has its place and its file.
struct Begun {
    interface: Arc<str>,
    claim: TransferSlot,
    place: Place,
    shared: Arc<Shared>,
    about: About,
    transfer: Transfer,
    source: Source,
}

impl Server {
    /// The request that a packet is; anything else is answered here.
    async fn read_request(
        &self,
        client: SocketAddrV4,
        about: &About,
        packet: &[u8],
    ) -> Option<ReadRequest> {
        match parse(packet) {
            Ok(ClientPacket::Read(request)) => return Some(request),
            Ok(ClientPacket::ReadOtherMode(path)) => {
                let answer = error(ErrorCode::IllegalOperation, "only octet mode is served");
                let why = "not octet mode";
                self.refuse(client, about, path, why, &answer).await;
            }
            Ok(ClientPacket::Write(path)) => {
                let answer = error(ErrorCode::AccessViolation, "nothing can be written");
                let why = "a write request";
                self.refuse(client, about, path, why, &answer).await;
            }
            Ok(ClientPacket::Ack(_) | ClientPacket::Error { .. }) => {
                let why = DropReason::NotForUs;
                self.shared.drop_packet(about, Service::Tftp, why);
            }
            Err(why) => self.shared.drop_packet(about, Service::Tftp, why),
        }
        None
    }

    /// A transfer for a request, where it can have one; else it is answered here.
    async fn begin(
        &self,
        client: SocketAddrV4,
        about: About,
        request: ReadRequest,
    ) -> Option<Begun> {
        let shared = &self.shared;
        let Some(asked) = take_over(&self.active, client, &request) else {
            shared.drop_packet(&about, Service::Tftp, DropReason::Duplicate);
            return None;
        };
        let claim = TransferSlot {
            active: self.active.clone(),
            client,
            asked,
        };
        let path = request.path.clone();
        let (source, max_block_bytes) = match open(shared, &about, &path) {
            Ok(opened) => opened,
            Err(why) => {
                shared.tell(&about, EventKind::TftpRequest { path });
                let answer = error(ErrorCode::NotFound, "file not found");
                self.refuse(client, &about, request.path, &why, &answer)
                    .await;
                return None;
            }
        };
        let place = self.place(client, &about)?;
        shared.tell(&about, EventKind::TftpRequest { path });
        Some(Begun {
            interface: self.interface.clone(),
            claim,
            place,
            shared: shared.clone(),
            about,
            transfer: Transfer::with_largest_block(&request, source.bytes(), max_block_bytes),
            source,
        })
    }

    /// A place for a client's transfer, where there is one.
    fn place(&self, client: SocketAddrV4, about: &About) -> Option<Place> {
        let (places, shared) = (&self.places, &self.shared);
        match places.enter(*client.ip()) {
            Ok(entered) => {
                if let Some(greedy) = entered.evicted {
                    shared.crowded(Service::Tftp, greedy, places.count(greedy));
                }
                Some(entered.place)
            }
            Err(_) => {
                shared.drop_packet(about, Service::Tftp, DropReason::TooMany);
                shared.crowded(Service::Tftp, *client.ip(), places.count(*client.ip()));
                None
            }
        }
    }

    async fn refuse(
        &self,
        client: SocketAddrV4,
        about: &About,
        path: String,
        reason: &str,
        answer: &[u8],
    ) {
        // An error packet is sent once and not acknowledged (RFC 1350, section 7).
        let _ = self.socket.send_to(answer, client).await;
        let reason = reason.to_owned();
        let refused = EventKind::TftpRefused { path, reason };
        self.shared.tell(about, refused);
    }
}

/// Makes a request the one of its client's port. `None` for a copy of the request that is being
/// answered, whose first packet is then sent again: a boot ROM repeats its request, from the same
/// port, until the first answer has reached it, and takes the first that does. Any other request
/// ends the transfer that the port has.
fn take_over(
    active: &Active,
    client: SocketAddrV4,
    request: &ReadRequest,
) -> Option<Arc<ScriptRequest>> {
    let mut all = active.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(old) = all.get(&client) {
        if old.request == *request && !old.proven.load(Ordering::Relaxed) {
            if old.repeats.fetch_add(1, Ordering::Relaxed) < MAX_REPEATS {
                old.again.notify_one();
            }
            return None;
        }
        old.replaced.notify_one();
    }
    let asked = Arc::new(ScriptRequest {
        request: request.clone(),
        proven: AtomicBool::new(false),
        repeats: AtomicU32::new(0),
        again: Notify::new(),
        replaced: Notify::new(),
    });
    all.insert(client, asked.clone());
    Some(asked)
}

/// A client's place among the transfers under way.
struct TransferSlot {
    active: Active,
    client: SocketAddrV4,
    asked: Arc<ScriptRequest>,
}

impl Drop for TransferSlot {
    fn drop(&mut self) {
        let mut all = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        // A later request from the same port has the entry by now.
        if all
            .get(&self.client)
            .is_some_and(|asked| Arc::ptr_eq(asked, &self.asked))
        {
            all.remove(&self.client);
        }
    }
}

/// What a transfer reads from.
enum Source {
    Text(Vec<u8>),
    File { file: Arc<File>, bytes: u64 },
}

impl Source {
    fn bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }
}

/// What a path stands for, and the largest block for who asks, in bytes.
fn open(shared: &Shared, about: &About, path: &str) -> Result<(Source, u64), String> {
    let (decision, max_block_bytes) = {
        let table = shared.table();
        let mut request = BootRequest {
            mac: about.mac,
            path: Some(path),
            pi_serial: split_tftp_path(path).map(|(serial, _)| serial),
            ..BootRequest::new(BootProtocol::Tftp)
        };
        // A Raspberry Pi's kernel parameters are its boot script.
        let token = match (path.ends_with("cmdline.txt"), about.address) {
            (true, Some(asker)) => shared.mint(&table, &request, asker),
            _ => None,
        };
        request.token = token.as_ref();
        let decision = decide(&table, &shared.site, &request);
        let machine = decision.subject.node().and_then(|name| table.get(name));
        let max_block_bytes = machine.map_or(MAX_BLOCK_BYTES as u64, |machine| {
            machine.switches.tftp_block_bytes.into()
        });
        drop(table);
        if let Some(token) = token.as_ref().filter(|_| decision.is_installers_script()) {
            shared.script_served(about, &decision, token);
        }
        (decision, max_block_bytes)
    };
    let name = match decision.action {
        BootAction::Text(text) => return Ok((Source::Text(text.into_bytes()), max_block_bytes)),
        BootAction::Serve(name) => name,
        _ => return Err(decision.reason.to_string()),
    };
    let file = shared
        .artifacts
        .file(&name)
        .ok_or("there is no such file")?;
    let bytes = file
        .metadata()
        .map_err(|e| format!("reading {name}: {e}"))?
        .len();
    if bytes > MAX_FILE_BYTES {
        return Err(format!("{bytes} bytes are too many for TFTP"));
    }
    Ok((Source::File { file, bytes }, max_block_bytes))
}

async fn run(begun: Begun) {
    let Begun {
        interface,
        claim,
        place,
        shared,
        about,
        mut transfer,
        source,
    } = begun;
    let began = Instant::now();
    let asked = &claim.asked;
    let leave = place.leave();
    let outcome = match sockets::tftp_transfer(&interface, shared.site.address, claim.client) {
        Ok(socket) => tokio::select! {
            outcome = drive(&socket, &mut transfer, Blocks::new(source), asked, &place) => outcome,
            () = asked.replaced.notified() => Err("the client asked anew from the same port".into()),
            () = leave.notified() => Err("others needed its place".into()),
        },
        Err(error) => Err(format!("opening a socket: {error}")),
    };
    let path = asked.request.path.clone();
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
    shared.tell(&about, event);
}

/// When a transfer is given up, however often it has sent again.
struct Patience {
    began: Instant,
    /// The last acknowledgement that moved the transfer on; `None` before the first.
    last_sign: Option<Instant>,
    window: (Instant, u64),
}

impl Patience {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            last_sign: None,
            window: (now, 0),
        }
    }

    /// Until when the next acknowledgement has to come.
    fn ends(&self) -> Instant {
        match self.last_sign {
            None => self.began + Duration::from_millis(NEVER_ACKED_MS),
            Some(last) => last + Duration::from_millis(MAX_SILENCE_MS),
        }
    }

    fn check(&mut self, acked_bytes: u64) -> Result<(), String> {
        if Instant::now() >= self.ends() {
            return Err(match self.last_sign {
                None => format!("nothing acknowledged within {} s", NEVER_ACKED_MS / 1000),
                Some(_) => format!("the client was silent for {} s", MAX_SILENCE_MS / 1000),
            });
        }
        if self.began.elapsed() >= MAX_TRANSFER {
            return Err(format!("not done after {} s", MAX_TRANSFER.as_secs()));
        }
        let (since, from) = self.window;
        if since.elapsed() >= SLOW_WINDOW {
            if acked_bytes.saturating_sub(from) < SLOWEST_BYTES {
                let window_s = SLOW_WINDOW.as_secs();
                return Err(format!(
                    "the client took under {SLOWEST_BYTES} bytes in {window_s} s"
                ));
            }
            self.window = (Instant::now(), acked_bytes);
        }
        Ok(())
    }
}

/// Carries a transfer out to its end.
async fn drive(
    socket: &UdpSocket,
    transfer: &mut Transfer,
    mut blocks: Blocks,
    asked: &ScriptRequest,
    place: &Place,
) -> Result<u64, String> {
    let mut patience = Patience::new();
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
        patience.check(transfer.acked_bytes())?;
        let until = deadline.min(patience.ends());
        step = tokio::select! {
            received = receive(socket, &mut buffer, until) => match received? {
                Some(len) => match parse(buffer.get(..len).unwrap_or_default()) {
                    Ok(packet) => {
                        let step = transfer.receive(&packet);
                        if matches!(step, Step::SendBlocks { .. } | Step::Done) {
                            asked.proven.store(true, Ordering::Relaxed);
                            patience.last_sign = Some(Instant::now());
                            place.sign(Standing::AtWork);
                        }
                        step
                    }
                    Err(_) => Step::Wait,
                },
                None if Instant::now() < deadline => Step::Wait,
                None => transfer.timed_out(),
            },
            () = asked.again.notified() => transfer.again(),
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
    /// How much is read next, in bytes.
    read_bytes: usize,
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
            read_bytes: FIRST_READ_BYTES,
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
        self.ahead.resize(left.min(self.read_bytes.max(want)), 0);
        self.read_bytes = (self.read_bytes * 4).min(READ_AHEAD_BYTES);
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
        let file = Arc::new(file);
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
        let file = Arc::new(file);
        let mut blocks = Blocks::new(Source::File { file, bytes: 5000 });
        assert!(blocks.packet(1, 1468).is_err());
    }
}
