//! Binding the sockets, with errors that say what to try.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::error::NetbootError;
use crate::server::config::{Mode, NetbootConfig};

/// How many connections may wait to be accepted.
const HTTP_BACKLOG: i32 = 512;
/// The receive buffer of the listening sockets: a thousand machines that are switched on at once send
/// a thousand packets in one breath, each of which takes 1,280 bytes or more of kernel memory.
const RECEIVE_BYTES: usize = 4 << 20;
/// The send buffer of a TFTP transfer: two windows of 64 blocks.
const TFTP_SEND_BYTES: usize = 512 << 10;

/// The number of an interface: one that was made anew has another.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let socket = udp("netboot").ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}

/// Refuses an interface that isn't there and an address that isn't this machine's.
pub(crate) fn check_interface(config: &NetbootConfig) -> Result<(), NetbootError> {
    let socket = udp("netboot")?;
    let index = rustix::net::netdevice::name_to_index(&socket, &config.interface);
    if index.is_err() {
        return Err(NetbootError::NoInterface {
            name: config.interface.clone(),
        });
    }
    let address = SocketAddrV4::new(config.address, 0);
    socket
        .bind(&address.into())
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable => NetbootError::NoAddress {
                address: config.address,
                interface: config.interface.clone(),
            },
            _ => socket_error("netboot", "binding its own address", error),
        })
}

/// Two sockets on one port: one hears everything that comes in by the interface, broadcasts
/// included; by the other, which is bound to the server's own address, all answers leave, so that
/// they come from that address and no other of the interface's. It hears what is sent to it.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) hear: UdpSocket,
    pub(crate) speak: UdpSocket,
}

/// The DHCP sockets.
pub(crate) fn dhcp(config: &NetbootConfig) -> Result<Pair, NetbootError> {
    let hint = match config.mode {
        Mode::Server(_) => {
            "another DHCP server runs on this machine: stop it, or use proxy or 4011-only mode"
        }
        _ => "another DHCP server runs on this machine: use the 4011-only mode",
    };
    pair("DHCP", config, config.ports.dhcp, hint)
}

/// The PXE boot server's sockets.
pub(crate) fn pxe(config: &NetbootConfig) -> Result<Pair, NetbootError> {
    let hint = "another proxyDHCP server runs on this machine: stop it";
    pair("PXE", config, config.ports.pxe, hint)
}

/// The socket that probes leave by.
pub(crate) fn probe(interface: &str, own: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(own, 0).into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

fn pair(
    service: &'static str,
    config: &NetbootConfig,
    port: u16,
    hint: &str,
) -> Result<Pair, NetbootError> {
    let hear = datagram(service, config, Ipv4Addr::UNSPECIFIED, port, hint)?;
    // That nobody else has the port is certain once the first is bound; only then the two are
    // allowed beside each other, and afterwards nobody else is.
    let shared = |socket: &Socket, is: bool| {
        socket
            .set_reuse_address(is)
            .map_err(|e| socket_error(service, "setting SO_REUSEADDR", e))
    };
    shared(&hear, true)?;
    let speak = udp(service)?;
    shared(&speak, true)?;
    prepare(&speak, service)?;
    bind(&speak, service, "udp", config, config.address, port, hint)?;
    shared(&hear, false)?;
    shared(&speak, false)?;
    Ok(Pair {
        hear: hand_over(hear, service)?,
        speak: hand_over(speak, service)?,
    })
}

/// TFTP's listening socket.
pub(crate) fn tftp(config: &NetbootConfig) -> Result<UdpSocket, NetbootError> {
    let hint = "another TFTP server runs on this machine: stop it";
    let socket = datagram("TFTP", config, config.address, config.ports.tftp, hint)?;
    hand_over(socket, "TFTP")
}

/// A connected socket for one TFTP transfer, from a port of its own (RFC 1350, section 4).
pub(crate) fn tftp_transfer(
    interface: &str,
    address: Ipv4Addr,
    client: SocketAddrV4,
) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(address, 0).into())?;
    socket.connect(&client.into())?;
    // A smaller buffer than asked for only makes a window wait.
    let _ = socket.set_send_buffer_size(TFTP_SEND_BYTES);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// HTTP's listening socket.
pub(crate) fn http(config: &NetbootConfig) -> Result<TcpListener, NetbootError> {
    let service = "HTTP";
    let port = config.ports.http;
    let other = |action: &str| {
        let action = action.to_owned();
        move |source| NetbootError::Socket {
            service,
            action,
            source,
        }
    };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        .map_err(other("opening a socket"))?;
    // Lets a restarted server have the port although old connections linger; on Linux it doesn't
    // let two servers listen on one port.
    socket
        .set_reuse_address(true)
        .map_err(other("setting SO_REUSEADDR"))?;
    bind(
        &socket,
        service,
        "tcp",
        config,
        config.address,
        port,
        "choose another port for HTTP",
    )?;
    socket
        .listen(HTTP_BACKLOG)
        .and_then(|()| socket.set_nonblocking(true))
        .and_then(|()| TcpListener::from_std(socket.into()))
        .map_err(other("listening"))
}

fn datagram(
    service: &'static str,
    config: &NetbootConfig,
    address: Ipv4Addr,
    port: u16,
    hint: &str,
) -> Result<Socket, NetbootError> {
    let socket = udp(service)?;
    prepare(&socket, service)?;
    bind(&socket, service, "udp", config, address, port, hint)?;
    Ok(socket)
}

fn prepare(socket: &Socket, service: &'static str) -> Result<(), NetbootError> {
    socket
        .set_broadcast(true)
        .map_err(|e| socket_error(service, "setting SO_BROADCAST", e))?;
    // The larger buffer needs CAP_NET_ADMIN; without it the system's limit holds.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
    }
    Ok(())
}

fn hand_over(socket: Socket, service: &'static str) -> Result<UdpSocket, NetbootError> {
    socket
        .set_nonblocking(true)
        .and_then(|()| UdpSocket::from_std(socket.into()))
        .map_err(|e| socket_error(service, "handing the socket to the runtime", e))
}

fn bind(
    socket: &Socket,
    service: &'static str,
    protocol: &'static str,
    config: &NetbootConfig,
    address: Ipv4Addr,
    port: u16,
    hint: &str,
) -> Result<(), NetbootError> {
    let not_permitted = || NetbootError::NotPermitted {
        service,
        protocol,
        port,
    };
    socket
        .bind_device(Some(config.interface.as_bytes()))
        .map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => not_permitted(),
            _ => socket_error(service, "binding to the interface", error),
        })?;
    socket
        .bind(&SocketAddrV4::new(address, port).into())
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => NetbootError::PortInUse {
                service,
                protocol,
                port,
                hint: hint.to_owned(),
            },
            io::ErrorKind::PermissionDenied => not_permitted(),
            _ => socket_error(service, "binding its port", error),
        })
}

fn udp(service: &'static str) -> Result<Socket, NetbootError> {
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))
        .map_err(|e| socket_error(service, "opening a socket", e))
}

fn socket_error(service: &'static str, action: &str, source: io::Error) -> NetbootError {
    NetbootError::Socket {
        service,
        action: action.to_owned(),
        source,
    }
}
