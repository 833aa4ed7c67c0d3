//! The servers on a network where somebody means harm, or where things are just not as they
//! should be: with real sockets, each test in namespaces of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests may fail as tests may"
)]

mod addresses;
mod crowds;
mod faults;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the other suite uses the rest")]
mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType};
use undercroft_model::{MacAddr, NodeName, System};
use undercroft_netboot::arch::IpxeBinary;
use undercroft_netboot::server::DhcpSettings;
use undercroft_netboot::table::UnknownPolicy;
use undercroft_netboot::{
    BootIntent, BootMachine, BootTable, EventKind, Mode, Netboot, NetbootConfig, NetbootEvent,
};

use support::{BRIDGE, Client, SERVER, wait_for};

const KNOWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const FIXED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const BOOT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
const FILE: &str = "ipxe-x64.efi";

struct Site {
    folder: tempfile::TempDir,
    content: Vec<u8>,
}

impl Site {
    fn new() -> Self {
        let content: Vec<u8> = (0..300_001u32)
            .map(|n| (n.wrapping_mul(31) >> 7) as u8)
            .collect();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), &content).unwrap();
        Self { folder, content }
    }

    /// With the addresses 10.77.0.50 to `last` for machines that nobody knows.
    fn config(&self, last: u8) -> NetbootConfig {
        let range = DhcpSettings::range([10, 77, 0, 50].into(), [10, 77, 0, last].into());
        let mut config = NetbootConfig::new(BRIDGE, SERVER, 24, Mode::Server(range));
        config.ipxe = BTreeMap::from([(IpxeBinary::X64, self.folder.path().join(FILE))]);
        config
    }
}

fn table() -> BootTable {
    let name = NodeName::new("gpu-01").unwrap();
    let machine = BootMachine {
        address: Some(FIXED),
        ..BootMachine::new(
            name,
            vec![MacAddr(KNOWN)],
            System::X86_64Linux,
            BootIntent::Install,
        )
    };
    BootTable::new([machine], UnknownPolicy::Discover).unwrap()
}

/// Starts the servers on a runtime of their own, and stops them when the body is done.
fn with_servers<T>(config: NetbootConfig, body: impl FnOnce(&Netboot) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let netboot = {
        let _inside = runtime.enter();
        Netboot::start(config, table()).unwrap()
    };
    let result = body(&netboot);
    runtime.block_on(netboot.stop());
    result
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .expect(line);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
}

/// Does something in a namespace; what it opens stays there.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = format!("/run/netns/{namespace}");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let namespace = std::fs::File::open(path).expect("the namespace is there");
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None).expect("setns");
            work()
        });
        thread.join().expect("the work in the namespace")
    })
}

fn udp_at(namespace: &str, address: Ipv4Addr) -> UdpSocket {
    let socket = inside(namespace, move || UdpSocket::bind((address, 0)).unwrap());
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

fn ask_tftp(socket: &UdpSocket, options: &[u8]) {
    let request = [b"\0\x01", FILE.as_bytes(), b"\0octet\0", options].concat();
    socket.send_to(&request, (SERVER, 69)).unwrap();
}

/// Fetches the file in blocks of 512 bytes.
fn fetch_tftp(socket: &UdpSocket) -> Vec<u8> {
    ask_tftp(socket, b"");
    let (mut whole, mut buffer) = (Vec::new(), [0; 600]);
    loop {
        let (len, from) = socket.recv_from(&mut buffer).expect("a block");
        assert_eq!(
            buffer[..2],
            [0, 3],
            "{}",
            String::from_utf8_lossy(&buffer[..len])
        );
        let block = u16::from_be_bytes([buffer[2], buffer[3]]);
        if usize::from(block) == whole.len() / 512 + 1 {
            whole.extend_from_slice(&buffer[4..len]);
        }
        socket.send_to(&[0, 4, buffer[2], buffer[3]], from).unwrap();
        if len < 516 {
            return whole;
        }
    }
}

/// Waits for an event that `wanted` likes.
fn await_event(
    events: &mut tokio::sync::broadcast::Receiver<NetbootEvent>,
    mut wanted: impl FnMut(&NetbootEvent) -> bool,
) -> NetbootEvent {
    use tokio::sync::broadcast::error::TryRecvError;
    let mut found = None;
    wait_for("an event", || {
        loop {
            match events.try_recv() {
                Ok(event) if wanted(&event) => {
                    found = Some(event);
                    return true;
                }
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(_) => return false,
            }
        }
    });
    found.unwrap()
}

fn says(event: &NetbootEvent, part: &str) -> bool {
    matches!(&event.kind, EventKind::Server { text } if text.contains(part))
}

/// DISCOVER and REQUEST, until there is an ACK.
fn lease(client: &Client) -> Ipv4Addr {
    let own = |m: &Message, kind| m.chaddr() == client.mac && m.opts().has_msg_type(kind);
    let discover = client.firmware(MessageType::Discover);
    let offer = client.exchange(&discover, BOOT, |m| own(m, MessageType::Offer));
    let mut request = client.firmware(MessageType::Request);
    let options = request.opts_mut();
    options.insert(DhcpOption::ServerIdentifier(SERVER));
    options.insert(DhcpOption::RequestedIpAddress(offer.yiaddr()));
    client
        .exchange(&request, BOOT, |m| own(m, MessageType::Ack))
        .yiaddr()
}
