//! The boot servers as one: started together, stopped together.

pub mod artifacts;
pub mod config;
pub(crate) mod descriptors;
mod keeper;
pub(crate) mod places;
pub(crate) mod shared;
pub(crate) mod sockets;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use undercroft_model::NodeName;

pub use config::{Clock, DhcpSettings, InstallerFiles, Mode, NetbootConfig, Ports};

use crate::dhcp::serve::Dhcp;
use crate::error::NetbootError;
use crate::event::{DropCounters, NetbootEvent};
use crate::http::ReportRules;
use crate::site::Site;
use crate::table::{BootIntent, BootTable};
use crate::token::TokenKey;
use artifacts::Artifacts;
use keeper::{Keeper, Sockets};
use shared::Shared;

/// How many events a listener may fall behind before it misses the oldest.
pub const EVENT_QUEUE: usize = 8192;

/// The running boot servers. Dropping the handle stops them at once; [`Netboot::stop`] waits
/// until they have.
#[derive(Debug)]
pub struct Netboot {
    shared: Arc<Shared>,
    http_address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Netboot {
    /// Binds all sockets and starts to serve. Must be called within a tokio runtime.
    ///
    /// Nothing is served unless everything could be bound.
    ///
    /// # Errors
    /// For settings that make no sense, files that can't be read, and sockets that can't be
    /// bound; each says what to try.
    pub fn start(config: NetbootConfig, table: BootTable) -> Result<Self, NetbootError> {
        config.check()?;
        let artifacts = Artifacts::collect(&config)?;
        let capacity = descriptors::raise();
        let sockets = Sockets::bind(&config)?;
        let http_address = sockets.http_address()?;

        let site = Site {
            address: config.address,
            http_port: http_address.port(),
            installers: artifacts::installer_images(&config),
            ipxe: config.ipxe.keys().copied().collect(),
            artifacts: artifacts.names(),
        };
        let (events, _) = broadcast::channel(EVENT_QUEUE);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::new(
            table,
            site,
            artifacts,
            config.ports,
            &config.authorized_keys,
            ReportRules {
                server: config.address,
                prefix_bits: config.prefix_bits,
                key: match &config.token_key {
                    Some(key) => key.clone(),
                    None => TokenKey::random().map_err(|source| NetbootError::Socket {
                        service: "HTTP",
                        action: "making the key of boot tokens".into(),
                        source,
                    })?,
                },
            },
            config.clock.clone(),
            events,
            stopped,
        ));

        // The same port when the interface is made anew.
        let config = NetbootConfig {
            ports: Ports {
                http: http_address.port(),
                ..config.ports
            },
            ..config
        };
        let (dhcp, trouble) = Dhcp::new(&config);
        let keeper = Keeper::new(config, dhcp, capacity, shared.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.keep(sockets, trouble));
        Ok(Self {
            shared,
            http_address,
            stop,
            tasks,
        })
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Events from now on. A listener that falls [`EVENT_QUEUE`] events behind is told how many
    /// it missed.
    pub fn events(&self) -> broadcast::Receiver<NetbootEvent> {
        self.shared.subscribe()
    }

    /// Changes what a machine is to boot. Returns the intent it had.
    ///
    /// # Errors
    /// When the table has no such machine.
    pub fn set_intent(
        &self,
        name: &NodeName,
        intent: BootIntent,
    ) -> Result<BootIntent, NetbootError> {
        let before = self.shared.table_mut().set_intent(name, intent)?;
        // It is about to be started: whoever asked for its script before did so for another boot.
        self.shared.boot_ended(Some(name), &[]);
        Ok(before)
    }

    /// What a machine is to boot.
    pub fn intent(&self, name: &NodeName) -> Option<BootIntent> {
        self.shared.table().get(name).map(|m| m.intent)
    }

    /// Replaces the whole table, as when the inventory has changed.
    pub fn set_table(&self, table: BootTable) {
        *self.shared.table_mut() = table;
        self.shared.keep_boots();
    }

    /// Replaces what `GET /v1/authorized_keys` answers.
    pub fn set_authorized_keys(&self, keys: &str) {
        self.shared.set_authorized_keys(keys);
    }

    /// How many packets and requests were not answered, by server and reason.
    pub fn drops(&self) -> DropCounters {
        self.shared.drops()
    }

    /// Stops all servers and waits until they have let go of their sockets. Transfers under way
    /// are cut off; firmware tries again.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}
