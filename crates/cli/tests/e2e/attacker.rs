//! Somebody on the machines' network who does what anybody there can, as often as the network
//! carries it: nothing but time is lost, and who it was is said.
//!
//! The attacker is this very test program, run once more in a network namespace of its own, with a
//! cable to the rack's bridge and ten addresses. It knows all that the network tells: the machines'
//! Ethernet addresses, UUIDs and planned addresses. It doesn't take the machines' own addresses.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::{
    bring_up::{assert_up, wipes},
    fleet::{BRING_UP_S, Fleet, Node, inventory, missing, wait_until},
};

/// What tells the program that it is the attacker, and on whom it sets.
const VICTIMS: &str = "UNDERCROFT_TEST_VICTIMS";
/// How long the attack takes, in seconds.
const SECONDS: &str = "UNDERCROFT_TEST_ATTACK_S";
/// The attacker's first address; it has nine more.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 66);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const HTTP_PORT: u16 = 8080;
/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_millis(500);

/// Run inside the rack's network. The attacker's processor time comes last: on another machine it
/// would take none of ours.
const ATTACK: &str = r#"
unshare --net sh -c '
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
    for n in 66 67 68 69 70 71 72 73 74 75; do ip addr add 10.88.0.$n/24 dev eth0; done
    ip link set eth0 up && ip link set lo up &&
    exec nice -n 19 "$0" --exact attacker::the_attacker_itself --nocapture --test-threads=1
' "$1" &
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add attacker0 type veth peer name eth0 netns $! && ip link set attacker0 master br0 up
wait
"#;

struct Attacker {
    child: Child,
    log: PathBuf,
}

impl Attacker {
    fn start(fleet: &Fleet, nodes: &[Node], seconds: u64) -> Self {
        let log = fleet.folder.join("attacker.log");
        let mut victims = String::new();
        for node in nodes {
            let _ = write!(victims, "{} {} ", node.mac(), node.address());
        }
        let exe = std::env::current_exe().unwrap().display().to_string();
        let state = fleet.folder.join(".undercroft/rack");
        let file = std::fs::File::create(&log).unwrap();
        let child = undercroft_rack::enter_command(&state, "sh", ["-c", ATTACK, "sh", &exe])
            .unwrap()
            .env(VICTIMS, victims.trim())
            .env(SECONDS, seconds.to_string())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap();
        let attacker = Self { child, log };
        wait_until("the attacker begins", 60, || {
            attacker.log().contains("attacking")
        });
        attacker
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// Three machines come up under an attack of as many seconds as `UNDERCROFT_TEST_ATTACK_S` says: 600 for the
/// whole of it.
#[test]
fn three_machines_come_up_under_attack() {
    if let Some(reason) = missing(&[]) {
        println!("SKIPPED: {reason}");
        return;
    }
    let seconds = std::env::var(SECONDS).ok();
    let Some(seconds) = seconds.and_then(|text| text.parse().ok()) else {
        println!("SKIPPED: an attack of ten minutes is run by name, with {SECONDS}=600");
        return;
    };
    let nodes = [
        Node::uefi("victim-1", 11),
        Node::uefi("victim-2", 12),
        Node::uefi("victim-3", 13),
    ];
    // Addresses for unknown machines too, so that there is something to use up.
    let text = inventory("server", &nodes).replace(
        "http_port = 8080\n",
        "http_port = 8080\ndhcp_range = { first = \"10.88.0.200\", last = \"10.88.0.220\" }\n",
    );
    let mut fleet = Fleet::start("attacked", &text, &[]);
    let attacker = Attacker::start(&fleet, &nodes, seconds);
    let mut up = fleet.spawn(&["up", "--yes"]);
    let status = up.wait(3 * BRING_UP_S);
    assert!(status.success(), "{}\n{}", up.text(), attacker.log());
    assert_up(&fleet, &nodes);
    for node in &nodes {
        assert_eq!(wipes(&fleet, node.name), 1, "{}", node.name);
    }
    let spent: Vec<_> = fleet
        .records()
        .into_iter()
        .filter(|record| record["record"] == "node-restarted" || record["record"] == "node-failed")
        .collect();
    assert!(spent.is_empty(), "{spent:#?}");
    for node in &nodes {
        let doctor = fleet.call(&["doctor", node.name]);
        assert!(
            doctor.text.contains(&ATTACKER.to_string()),
            "{}",
            doctor.text
        );
    }
    let approve = fleet.call(&["approve"]);
    assert!(
        approve.text.contains(&ATTACKER.to_string()),
        "{}",
        approve.text
    );
    wait_until("the attack is over", seconds + 120, || {
        attacker.log().contains("attack is over")
    });
    let log = attacker.log();
    println!("{log}");
    let told = log.lines().find(|line| line.contains("attack is over"));
    assert!(
        told.is_some_and(|line| line.contains(" 0 believed")),
        "{log}"
    );
    // Once it is over there is nothing to make good.
    let again = fleet.call(&["up", "--yes"]);
    assert!(again.status.success(), "{}", again.text);
    assert_up(&fleet, &nodes);
}

#[derive(Clone)]
struct Victim {
    mac: String,
    address: String,
}

#[derive(Default)]
struct Counts {
    reports: AtomicU64,
    believed: AtomicU64,
    scripts: AtomicU64,
    dhcp: AtomicU64,
    tftp: AtomicU64,
    idle: AtomicU64,
}

fn count(of: &AtomicU64) -> u64 {
    of.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn the_attacker_itself() {
    let Ok(victims) = std::env::var(VICTIMS) else {
        println!("SKIPPED: nobody is to be attacked");
        return;
    };
    let words: Vec<&str> = victims.split(' ').collect();
    let victims: Vec<Victim> = words
        .chunks(2)
        .map(|pair| Victim {
            mac: pair[0].to_owned(),
            address: pair[1].to_owned(),
        })
        .collect();
    let seconds: u64 = std::env::var(SECONDS).unwrap().parse().unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let counts = Counts::default();
    println!("attacking for {seconds} s");
    std::thread::scope(|scope| {
        scope.spawn(|| forge_reports(&victims, &counts, end));
        scope.spawn(|| ask_for_scripts(&victims, &counts, end));
        scope.spawn(|| starve_dhcp(&victims, &counts, end));
        scope.spawn(|| flood_tftp(&counts, end));
        scope.spawn(|| hold_connections(&counts, end));
    });
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "attack is over: {} reports, {} believed; {} scripts, {} DHCP packets, {} TFTP requests, {} idle connections",
        of(&counts.reports),
        of(&counts.believed),
        of(&counts.scripts),
        of(&counts.dhcp),
        of(&counts.tftp),
        of(&counts.idle)
    );
}

/// Sends a request, and gives what came back, if anything did.
fn ask(request: &str) -> Option<String> {
    let server = SocketAddr::from((SERVER, HTTP_PORT));
    let mut stream = TcpStream::connect_timeout(&server, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // What was cut off is an answer too.
    let _ = stream.read_to_end(&mut answer);
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn script(victim: &Victim) -> Option<String> {
    let mac = victim.mac.replace(':', "-");
    ask(&format!(
        "GET /boot.ipxe?mac={mac}&arch=7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ))
}

fn forge_reports(victims: &[Victim], counts: &Counts, end: Instant) {
    let own = ATTACKER.to_string();
    while Instant::now() < end {
        for victim in victims {
            let token = script(victim).and_then(|script| {
                let mut words = script.split_whitespace();
                let word = words.find_map(|word| word.strip_prefix("undercroft.token="));
                word.map(str::to_owned)
            });
            let token = token.unwrap_or_default();
            for address in [
                own.as_str(),
                victim.address.as_str(),
                "8.8.8.8",
                "127.0.0.1",
                "0.0.0.0",
                "10.88.0.1",
            ] {
                let number = count(&counts.reports);
                let json = format!(
                    r#"{{"version":1,"nonce":"{number:032x}","uuid":null,"macs":["{mac}"],
                    "address":"{address}","boot_id":"00000000-0000-4000-8000-{number:012x}",
                    "host_key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{number:034}",
                    "fingerprint":"SHA256:{number:043}","system":"x86_64-linux",
                    "firmware":"uefi","memory_mb":1024,"installer":"forged",
                    "token":"{token}","disks":[]}}"#,
                    mac = victim.mac,
                );
                let answer = ask(&format!(
                    "POST /v1/report HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{json}",
                    json.len()
                ));
                if answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                    count(&counts.believed);
                }
            }
        }
    }
}

fn ask_for_scripts(victims: &[Victim], counts: &Counts, end: Instant) {
    while Instant::now() < end {
        for victim in victims {
            if script(victim).is_some() {
                count(&counts.scripts);
            }
        }
    }
}

/// One DHCP message of a boot client.
fn dhcp(kind: u8, mac: [u8; 6], number: u64, address: Option<Ipv4Addr>) -> Vec<u8> {
    let mut packet = vec![1, 1, 6, 0];
    packet.extend(&number.to_be_bytes()[4..]);
    // Seconds, and the flag that asks for a broadcast; then the four addresses.
    packet.extend([0, 0, 0x80, 0]);
    packet.extend([0; 16]);
    packet.extend(mac);
    packet.resize(236, 0);
    packet.extend([99, 130, 83, 99, 53, 1, kind]);
    packet.extend([60, 20]);
    packet.extend(b"PXEClient:Arch:00007");
    packet.extend([93, 2, 0, 7, 94, 3, 1, 3, 16]);
    if let Some(address) = address {
        packet.extend([50, 4]);
        packet.extend(address.octets());
        packet.extend([54, 4]);
        packet.extend(SERVER.octets());
    }
    packet.push(255);
    packet
}

fn starve_dhcp(victims: &[Victim], counts: &Counts, end: Instant) {
    const DISCOVER: u8 = 1;
    const REQUEST: u8 = 3;
    const DECLINE: u8 = 4;
    const RELEASE: u8 = 7;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).unwrap();
    socket.set_broadcast(true).unwrap();
    let send = |packet: &[u8]| {
        let number = count(&counts.dhcp);
        let _ = socket.send_to(packet, (Ipv4Addr::BROADCAST, 67));
        number
    };
    while Instant::now() < end {
        for victim in victims {
            let digits = victim.mac.split(':');
            let bytes: Vec<u8> = digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect();
            let mac: [u8; 6] = bytes.try_into().unwrap();
            let address: Ipv4Addr = victim.address.parse().unwrap();
            for kind in [DISCOVER, REQUEST, DECLINE, RELEASE] {
                let number = counts.dhcp.load(Ordering::Relaxed);
                send(&dhcp(kind, mac, number, Some(address)));
            }
        }
        // Everybody's addresses, in as many names as it takes.
        for _ in 0..16 {
            let number = counts.dhcp.load(Ordering::Relaxed);
            let [.., a, b, c, d] = number.to_be_bytes();
            let mac = [2, 0, a, b, c, d];
            send(&dhcp(DISCOVER, mac, number, None));
            let wanted = Ipv4Addr::new(10, 88, 0, 200 + d % 21);
            send(&dhcp(REQUEST, mac, number, Some(wanted)));
        }
        // And packets that are none.
        send(&[0xff; 300]);
        send(&[1; 40]);
    }
}

fn flood_tftp(counts: &Counts, end: Instant) {
    while Instant::now() < end {
        // A port for each request, as each begins a transfer that nobody acknowledges.
        let Ok(socket) = UdpSocket::bind((ATTACKER, 0)) else {
            continue;
        };
        count(&counts.tftp);
        let request = b"\0\x01ipxe-x64.efi\0octet\0timeout\x00255\0blksize\x00512\0";
        let _ = socket.send_to(request, (SERVER, 69));
    }
}

/// Holds as many connections as it gets from ten addresses, each silent.
fn hold_connections(counts: &Counts, end: Instant) {
    let mut held: Vec<TcpStream> = Vec::new();
    while Instant::now() < end {
        // Those that were closed make room for others.
        held.retain(|stream| {
            stream.set_nonblocking(true).is_ok() && !matches!(stream.peek(&mut [0]), Ok(0))
        });
        if held.len() < 1500 {
            let server = SocketAddr::from((SERVER, HTTP_PORT));
            if let Some(stream) = connect_from(held.len(), server) {
                count(&counts.idle);
                held.push(stream);
                continue;
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A connection from one of the ten addresses, in turn.
fn connect_from(turn: usize, server: SocketAddr) -> Option<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let last = 66 + u8::try_from(turn % 10).ok()?;
    let from = SocketAddr::from((Ipv4Addr::new(10, 88, 0, last), 0));
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).ok()?;
    bind(&fd, &from).ok()?;
    connect(&fd, &server).ok()?;
    Some(TcpStream::from(fd))
}
