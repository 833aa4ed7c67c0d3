//! The sockets of ports 67 and 4011.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::dhcp::handle::{Handled, Incoming, Port, ServerView, handle};
use crate::dhcp::lease_file::LeaseFile;
use crate::dhcp::leases::LeaseStore;
use crate::dhcp::reply::Destination;
use crate::dhcp::wire::MAX_PACKET_BYTES;
use crate::event::{DropReason, EventKind, Service};
use crate::server::config::{Mode, NetbootConfig};
use crate::server::shared::{About, Shared};

/// How many packets are answered before other tasks get their turn.
const BATCH: usize = 64;
/// How often leases are brought to the disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What both ports share.
#[derive(Debug, Clone)]
pub(crate) struct Dhcp {
    mode: Mode,
    prefix_bits: u8,
    kept: Arc<Mutex<Kept>>,
}

/// The leases, and where they are kept.
#[derive(Debug)]
struct Kept {
    store: LeaseStore,
    file: Option<LeaseFile>,
}

/// The leases, for as long as nobody else is to see them.
pub(crate) struct Leases<'a>(MutexGuard<'a, Kept>);

impl std::ops::Deref for Leases<'_> {
    type Target = LeaseStore;

    fn deref(&self) -> &LeaseStore {
        &self.0.store
    }
}

impl std::ops::DerefMut for Leases<'_> {
    fn deref_mut(&mut self) -> &mut LeaseStore {
        &mut self.0.store
    }
}

impl Leases<'_> {
    /// Keeps what has changed. Where that fails, the leases hold for this run.
    fn keep(&mut self, now_ms: u64) -> Option<std::io::Error> {
        let kept = &mut *self.0;
        let changes = kept.store.take_changes();
        if changes.is_empty() {
            return None;
        }
        let file = kept.file.as_mut()?;
        let error = file.add(&changes, &kept.store, now_ms).err()?;
        kept.file = None;
        Some(error)
    }
}

impl Dhcp {
    /// With the leases of the run before, where there are some. What stands in their way is told
    /// later, as [`Self::new`] runs before anybody listens.
    pub(crate) fn new(config: &NetbootConfig) -> (Self, Option<String>) {
        let mut trouble = None;
        let mut file = None;
        let store = match &config.mode {
            Mode::Server(dhcp) => {
                let mut store = LeaseStore::new(dhcp.range_first, dhcp.range_last)
                    .probing()
                    .recording();
                if let Some(path) = &config.lease_file {
                    let now_ms = config.clock.now_ms();
                    let lease_ms = u64::from(dhcp.lease_s).saturating_mul(1000);
                    match LeaseFile::open(path, &mut store, now_ms, lease_ms) {
                        Ok(opened) => file = Some(opened),
                        Err(error) => trouble = Some(not_kept(path, &error)),
                    }
                }
                store
            }
            Mode::Proxy | Mode::Port4011Only => LeaseStore::empty(),
        };
        let dhcp = Self {
            mode: config.mode.clone(),
            prefix_bits: config.prefix_bits,
            kept: Arc::new(Mutex::new(Kept { store, file })),
        };
        (dhcp, trouble)
    }

    pub(crate) fn leases(&self) -> Leases<'_> {
        Leases(self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Brings the leases to the disk every [`SYNC_EVERY`], beside the answering. A crash of the
    /// process loses none; a power cut loses at most those of that time, whose addresses are
    /// probed before anybody else gets them.
    pub(crate) async fn sync(self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(SYNC_EVERY) => {}
            }
            let handle = self.leases().0.file.as_ref().map(LeaseFile::handle);
            if let Some(Ok(file)) = handle {
                let _ = tokio::task::spawn_blocking(move || file.sync_data()).await;
            }
        }
    }

    /// Answers what comes in by one of a port's sockets; see [`sockets::Pair`].
    pub(crate) async fn serve(
        self,
        hear: Arc<UdpSocket>,
        speak: Arc<UdpSocket>,
        port: Port,
        shared: Arc<Shared>,
        mut stop: watch::Receiver<bool>,
    ) {
        // One byte more than the largest packet, so that a longer one is seen to be longer.
        let mut buffer = [0; MAX_PACKET_BYTES + 1];
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                ready = hear.readable() => if ready.is_err() { return },
            }
            for _ in 0..BATCH {
                let Ok((len, SocketAddr::V4(source))) = hear.try_recv_from(&mut buffer) else {
                    break;
                };
                let packet = buffer.get(..len).unwrap_or_default();
                self.answer(packet, source, port, &speak, &shared).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// What a packet gets for an answer; leases that follow from it are kept.
    fn decide(&self, incoming: Incoming<'_>, shared: &Shared) -> Handled {
        let table = shared.table();
        let view = ServerView {
            table: &table,
            site: &shared.site,
            mode: &self.mode,
            prefix_bits: self.prefix_bits,
        };
        let mut leases = self.leases();
        let handled = handle(incoming, view, &mut leases);
        if let Some(error) = leases.keep(incoming.now_ms) {
            shared.say(format!(
                "leases aren't kept across a restart from now on: {error}"
            ));
        }
        handled
    }

    async fn answer(
        &self,
        packet: &[u8],
        source: SocketAddrV4,
        port: Port,
        socket: &UdpSocket,
        shared: &Shared,
    ) {
        let service = match port {
            Port::Dhcp => Service::Dhcp,
            Port::Pxe => Service::Pxe4011,
        };
        let incoming = Incoming {
            packet,
            source,
            port,
            now_ms: shared.clock.now_ms(),
        };
        let handled = self.decide(incoming, shared);
        let about = About {
            node: handled.node,
            mac: handled.mac,
            uuid: handled.uuid,
            address: handled.address,
        };
        let mut events = handled.events;
        match handled.answer {
            Ok(reply) => {
                let to = destination(reply.to, shared);
                let sent = socket.send_to(&reply.bytes, to).await;
                let answer = events.pop();
                tell(shared, &about, events);
                if sent.is_err() {
                    shared.drop_packet(&about, service, DropReason::SendFailed);
                } else if let Some(answer) = answer {
                    let given = matches!(
                        answer,
                        EventKind::DhcpAck { .. } | EventKind::Pxe4011Ack { .. }
                    );
                    if let (true, Some(address), Some(mac)) = (given, about.address, about.mac) {
                        shared.learn_address(address, mac);
                    }
                    shared.tell(&about, answer);
                }
            }
            Err(reason) => {
                if let (DropReason::OtherServer, Some(address), Some(mac)) =
                    (reason, about.address, about.mac)
                {
                    shared.learn_address(address, mac);
                }
                tell(shared, &about, events);
                shared.drop_packet(&about, service, reason);
            }
        }
    }
}

fn destination(to: Destination, shared: &Shared) -> SocketAddrV4 {
    let ports = &shared.ports;
    match to {
        Destination::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, ports.dhcp_client),
        Destination::Client(address) => SocketAddrV4::new(address, ports.dhcp_client),
        Destination::Relay(address) => SocketAddrV4::new(address, ports.dhcp),
        Destination::Source(source) => source,
    }
}

fn not_kept(path: &std::path::Path, error: &std::io::Error) -> String {
    let path = path.display();
    format!("leases aren't kept across a restart: {path}: {error}")
}

fn tell(shared: &Shared, about: &About, events: Vec<EventKind>) {
    for event in events {
        shared.tell(about, event);
    }
}
