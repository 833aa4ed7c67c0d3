//! Whether this user may open the ports of netboot, asked before anything is made.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
};

use undercroft_model::inventory::Inventory;

use crate::{error::CliError, people::Person, text::list};

/// Refuses a command that couldn't open its ports, with what it needs and the way that works.
pub(crate) fn refuse_closed(inventory: &Inventory, command: &str) -> Result<(), CliError> {
    // Which interface the servers will be on makes no difference to who may open their ports.
    let servers = undercroft_fleet::boot_config(inventory, String::new());
    let closed: Vec<String> = servers
        .listens_on()
        .iter()
        .filter(|port| is_closed(**port))
        .map(ToString::to_string)
        .collect();
    if closed.is_empty() {
        return Ok(());
    }
    let ports = if closed.len() == 1 { "port" } else { "ports" };
    Err(CliError::failed(format!(
        "{} may not open the {ports} {}, which machines boot from; nothing was done",
        Person::me().words(),
        list(&closed)
    ))
    .hint(format!(
        "Run it with sudo: sudo env \"PATH=$PATH\" undercroft {command}\n\
         It works as the folder's owner all the same, and keeps the ports alone of root's rights. \
         A service gets them by AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW, a program \
         file by setcap(8)."
    )))
}

/// Whether the kernel refuses a port to this user. Asking on the loopback interface disturbs
/// nobody; the rule is the same for every address (inet_bind, CAP_NET_BIND_SERVICE).
fn is_closed(port: u16) -> bool {
    matches!(
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied
    )
}
