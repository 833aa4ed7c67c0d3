//! Many requests, connections and addresses at once.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use undercroft_netboot::event::Service;
use undercroft_netboot::tftp::NEVER_ACKED_MS;

use super::*;
use crate::support::{CLIENT, in_namespace};

#[test]
fn requests_that_nobody_acknowledges_shut_no_one_out() {
    let test = "crowds::requests_that_nobody_acknowledges_shut_no_one_out";
    in_namespace(test, &[], || {
        // The client's namespace answers for a whole network, so that it can send from any of it.
        run("ip -n client route add local 10.99.0.0/16 dev lo");
        run("ip route add 10.99.0.0/16 via 10.77.0.3");
        let site = Site::new();
        with_servers(site.config(60), |netboot| {
            let mut events = netboot.events();
            let flood: Vec<_> = (0..1600u32)
                .map(|n| {
                    let [_, _, high, low] = n.to_be_bytes();
                    let socket = udp_at("client", Ipv4Addr::new(10, 99, high, low));
                    ask_tftp(&socket, b"timeout\x00255\0blksize\x001468\0");
                    socket
                })
                .collect();
            assert!(fetch_tftp(&udp_at("other", Ipv4Addr::UNSPECIFIED)) == site.content);
            await_event(&mut events, |e| {
                says(e, "TFTP transfers under many addresses")
            });
            // One address alone, from many ports: it gets in its own way and in nobody else's.
            let same: Vec<_> = (0..300)
                .map(|_| {
                    let socket = udp_at("client", CLIENT);
                    ask_tftp(&socket, b"");
                    socket
                })
                .collect();
            assert!(fetch_tftp(&udp_at("other", Ipv4Addr::UNSPECIFIED)) == site.content);
            assert!(fetch_tftp(&udp_at("client", CLIENT)) == site.content);
            drop((flood, same));
        });
    });
}

#[test]
fn a_transfer_that_was_never_acknowledged_ends_in_seconds() {
    let test = "crowds::a_transfer_that_was_never_acknowledged_ends_in_seconds";
    in_namespace(test, &[], || {
        let site = Site::new();
        with_servers(site.config(60), |netboot| {
            let mut events = netboot.events();
            let socket = udp_at("client", CLIENT);
            let began = Instant::now();
            ask_tftp(&socket, b"timeout\x00255\0tsize\x000\0");
            let mut answer = [0; 600];
            let (len, _) = socket.recv_from(&mut answer).unwrap();
            // RFC 2349: another value than was asked for may not be answered.
            assert_eq!(&answer[..len], b"\0\x06tsize\x00300001\0");
            let gone = await_event(&mut events, |e| {
                matches!(e.kind, EventKind::TftpAborted { .. })
            });
            assert!(began.elapsed() < Duration::from_millis(NEVER_ACKED_MS * 3));
            let EventKind::TftpAborted { reason, .. } = gone.kind else {
                panic!()
            };
            assert_eq!(reason, "nothing acknowledged within 5 s");
        });
    });
}

#[test]
fn a_new_request_of_a_port_takes_the_place_of_its_old_one() {
    let test = "crowds::a_new_request_of_a_port_takes_the_place_of_its_old_one";
    in_namespace(test, &[], || {
        let site = Site::new();
        with_servers(site.config(60), |netboot| {
            let mut events = netboot.events();
            let socket = udp_at("client", CLIENT);
            let mut buffer = [0; 600];
            ask_tftp(&socket, b"");
            let (_, first) = socket.recv_from(&mut buffer).unwrap();
            // The same request, before anything was acknowledged: the same answer, at once.
            ask_tftp(&socket, b"");
            assert_eq!(socket.recv_from(&mut buffer).unwrap(), (516, first));
            // Another one: the old transfer ends.
            ask_tftp(&socket, b"blksize\x001024\0");
            let (len, second) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"\0\x06blksize\x001024\0");
            assert_ne!(first, second);
            // The same again after an acknowledgement: it begins anew.
            socket.send_to(&[0, 4, 0, 0], second).unwrap();
            let mut block = [0; 1100];
            assert_eq!(socket.recv_from(&mut block).unwrap().0, 1028);
            ask_tftp(&socket, b"blksize\x001024\0");
            wait_for("the new answer", || {
                let (len, from) = socket.recv_from(&mut block).unwrap();
                from != second && block[..len].starts_with(b"\0\x06")
            });
            for _ in 0..2 {
                await_event(
                    &mut events,
                    |e| matches!(&e.kind, EventKind::TftpAborted { reason, .. } if reason.contains("asked anew")),
                );
            }
        });
    });
}

fn get(namespace: &str) -> String {
    let mut stream = inside(namespace, || TcpStream::connect((SERVER, 8080)).unwrap());
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let path = format!("GET /artifacts/{FILE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(path.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..answer.len().min(15)]).into_owned()
}

/// Opens so many connections from each of nine addresses, and leaves them idle.
fn nine_addresses(each: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for n in 0..9u8 {
        let from = Ipv4Addr::new(10, 77, 0, 200 + n);
        if each > 0 && all.len() < 9 * each {
            run(&format!("ip -n client addr replace {from}/24 dev eth0"));
        }
        let more = inside("client", move || {
            let mut more = Vec::new();
            for _ in 0..each {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                        .unwrap();
                socket.bind(&SocketAddrV4::new(from, 0).into()).unwrap();
                let to = SocketAddr::from((SERVER, 8080));
                if socket
                    .connect_timeout(&to.into(), Duration::from_secs(5))
                    .is_ok()
                {
                    more.push(TcpStream::from(socket));
                }
            }
            more
        });
        all.extend(more);
    }
    all
}

#[test]
fn nine_addresses_with_idle_connections_shut_no_one_out() {
    let test = "crowds::nine_addresses_with_idle_connections_shut_no_one_out";
    in_namespace(test, &[], || {
        let site = Site::new();
        with_servers(site.config(60), |netboot| {
            let mut events = netboot.events();
            let mut idle = nine_addresses(128);
            for (n, stream) in idle.iter_mut().enumerate() {
                // Half of them begin a request, and never end it.
                let _ = if n % 2 == 0 {
                    stream.write(b"GET /x HT")
                } else {
                    Ok(0)
                };
            }
            for _ in 0..20 {
                assert_eq!(get("other"), "HTTP/1.1 200 OK");
            }
            await_event(&mut events, |e| says(e, "HTTP connections at once"));
            // Those that never asked for anything are closed in seconds, whoever else is there.
            wait_for("idle connections to be closed", || {
                idle.iter_mut().all(|stream| {
                    stream.set_nonblocking(true).unwrap();
                    let mut answer = [0; 1024];
                    match stream.read(&mut answer) {
                        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
                        Ok(len) => len == 0 || answer.starts_with(b"HTTP/1.1 408"),
                    }
                })
            });
        });
    });
}

#[test]
fn with_few_descriptors_nothing_is_answered_with_an_error() {
    let test = "crowds::with_few_descriptors_nothing_is_answered_with_an_error";
    in_namespace(test, &[], || {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let site = Site::new();
        // The attacker's own descriptors are opened before the limit is set.
        let config = site.config(60);
        let (senders, limited) = {
            let senders: Vec<_> = (0..500).map(|_| udp_at("client", CLIENT)).collect();
            let limit = Rlimit {
                current: Some(1024),
                maximum: Some(1024),
            };
            setrlimit(Resource::Nofile, limit).unwrap();
            (senders, limit)
        };
        assert_eq!(limited.maximum, Some(1024));
        // Half of the descriptors are gone: the servers' part is smaller still than reckoned.
        with_servers(config, |netboot| {
            for socket in &senders {
                ask_tftp(socket, b"");
            }
            for _ in 0..5 {
                assert_eq!(get("other"), "HTTP/1.1 200 OK");
            }
            let drops = netboot.drops();
            let failed = drops.iter().find(|(service, reason, _)| {
                *service == Service::Http && *reason == undercroft_netboot::DropReason::SendFailed
            });
            assert!(failed.is_none());
        });
    });
}
