//! What the servers share while they run.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{broadcast, watch};
use undercroft_model::{MacAddr, MachineUuid, NodeName};

use crate::boots::{Boots, Oddity, ScriptRequest};
use crate::decision::{BootDecision, BootRequest};
use crate::event::{DropCounters, DropReason, EventKind, NetbootEvent, Service};
use crate::http::ReportRules;
use crate::server::artifacts::Artifacts;
use crate::server::config::{Clock, Ports};
use crate::site::Site;
use crate::table::{BootTable, Identity};
use crate::token::{Subject, Token};

/// How many addresses are remembered with the machine that has them.
const MAX_KNOWN_ADDRESSES: usize = 8192;

/// How many places one address has before it is named as the one that crowds others out.
const CROWD: usize = 8;
/// How long the same crowd isn't told of again, in milliseconds.
const CROWD_AGAIN_MS: u64 = 60_000;
/// The most crowds that are told of in that time.
const MAX_CROWDS: usize = 64;

/// What the servers share while they run.
#[derive(Debug)]
pub(crate) struct Shared {
    table: RwLock<BootTable>,
    pub(crate) site: Site,
    pub(crate) artifacts: Artifacts,
    pub(crate) ports: Ports,
    authorized_keys: RwLock<Arc<str>>,
    addresses: Mutex<AddressBook>,
    drops: Mutex<DropCounters>,
    /// Addresses that crowd others out, and when that was last told.
    crowds: Mutex<BTreeMap<(Service, Ipv4Addr), u64>>,
    events: broadcast::Sender<NetbootEvent>,
    pub(crate) report_rules: ReportRules,
    boots: Mutex<Boots>,
    pub(crate) clock: Clock,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Whom an event is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) node: Option<NodeName>,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) uuid: Option<MachineUuid>,
    pub(crate) address: Option<Ipv4Addr>,
}

/// Which machine has which address, as DHCP packets told; the oldest is forgotten first.
#[derive(Debug, Default)]
struct AddressBook {
    by_address: BTreeMap<Ipv4Addr, MacAddr>,
    order: VecDeque<Ipv4Addr>,
}

impl AddressBook {
    fn learn(&mut self, address: Ipv4Addr, mac: MacAddr) {
        if self.by_address.insert(address, mac).is_none() {
            self.order.push_back(address);
            if self.order.len() > MAX_KNOWN_ADDRESSES
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_address.remove(&oldest);
            }
        }
    }
}

// A panic while a lock is held would be a bug in code that only reads and writes maps; the data
// is whole at every point, so the servers go on with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    #[expect(
        clippy::too_many_arguments,
        reason = "one caller, which makes each part on its own line"
    )]
    pub(crate) fn new(
        table: BootTable,
        site: Site,
        artifacts: Artifacts,
        ports: Ports,
        authorized_keys: &str,
        report_rules: ReportRules,
        clock: Clock,
        events: broadcast::Sender<NetbootEvent>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            table: RwLock::new(table),
            site,
            artifacts,
            ports,
            authorized_keys: RwLock::new(authorized_keys.into()),
            addresses: Mutex::new(AddressBook::default()),
            drops: Mutex::new(DropCounters::default()),
            crowds: Mutex::default(),
            report_rules,
            boots: Mutex::new(Boots::default()),
            events,
            clock,
            stop,
        }
    }

    pub(crate) fn table(&self) -> RwLockReadGuard<'_, BootTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn table_mut(&self) -> RwLockWriteGuard<'_, BootTable> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn authorized_keys(&self) -> Arc<str> {
        self.authorized_keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_authorized_keys(&self, keys: &str) {
        *self
            .authorized_keys
            .write()
            .unwrap_or_else(PoisonError::into_inner) = keys.into();
    }

    pub(crate) fn drops(&self) -> DropCounters {
        lock(&self.drops).clone()
    }

    pub(crate) fn learn_address(&self, address: Ipv4Addr, mac: MacAddr) {
        if !address.is_unspecified() {
            lock(&self.addresses).learn(address, mac);
        }
    }

    /// Whom an address belongs to: as DHCP packets told, or by the table's fixed addresses.
    pub(crate) fn about_address(&self, address: Ipv4Addr) -> About {
        let mac = lock(&self.addresses).by_address.get(&address).copied();
        let table = self.table();
        let machine = match mac {
            Some(mac) => table.by_mac(mac),
            None => table.by_address(address),
        };
        About {
            node: machine.map(|m| m.name.clone()),
            mac: mac.or(machine.and_then(|m| m.macs.first().copied())),
            uuid: None,
            address: Some(address),
        }
    }

    /// Whether a machine may have an address, as far as the table says.
    pub(crate) fn may_be_at(&self, node: &NodeName, address: Ipv4Addr) -> bool {
        let table = self.table();
        let planned = table.get(node).and_then(|machine| machine.address);
        planned.is_none_or(|planned| planned == address)
    }

    /// A token for the script that answers a request. Without random bytes there is none, and the
    /// installer's report is refused for it.
    pub(crate) fn mint(
        &self,
        table: &BootTable,
        request: &BootRequest<'_>,
        asker: Ipv4Addr,
    ) -> Option<Token> {
        let known = table.identify(request.uuid, request.mac, request.pi_serial);
        let subject = match (&known, request.mac) {
            (Identity::Known(machine), _) => Subject::Node(&machine.name),
            (_, Some(mac)) => Subject::Mac(mac),
            (_, None) => Subject::Nobody,
        };
        let at_ms = self.clock.now_ms();
        self.report_rules.key.mint(&subject, asker, at_ms).ok()
    }

    /// A script that loads an installer was served: tells, and says what is odd about it.
    pub(crate) fn script_served(&self, about: &About, decision: &BootDecision, token: &Token) {
        let node = decision.subject.node();
        let subject = match (node, about.mac) {
            (Some(name), _) => Subject::Node(name),
            (None, Some(mac)) => Subject::Mac(mac),
            (None, None) => Subject::Nobody,
        };
        let planned = node.and_then(|name| self.table().get(name)?.address);
        let word = token.word();
        let asked = ScriptRequest {
            asker: token.asker,
            at_ms: self.clock.now_ms(),
            word: word.clone(),
        };
        let odd = lock(&self.boots).served(&subject.to_string(), node.is_some(), planned, asked);
        let about = About {
            node: node.cloned(),
            ..about.clone()
        };
        if odd.is_empty() {
            return self.tell(&about, EventKind::ScriptServed { word });
        }
        let (mut other, mut first) = (None, None);
        for oddity in odd {
            match oddity {
                Oddity::OtherAddress { planned } => other = Some(planned),
                Oddity::Again { first: asked } => first = Some(asked),
            }
        }
        let kind = EventKind::ScriptOdd {
            word,
            planned: other,
            first: first.as_ref().map(|asked| asked.asker),
            first_word: first.map(|asked| asked.word),
        };
        self.tell(&about, kind);
    }

    /// A machine's boot is over: the next request for its script begins another one.
    pub(crate) fn boot_ended(&self, node: Option<&NodeName>, macs: &[MacAddr]) {
        let mut boots = lock(&self.boots);
        if let Some(name) = node {
            boots.ended(&Subject::Node(name).to_string());
        }
        for mac in macs {
            boots.ended(&Subject::Mac(*mac).to_string());
        }
    }

    /// Forgets the boots of machines that the table has no longer.
    pub(crate) fn keep_boots(&self) {
        let table = self.table();
        lock(&self.boots).keep(&table);
    }

    /// Tells whoever listens. Nobody has to.
    pub(crate) fn tell(&self, about: &About, kind: EventKind) {
        let _ = self.events.send(NetbootEvent {
            at_ms: self.clock.now_ms(),
            node: about.node.clone(),
            mac: about.mac,
            uuid: about.uuid,
            address: about.address,
            kind,
        });
    }

    /// Counts what was not answered, and tells.
    pub(crate) fn drop_packet(&self, about: &About, service: Service, reason: DropReason) {
        lock(&self.drops).count(service, reason);
        self.tell(about, EventKind::Dropped { service, reason });
    }

    /// Tells something about the servers themselves.
    pub(crate) fn say(&self, text: impl Into<String>) {
        let text = text.into();
        self.tell(&About::default(), EventKind::Server { text });
    }

    /// Tells that an address takes so many places that others have to wait, once in a while.
    pub(crate) fn crowded(&self, service: Service, peer: Ipv4Addr, count: usize) {
        let now_ms = self.clock.now_ms();
        // Requests under many false addresses are one and the same crowd.
        let (peer, many) = if count < CROWD {
            (Ipv4Addr::UNSPECIFIED, true)
        } else {
            (peer, false)
        };
        {
            let mut crowds = lock(&self.crowds);
            crowds.retain(|_, at_ms| now_ms.saturating_sub(*at_ms) < CROWD_AGAIN_MS);
            if crowds.contains_key(&(service, peer)) || crowds.len() >= MAX_CROWDS {
                return;
            }
            crowds.insert((service, peer), now_ms);
        }
        let what = match service {
            Service::Http => "HTTP connections",
            _ => "TFTP transfers",
        };
        self.say(if many {
            format!(
                "too many {what} under many addresses: those that show no sign of life are ended"
            )
        } else {
            format!(
                "{peer} takes {count} {what} at once: its idlest are ended, further ones refused"
            )
        });
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<NetbootEvent> {
        self.events.subscribe()
    }
}
