//! What others say over D-Bus: GameMode, that somebody plays; NetworkManager, that the network is metered.
//!
//! Nobody is started for being asked: who isn't there says nothing.

use std::{collections::BTreeSet, time::Duration};

use zbus::{
    Connection as Dbus,
    fdo::DBusProxy,
    names::BusName,
    zvariant::{OwnedValue, Value},
};

/// How long an answer may take, in milliseconds.
const ANSWER_MS_MAX: u64 = 2_000;
/// NetworkManager's words for a metered network, as it knows and as it guesses (`NMMetered`).
const METERED: [u32; 2] = [1, 3];
/// Its word for not knowing, which it has where there is no network.
const METERED_UNKNOWN: u32 = 0;

/// The two buses, connected to when they are asked for the first time.
#[derive(Debug, Default)]
pub struct Buses {
    session: Option<Dbus>,
    system: Option<Dbus>,
}

struct Asked {
    name: &'static str,
    path: &'static str,
    property: &'static str,
}

const GAMEMODE: Asked = Asked {
    name: "com.feralinteractive.GameMode",
    path: "/com/feralinteractive/GameMode",
    property: "ClientCount",
};
const NETWORK: Asked = Asked {
    name: "org.freedesktop.NetworkManager",
    path: "/org/freedesktop/NetworkManager",
    property: "Metered",
};

impl Buses {
    /// Why nothing is lent now, as far as others say it.
    pub async fn reasons(&mut self) -> BTreeSet<String> {
        let mut reasons = BTreeSet::new();
        if std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some() {
            match within(ask(&mut self.session, true, &GAMEMODE)).await {
                Ok(Some(Value::I32(clients))) if clients > 0 => {
                    reasons.insert("a game is running (GameMode)".to_owned());
                }
                Ok(None | Some(Value::I32(_))) => {}
                other => {
                    self.session = None;
                    reasons.insert(unknown("whether a game is running", other));
                }
            }
        }
        if std::path::Path::new("/run/dbus/system_bus_socket").exists() {
            match within(ask(&mut self.system, false, &NETWORK)).await {
                Ok(Some(Value::U32(word))) if METERED.contains(&word) => {
                    reasons.insert("its network is metered".to_owned());
                }
                Ok(Some(Value::U32(METERED_UNKNOWN))) => {
                    reasons.insert("nobody knows whether its network is metered".to_owned());
                }
                Ok(None | Some(Value::U32(_))) => {}
                other => {
                    self.system = None;
                    reasons.insert(unknown("whether its network is metered", other));
                }
            }
        }
        reasons
    }
}

fn unknown(what: &str, answer: zbus::Result<Option<Value<'_>>>) -> String {
    match answer {
        Err(error) => format!("nobody knows {what}: {error}"),
        Ok(_) => format!("nobody knows {what}"),
    }
}

async fn within<T>(ask: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    let limit = Duration::from_millis(ANSWER_MS_MAX);
    match tokio::time::timeout(limit, ask).await {
        Ok(answer) => answer,
        Err(_) => Err(zbus::Error::Failure("there was no answer".to_owned())),
    }
}

/// A property; `None` where nobody has it.
async fn ask(
    bus: &mut Option<Dbus>,
    is_session: bool,
    asked: &Asked,
) -> zbus::Result<Option<Value<'static>>> {
    let connection = match bus {
        Some(connection) => connection.clone(),
        None => {
            let made = match is_session {
                true => Dbus::session().await?,
                false => Dbus::system().await?,
            };
            bus.insert(made).clone()
        }
    };
    let names = DBusProxy::new(&connection).await?;
    if !names.name_has_owner(BusName::try_from(asked.name)?).await? {
        return Ok(None);
    }
    let reply = connection
        .call_method(
            Some(asked.name),
            asked.path,
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &(asked.name, asked.property),
        )
        .await?;
    let value: OwnedValue = reply.body().deserialize()?;
    Ok(Some(Value::from(value)))
}
