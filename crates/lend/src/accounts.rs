//! Who may do what on the message system, in words of NATS' configuration, as `nix/lib/nats.nix` renders them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use undercroft_model::inventory::Inventory;

use crate::{DeviceName, SubmitterName, consent::PublicKey};

/// Who may connect, by their public keys.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// Lent PCs: each has three subjects and an inbox of its own.
    pub devices: BTreeMap<DeviceName, PublicKey>,
    /// Who brings work: each has one subject and an inbox.
    pub submitters: BTreeMap<SubmitterName, PublicKey>,
    /// The server of lending, which may do everything inside of the account.
    pub servers: Vec<PublicKey>,
}

impl Accounts {
    /// Those of an inventory, with a server of this key, or with none yet.
    pub fn of(inventory: &Inventory, server: Option<PublicKey>) -> Self {
        let pcs = inventory.pcs.iter().filter(|(_, pc)| pc.lend.enabled);
        let devices = pcs.filter_map(|(name, pc)| {
            let key = PublicKey(pc.lend.nkey.clone()?);
            Some((DeviceName::new(name.as_str()).ok()?, key))
        });
        let submitters = inventory.lending.submitters.iter();
        Self {
            devices: devices.collect(),
            submitters: submitters
                .map(|(name, who)| (name.clone(), PublicKey(who.nkey.clone())))
                .collect(),
            servers: server.into_iter().collect(),
        }
    }

    /// The `accounts` of NATS' configuration, where nobody else has one.
    pub fn render(&self) -> Value {
        json!({ "LEND": self.account(), "SYS": { "users": [] } })
    }

    /// The account that lent work is confined to.
    pub fn account(&self) -> Value {
        let servers = self.servers.iter().map(|key| json!({ "nkey": key.0 }));
        let devices = self.devices.iter().map(|(name, key)| {
            json!({ "nkey": key.0, "permissions": {
                "publish": { "allow": [
                    format!("lend.want.{name}"), format!("lend.beat.{name}"), format!("lend.out.{name}.>"),
                ] },
                "subscribe": { "allow": [format!("_INBOX_{name}.>")] },
            } })
        });
        let submitters = self.submitters.iter().map(|(name, key)| {
            json!({ "nkey": key.0, "permissions": {
                "publish": { "allow": [format!("lend.submit.{name}")] },
                "subscribe": { "allow": [format!("_INBOX_submit_{name}.>")] },
            } })
        });
        let users: Vec<Value> = servers.chain(devices).chain(submitters).collect();
        json!({ "jetstream": "enabled", "users": users })
    }
}
