//! Whether somebody has an address already, found out ahead of time and beside the answering.
//!
//! A datagram to the address makes the kernel ask for it on the link (ARP); a moment later the
//! kernel's table of neighbours says who has answered. This needs no privilege, tells the
//! holder's Ethernet address, and sees hosts that answer no ping.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use undercroft_model::MacAddr;

use crate::dhcp::serve::Dhcp;
use crate::event::EventKind;
use crate::server::shared::{About, Shared};
use crate::server::sockets;

/// How often it is looked whether there is something to probe.
const TICK: Duration = Duration::from_millis(250);
/// How long an answer is waited for. On one link it takes milliseconds; the kernel asks a second
/// time after a second.
const ANSWER_WAIT: Duration = Duration::from_millis(1200);
/// Where the datagram goes: the discard service (RFC 863), which hardly anybody runs.
const DISCARD: u16 = 9;
/// The most that is read of the kernel's table, in bytes; it has some 80 for each neighbour.
const MAX_TABLE_BYTES: u64 = 4 << 20;

/// Probes what the leases want probed, until it is told to stop.
pub(crate) async fn keep(
    dhcp: Dhcp,
    interface: String,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let addresses = {
            let table = shared.table();
            let own = shared.site.address;
            let taken = |address| address == own || table.by_address(address).is_some();
            dhcp.leases().to_probe(taken, shared.clock.now_ms())
        };
        if addresses.is_empty() {
            continue;
        }
        // Where nothing can be sent or read, nothing is learnt, and nothing is offered: the next
        // round tries again.
        let asked = ask(&interface, shared.site.address, &addresses).await;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(ANSWER_WAIT) => {}
        }
        match asked.and_then(|()| neighbours(&interface)) {
            Ok(neighbours) => take_in(&dhcp, &shared, &addresses, &neighbours),
            Err(error) => shared.say(format!("addresses can't be probed: {error}")),
        }
    }
}

async fn ask(interface: &str, own: Ipv4Addr, addresses: &[Ipv4Addr]) -> io::Result<()> {
    let socket = sockets::probe(interface, own)?;
    for address in addresses {
        // An address that can't be reached is one that nobody answers for.
        let _ = socket
            .send_to(&[0], SocketAddrV4::new(*address, DISCARD))
            .await;
    }
    Ok(())
}

/// The neighbours on an interface that have answered.
fn neighbours(interface: &str) -> io::Result<BTreeMap<Ipv4Addr, MacAddr>> {
    let mut text = String::new();
    File::open("/proc/thread-self/net/arp")?
        .take(MAX_TABLE_BYTES)
        .read_to_string(&mut text)?;
    Ok(neighbours_in(&text, interface))
}

/// Reads the kernel's table of neighbours (proc_net(5)): address, hardware type, flags, Ethernet address, mask, device.
/// Flag 2 says that the entry is complete.
pub fn neighbours_in(text: &str, interface: &str) -> BTreeMap<Ipv4Addr, MacAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            let flags = words.nth(1)?.strip_prefix("0x")?;
            let flags = u32::from_str_radix(flags, 16).ok()?;
            let mac = words.next()?.parse().ok()?;
            let device = words.nth(1)?;
            (flags & 2 != 0 && device == interface).then_some((address, mac))
        })
        .collect()
}

fn take_in(
    dhcp: &Dhcp,
    shared: &Shared,
    addresses: &[Ipv4Addr],
    neighbours: &BTreeMap<Ipv4Addr, MacAddr>,
) {
    let now_ms = shared.clock.now_ms();
    for address in addresses {
        let by = neighbours.get(address).copied();
        let (node, macs) = {
            let table = shared.table();
            match table.by_address(*address) {
                Some(machine) => (Some(machine.name.clone()), machine.macs.clone()),
                None => (None, Vec::new()),
            }
        };
        let own = |mac: MacAddr| macs.contains(&mac);
        let is_news = dhcp
            .leases()
            .probed(*address, by, own, node.is_some(), now_ms);
        if let (true, Some(by)) = (is_news, by) {
            let about = About {
                mac: macs.first().copied().or(Some(by)),
                node,
                uuid: None,
                address: Some(*address),
            };
            shared.tell(&about, EventKind::AddressInUse { by });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "\
IP address       HW type     Flags       HW address            Mask     Device
10.77.0.2        0x1         0x2         52:54:00:00:00:02     *        boot0
10.77.0.3        0x1         0x0         00:00:00:00:00:00     *        boot0
10.77.0.4        0x1         0x6         52:54:00:00:00:04     *        boot0
10.77.0.5        0x1         0x2         52:54:00:00:00:05     *        eth1
nonsense";
        let found = neighbours_in(text, "boot0");
        let last: Vec<u8> = found.keys().map(|a| a.octets()[3]).collect();
        assert_eq!(last, [2, 4]);
    }
}
