//! Errors of the boot servers.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use undercroft_model::NodeName;

/// Why a boot server couldn't be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetbootError {
    /// Two machines share what should tell them apart.
    #[error("machines {first} and {second} share the {what} {value}")]
    DuplicateMachine {
        /// What they share.
        what: &'static str,
        /// Its value.
        value: String,
        /// One of the machines.
        first: NodeName,
        /// The other.
        second: NodeName,
    },
    /// A machine that the table doesn't have.
    #[error("netboot knows no machine {name}")]
    UnknownMachine {
        /// The name that was asked for.
        name: NodeName,
    },
    /// A setting that makes no sense.
    #[error("netboot setting {setting}: {problem}")]
    BadConfig {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A file that is to be served can't be read.
    #[error("cannot serve {}: {source}", path.display())]
    Artifact {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The network interface isn't there.
    #[error("there is no network interface {name}; `ip link` lists those that there are")]
    NoInterface {
        /// The interface that was asked for.
        name: String,
    },
    /// The server's address isn't one of this machine's.
    #[error(
        "{address} is not an address of this machine; `ip -4 address show dev {interface}` lists \
         those of {interface}"
    )]
    NoAddress {
        /// The address that was asked for.
        address: Ipv4Addr,
        /// The interface that was asked for.
        interface: String,
    },
    /// Another program has the port.
    #[error("{service} cannot listen on {protocol} port {port}: it is in use; {hint}")]
    PortInUse {
        /// The server that wanted it.
        service: &'static str,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// The port.
        port: u16,
        /// What to try.
        hint: String,
    },
    /// Ports under 1024, and binding to an interface, need a privilege.
    #[error(
        "{service} may not listen on {protocol} port {port}: permission denied; run the command with \
         sudo, as `sudo env \"PATH=$PATH\" undercroft up`: it works as the folder's owner all the \
         same, and keeps the ports alone of root's rights. A service gets them by \
         AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW"
    )]
    NotPermitted {
        /// The server that wanted it.
        service: &'static str,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// The port.
        port: u16,
    },
    /// Another failure of a socket.
    #[error("{service}: {action}: {source}")]
    Socket {
        /// The server.
        service: &'static str,
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
}
