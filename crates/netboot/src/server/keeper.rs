//! Keeps the servers on their interface: a bridge or a virtual function that is deleted and made
//! anew is another interface of the same name, on which the old sockets hear nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dhcp::handle::Port;
use crate::dhcp::serve::Dhcp;
use crate::error::NetbootError;
use crate::http::MAX_CONNECTIONS_PER_ADDRESS;
use crate::server::config::{Mode, NetbootConfig};
use crate::server::descriptors::Capacity;
use crate::server::places::Places;
use crate::server::shared::Shared;
use crate::server::sockets::{self, Pair};
use crate::tftp::MAX_TRANSFERS_PER_ADDRESS;

/// How often it is looked whether the interface and its address are still there: well within a
/// PXE ROM's second try.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All listening sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    interface_index: Option<u32>,
    http: TcpListener,
    tftp: UdpSocket,
    pxe: Pair,
    dhcp: Option<Pair>,
}

impl Sockets {
    pub(super) fn bind(config: &NetbootConfig) -> Result<Self, NetbootError> {
        // Before the sockets, so that an interface that changes meanwhile is seen to have.
        let interface_index = sockets::interface_index(&config.interface);
        sockets::check_interface(config)?;
        Ok(Self {
            interface_index,
            http: sockets::http(config)?,
            tftp: sockets::tftp(config)?,
            pxe: sockets::pxe(config)?,
            dhcp: if config.mode.has_dhcp_port() {
                Some(sockets::dhcp(config)?)
            } else {
                None
            },
        })
    }

    pub(super) fn http_address(&self) -> Result<std::net::SocketAddr, NetbootError> {
        self.http
            .local_addr()
            .map_err(|source| NetbootError::Socket {
                service: "HTTP",
                action: "reading the port that the system chose".into(),
                source,
            })
    }
}

/// Starts the servers, and starts them again on new sockets when the interface was made anew.
pub(super) struct Keeper {
    config: NetbootConfig,
    dhcp: Dhcp,
    connections: Arc<Places>,
    transfers: Arc<Places>,
    shared: Arc<Shared>,
}

impl Keeper {
    pub(super) fn new(
        config: NetbootConfig,
        dhcp: Dhcp,
        capacity: Capacity,
        shared: Arc<Shared>,
    ) -> Self {
        // However few descriptors there are, one address has a quarter of the places at most.
        let per_address = |all: usize, most: usize| most.min(all.div_ceil(4));
        let (http, tftp) = (capacity.connections, capacity.transfers);
        Self {
            config,
            dhcp,
            connections: Places::new(http, per_address(http, MAX_CONNECTIONS_PER_ADDRESS)),
            transfers: Places::new(tftp, per_address(tftp, MAX_TRANSFERS_PER_ADDRESS)),
            shared,
        }
    }

    /// Serves until the servers are told to stop.
    pub(super) async fn keep(self, mut sockets: Sockets, trouble: Option<String>) {
        if let Some(text) = trouble {
            self.shared.say(text);
        }
        loop {
            let index = sockets.interface_index;
            let (stop, stopped) = watch::channel(false);
            let mut tasks = self.spawn(sockets, &stopped);
            let stops = self.until_lost(index).await;
            let _ = stop.send(true);
            while tasks.join_next().await.is_some() {}
            if stops {
                return;
            }
            let interface = &self.config.interface;
            self.shared.say(format!(
                "the interface {interface} is gone or was made anew; nothing is served until it \
                 is there again with the address {}",
                self.config.address
            ));
            sockets = match self.until_found().await {
                Some(sockets) => sockets,
                None => return,
            };
            self.shared.say(format!(
                "the interface {interface} is there again, and served"
            ));
        }
    }

    fn spawn(&self, sockets: Sockets, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(crate::http::serve::serve(
            sockets.http,
            self.connections.clone(),
            self.shared.clone(),
            stop.clone(),
        ));
        tasks.spawn(crate::tftp::serve::serve(
            sockets.tftp,
            self.config.interface.clone(),
            self.transfers.clone(),
            self.shared.clone(),
            stop.clone(),
        ));
        let ports = [(Some(sockets.pxe), Port::Pxe), (sockets.dhcp, Port::Dhcp)];
        for (pair, port) in ports {
            let Some(pair) = pair else { continue };
            let (hear, speak) = (Arc::new(pair.hear), Arc::new(pair.speak));
            for ear in [hear, speak.clone()] {
                let dhcp = self.dhcp.clone();
                let shared = self.shared.clone();
                tasks.spawn(dhcp.serve(ear, speak.clone(), port, shared, stop.clone()));
            }
        }
        if matches!(self.config.mode, Mode::Server(_)) {
            tasks.spawn(crate::dhcp::probe::keep(
                self.dhcp.clone(),
                self.config.interface.clone(),
                self.shared.clone(),
                stop.clone(),
            ));
            tasks.spawn(self.dhcp.clone().sync(stop.clone()));
        }
        tasks
    }

    /// Waits until the interface is another, or the servers are told to stop; whether that.
    async fn until_lost(&self, index: Option<u32>) -> bool {
        loop {
            if self.waits().await {
                return true;
            }
            let is_there = sockets::interface_index(&self.config.interface) == index;
            let has_address = !matches!(
                sockets::check_interface(&self.config),
                Err(NetbootError::NoInterface { .. } | NetbootError::NoAddress { .. })
            );
            if !is_there || !has_address {
                return false;
            }
        }
    }

    /// Waits until all sockets can be bound again; `None` when the servers are told to stop.
    async fn until_found(&self) -> Option<Sockets> {
        let mut said = String::new();
        loop {
            match Sockets::bind(&self.config) {
                Ok(sockets) => return Some(sockets),
                Err(NetbootError::NoInterface { .. } | NetbootError::NoAddress { .. }) => {}
                Err(error) => {
                    let text = error.to_string();
                    if text != said {
                        self.shared.say(text.clone());
                        said = text;
                    }
                }
            }
            if self.waits().await {
                return None;
            }
        }
    }

    /// Waits for [`LOOK_EVERY`]; whether the servers are told to stop meanwhile.
    async fn waits(&self) -> bool {
        let mut stop = self.shared.stop.clone();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        }
    }
}
