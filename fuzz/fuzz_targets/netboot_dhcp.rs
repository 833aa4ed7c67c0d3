//! Any packet on port 67 or 4011 is answered with a packet that can be read, or dropped.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use libfuzzer_sys::fuzz_target;
use undercroft_model::{MacAddr, NodeName, System};
use undercroft_netboot::arch::IpxeBinary;
use undercroft_netboot::dhcp::{Incoming, LeaseStore, Port, ServerView, handle};
use undercroft_netboot::server::DhcpSettings;
use undercroft_netboot::table::UnknownPolicy;
use undercroft_netboot::{BootIntent, BootTable, BootMachine, Mode, Site};

fuzz_target!(|packet: &[u8]| {
    let Ok(name) = NodeName::new("gpu-01") else { return };
    let macs = vec![MacAddr([0x52, 0x54, 0, 0, 0, 1])];
    let machine = BootMachine::new(name, macs, System::X86_64Linux, BootIntent::Install);
    let Ok(table) = BootTable::new([machine], UnknownPolicy::Discover) else { return };
    let server = Ipv4Addr::new(10, 0, 0, 1);
    let site = Site {
        address: server,
        http_port: 8080,
        installers: BTreeMap::new(),
        ipxe: BTreeSet::from(IpxeBinary::ALL),
        artifacts: BTreeSet::new(),
    };
    let (first, last) = (Ipv4Addr::new(10, 0, 0, 100), Ipv4Addr::new(10, 0, 0, 110));
    let modes = [Mode::Server(DhcpSettings::range(first, last)), Mode::Proxy, Mode::Port4011Only];
    for mode in &modes {
        for port in [Port::Dhcp, Port::Pxe] {
            let mut leases = LeaseStore::new(first, last);
            let source = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 200), 68);
            let incoming = Incoming { packet, source, port, now_ms: 1_000_000 };
            let view = ServerView { table: &table, site: &site, mode, prefix_bits: 24 };
            if let Ok(reply) = handle(incoming, view, &mut leases).answer {
                assert_eq!(reply.bytes.first(), Some(&2));
                assert_eq!(reply.bytes.get(4..8), packet.get(4..8));
                assert_eq!(reply.bytes.get(28..34), packet.get(28..34));
            }
        }
    }
});
