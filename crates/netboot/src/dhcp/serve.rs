//! The sockets of ports 67 and 4011.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;

use crate::dhcp::handle::{Incoming, Port, ServerView, handle};
use crate::dhcp::leases::LeaseStore;
use crate::dhcp::reply::Destination;
use crate::dhcp::wire::MAX_PACKET_BYTES;
use crate::event::{DropReason, EventKind, Service};
use crate::server::config::{Mode, NetbootConfig};
use crate::server::shared::{About, Shared};

/// How many packets are answered before other tasks get their turn.
const BATCH: usize = 64;

/// What both ports share.
#[derive(Debug, Clone)]
pub(crate) struct Dhcp {
    mode: Mode,
    prefix_bits: u8,
    leases: Arc<Mutex<LeaseStore>>,
}

impl Dhcp {
    pub(crate) fn new(config: &NetbootConfig) -> Self {
        let leases = match &config.mode {
            Mode::Server(dhcp) => LeaseStore::new(dhcp.range_first, dhcp.range_last),
            Mode::Proxy | Mode::Port4011Only => LeaseStore::empty(),
        };
        Self {
            mode: config.mode.clone(),
            prefix_bits: config.prefix_bits,
            leases: Arc::new(Mutex::new(leases)),
        }
    }

    pub(crate) async fn serve_67(self, socket: UdpSocket, shared: Arc<Shared>) {
        self.serve(socket, Port::Dhcp, shared).await;
    }

    pub(crate) async fn serve_4011(self, socket: UdpSocket, shared: Arc<Shared>) {
        self.serve(socket, Port::Pxe, shared).await;
    }

    async fn serve(self, socket: UdpSocket, port: Port, shared: Arc<Shared>) {
        let mut stop = shared.stop.clone();
        // One byte more than the largest packet, so that a longer one is seen to be longer.
        let mut buffer = [0; MAX_PACKET_BYTES + 1];
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                ready = socket.readable() => if ready.is_err() { return },
            }
            for _ in 0..BATCH {
                let Ok((len, SocketAddr::V4(source))) = socket.try_recv_from(&mut buffer) else {
                    break;
                };
                let packet = buffer.get(..len).unwrap_or_default();
                self.answer(packet, source, port, &socket, &shared).await;
            }
            tokio::task::yield_now().await;
        }
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
        let handled = {
            let table = shared.table();
            let view = ServerView {
                table: &table,
                site: &shared.site,
                mode: &self.mode,
                prefix_bits: self.prefix_bits,
            };
            let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
            handle(incoming, view, &mut leases)
        };
        let about = About {
            node: handled.node,
            mac: handled.mac,
            uuid: handled.uuid,
            address: handled.address,
        };
        let mut events = handled.events;
        match handled.answer {
            Ok(reply) => {
                let to = match reply.to {
                    Destination::Broadcast => {
                        SocketAddrV4::new(Ipv4Addr::BROADCAST, shared.ports.dhcp_client)
                    }
                    Destination::Client(address) => {
                        SocketAddrV4::new(address, shared.ports.dhcp_client)
                    }
                    Destination::Relay(address) => SocketAddrV4::new(address, shared.ports.dhcp),
                    Destination::Source(source) => source,
                };
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

fn tell(shared: &Shared, about: &About, events: Vec<EventKind>) {
    for event in events {
        shared.tell(about, event);
    }
}
