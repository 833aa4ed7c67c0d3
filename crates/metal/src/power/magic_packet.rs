//! Wake-on-LAN's magic packet (AMD publication 20213, "Magic Packet Technology").

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::UdpSocket;
use undercroft_model::MacAddr;

/// Length of a magic packet, in bytes: six of 0xff and the address sixteen times.
pub const MAGIC_PACKET_BYTES: usize = 6 + 16 * 6;
/// The UDP port that magic packets go to: discard. Cards look for the pattern, not for the port.
pub const WAKE_PORT: u16 = 9;
/// How often the packet is sent, since a broadcast may be lost and nothing acknowledges it.
pub const MAGIC_PACKET_REPEATS: usize = 3;
/// The pause between two packets, in milliseconds.
const REPEAT_MS: u64 = 100;

/// The packet that wakes a card.
pub fn magic_packet(mac: MacAddr) -> [u8; MAGIC_PACKET_BYTES] {
    let mut packet = [0xff; MAGIC_PACKET_BYTES];
    for part in packet.chunks_exact_mut(6).skip(1) {
        part.copy_from_slice(&mac.0);
    }
    packet
}

/// Sends the packet, a few times.
pub(super) async fn send(mac: MacAddr, broadcast: Ipv4Addr) -> io::Result<()> {
    send_to(mac, broadcast, WAKE_PORT).await
}

pub(super) async fn send_to(mac: MacAddr, to: Ipv4Addr, port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.set_broadcast(true)?;
    let packet = magic_packet(mac);
    for repeat in 0..MAGIC_PACKET_REPEATS {
        if repeat > 0 {
            tokio::time::sleep(Duration::from_millis(REPEAT_MS)).await;
        }
        socket.send_to(&packet, (to, port)).await?;
    }
    Ok(())
}
