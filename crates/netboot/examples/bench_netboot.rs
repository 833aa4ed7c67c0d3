//! Measures the boot servers against nginx and dnsmasq, with one client for both sides, in
//! namespaces of its own. Prints one JSON line for each figure: `name`, `ours`, `peer`, `ratio`,
//! `unit`; and lines that begin with `SKIPPED: ` for what can't be measured here.
//!
//! `cargo run --release -p undercroft-netboot --example bench_netboot [http] [tftp] [dhcp]`

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dhcproto::Encodable;
use dhcproto::v4::{Architecture, DhcpOption, Flags, Message, MessageType};
use rustix::net::RecvFlags;
use undercroft_netboot::server::{DhcpSettings, Ports};
use undercroft_netboot::table::UnknownPolicy;
use undercroft_netboot::{BootTable, Mode, Netboot, NetbootConfig};

type Outcome<T> = Result<T, Box<dyn Error>>;

const INSIDE: &str = "UNDERCROFT_BENCH_NAMESPACE";
const HTTP_BYTES: u64 = 300 << 20;
const HTTP_CLIENTS: usize = 16;
const TFTP_BYTES: u64 = 64 << 20;
const DHCP_CLIENTS: u32 = 1000;
/// Each side is measured this often, in turn, and the best run counts: other work on the machine
/// only ever makes a run slower.
const ROUNDS: usize = 5;
/// A client whose packet was lost sends it again after this time.
const RESEND: Duration = Duration::from_millis(50);
/// No single measurement takes longer than this, or something is broken.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "serve") {
        return serve(&arguments);
    }
    if std::env::var_os(INSIDE).is_none() {
        return enter_namespace(&arguments);
    }
    lay_out()?;
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|a| a == name);
    let folder = std::env::temp_dir().join(format!("undercroft-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let done = measure(&folder, wanted);
    std::fs::remove_dir_all(&folder)?;
    done
}

fn measure(folder: &Path, wanted: impl Fn(&str) -> bool) -> Outcome<()> {
    let big = folder.join("big");
    fill(&big, HTTP_BYTES)?;
    let middle = folder.join("middle");
    fill(&middle, TFTP_BYTES)?;
    if wanted("http") {
        bench_http(folder, &big)?;
    }
    if wanted("tftp") {
        bench_tftp(folder, &middle)?;
    }
    if wanted("dhcp") {
        bench_dhcp(folder)?;
    }
    Ok(())
}

/// Runs this program again in network and mount namespaces of its own, and in a user namespace
/// too unless it is root already.
fn enter_namespace(arguments: &[String]) -> Outcome<()> {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let status = command
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(arguments)
        .env(INSIDE, "1")
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the measurements failed: {status}").into())
    }
}

fn lay_out() -> Outcome<()> {
    for line in [
        "mount -t tmpfs tmpfs /run",
        "ip link set lo up",
        "ip netns add client",
        "ip link add boot0 type veth peer name eth0 netns client",
        "ip addr add 10.77.0.1/16 dev boot0",
        "ip link set boot0 up",
        "ip -n client link set eth0 up",
    ] {
        let mut words = line.split(' ');
        let status = Command::new(words.next().unwrap_or_default())
            .args(words)
            .status()?;
        if !status.success() {
            return Err(format!("{line}: {status}").into());
        }
    }
    Ok(())
}

fn fill(path: &Path, bytes: u64) -> Outcome<()> {
    let mut file = File::create(path)?;
    let block: Vec<u8> = (0..1u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut left = bytes;
    while left > 0 {
        let take = usize::try_from(left)?.min(block.len());
        file.write_all(block.get(..take).unwrap_or_default())?;
        left -= take as u64;
    }
    Ok(())
}

/// A program that is ended when it goes out of sight.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // nginx and dnsmasq take their children and files along on SIGTERM.
        if let Some(pid) = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// Our servers, in a process of their own as the peers are: `serve INTERFACE ADDRESS BITS FILE`.
fn serve(arguments: &[String]) -> Outcome<()> {
    let [_, interface, address, bits, file] = arguments else {
        return Err("serve INTERFACE ADDRESS BITS FILE".into());
    };
    let address: Ipv4Addr = address.parse()?;
    let mode = if address.is_loopback() {
        Mode::Port4011Only
    } else {
        Mode::Server(DhcpSettings::range(
            [10, 77, 1, 0].into(),
            [10, 77, 250, 255].into(),
        ))
    };
    let mut config = NetbootConfig::new(interface, address, bits.parse()?, mode);
    config.ports = Ports {
        http: 8080,
        ..Ports::default()
    };
    config.artifacts = BTreeMap::from([("file".to_owned(), PathBuf::from(file))]);
    let table = BootTable::new([], UnknownPolicy::Discover)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let _netboot = Netboot::start(config, table)?;
        println!("ready");
        std::future::pending::<Outcome<()>>().await
    })
}

fn ours(interface: &str, address: &str, bits: &str, file: &Path) -> Outcome<Running> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", interface, address, bits])
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or("no output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    if line.trim() == "ready" {
        Ok(Running(child))
    } else {
        Err("our servers didn't start".into())
    }
}

/// Where a program is: on PATH, which has the folders of what was only unpacked, or where Debian keeps
/// root's programs.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    if found.is_none() {
        println!("SKIPPED: {program} is not installed");
    }
    found
}

fn best(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

fn print(name: &str, ours: f64, peer: f64, unit: &str) {
    let ratio = ours / peer;
    println!(
        "{}",
        serde_json::json!({
            "name": name, "ours": round(ours), "peer": round(peer), "ratio": round(ratio), "unit": unit,
        })
    );
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Measures ours and the peer's in turn, after one round each that doesn't count.
fn in_turn(
    mut ours: impl FnMut() -> Outcome<f64>,
    mut peer: impl FnMut() -> Outcome<f64>,
) -> Outcome<(f64, f64)> {
    ours()?;
    peer()?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(ours()?);
        b.push(peer()?);
    }
    Ok((best(&a), best(&b)))
}

fn bench_http(folder: &Path, big: &Path) -> Outcome<()> {
    let Some(nginx) = installed("nginx") else {
        return Ok(());
    };
    let config = folder.join("nginx.conf");
    let root = folder.display();
    std::fs::write(
        &config,
        format!(
            "daemon off; worker_processes auto; pid {root}/nginx.pid; error_log stderr crit;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_timeout 60;\n\
             client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;\n\
             uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
             server {{ listen 127.0.0.1:8081; root {root}; }} }}\n"
        ),
    )?;
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let _nginx = Running(
        Command::new(nginx)
            .arg("-c")
            .arg(&config)
            .args(["-g", user])
            .stderr(Stdio::null())
            .spawn()?,
    );
    let server = ours("lo", "127.0.0.1", "8", big)?;
    let address = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    wait_for_port(address(8081))?;
    let peak_before = peak_kib(&server)?;
    let (a, b) = in_turn(
        || fetch_at_once(address(8080), "/artifacts/file", HTTP_BYTES),
        || fetch_at_once(address(8081), "/big", HTTP_BYTES),
    )?;
    print("http-300mb-16-clients", a, b, "MB/s");
    let peak_after = peak_kib(&server)?;
    println!(
        "{}",
        serde_json::json!({
            "name": "http-memory-peak", "ours": peak_after, "peer": peak_before,
            "ratio": round(peak_after / peak_before), "unit": "KiB after and before",
        })
    );
    Ok(())
}

fn wait_for_port(address: SocketAddrV4) -> Outcome<()> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > Duration::from_secs(10) {
            return Err(format!("nothing listens on {address}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn peak_kib(server: &Running) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.0.id()))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Megabytes a second that all clients get together.
fn fetch_at_once(server: SocketAddrV4, path: &'static str, bytes: u64) -> Outcome<f64> {
    let began = Instant::now();
    let clients: Vec<_> = (0..HTTP_CLIENTS)
        .map(|_| std::thread::spawn(move || fetch(server, path, bytes).map_err(|e| e.to_string())))
        .collect();
    for client in clients {
        client.join().map_err(|_| "a client panicked")??;
    }
    Ok(bytes as f64 * HTTP_CLIENTS as f64 / 1e6 / began.elapsed().as_secs_f64())
}

fn fetch(server: SocketAddrV4, path: &str, bytes: u64) -> Outcome<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut buffer = vec![0; 1 << 20];
    let mut got = 0u64;
    loop {
        // The data is thrown away in the kernel, so that the client costs as little as it can.
        let (_, len) = rustix::net::recv(&stream, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
        if len == 0 {
            break;
        }
        got += len as u64;
    }
    if got < bytes || got > bytes + 2000 {
        return Err(format!("{got} bytes came, not {bytes} and a head").into());
    }
    Ok(())
}

fn bench_tftp(folder: &Path, middle: &Path) -> Outcome<()> {
    let Some(dnsmasq) = installed("dnsmasq") else {
        return Ok(());
    };
    let _ours = ours("lo", "127.0.0.1", "8", middle)?;
    let _dnsmasq = Running(
        Command::new(&dnsmasq)
            .args([
                "-k",
                "--conf-file=/dev/null",
                "--port=0",
                "--user=root",
                "--group=",
            ])
            .args([
                "--bind-interfaces",
                "--listen-address=127.0.0.2",
                "--enable-tftp",
                "--pid-file=",
            ])
            .arg(format!("--tftp-root={}", folder.display()))
            .stderr(Stdio::null())
            .spawn()?,
    );
    std::thread::sleep(Duration::from_millis(500));
    let ours_at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 69);
    let peer_at = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), 69);
    for (name, clients, window) in [
        ("tftp-1468-1-client", 1, None),
        ("tftp-1468-8-clients", 8, None),
        ("tftp-1468-window-16", 1, Some(16)),
        ("tftp-1468-window-32", 1, Some(32)),
        ("tftp-1468-window-64", 1, Some(64)),
    ] {
        // dnsmasq knows no window, and leaves the option out.
        let (a, b) = in_turn(
            || load_at_once(ours_at, "file", clients, window),
            || load_at_once(peer_at, "middle", clients, window),
        )?;
        print(name, a, b, "MB/s");
    }
    Ok(())
}

fn load_at_once(
    server: SocketAddrV4,
    path: &'static str,
    clients: usize,
    window: Option<u64>,
) -> Outcome<f64> {
    let began = Instant::now();
    let all: Vec<_> = (0..clients)
        .map(|_| std::thread::spawn(move || load(server, path, window).map_err(|e| e.to_string())))
        .collect();
    let mut bytes = 0;
    for one in all {
        let got = one.join().map_err(|_| "a client panicked")??;
        if got != TFTP_BYTES {
            return Err(format!("{got} bytes came, not {TFTP_BYTES}").into());
        }
        bytes += got;
    }
    Ok(bytes as f64 / 1e6 / began.elapsed().as_secs_f64())
}

/// A TFTP client that acknowledges each window, or the last block before a gap.
fn load(server: SocketAddrV4, path: &str, window: Option<u64>) -> Outcome<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut ask = format!("\0\x01{path}\0octet\0blksize\x001468\0tsize\x000\0").into_bytes();
    if let Some(window) = window {
        ask.extend_from_slice(format!("windowsize\0{window}\0").as_bytes());
    }
    socket.send_to(&ask, server)?;
    let mut buffer = [0; 2000];
    let (mut next, mut bytes, mut agreed) = (0u64, 0u64, 1u64);
    let mut peer = None;
    let mut gap = false;
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        let acknowledge = |block: u64, to| {
            let [.., high, low] = block.to_be_bytes();
            socket.send_to(&[0, 4, high, low], to)
        };
        let (len, from) = match socket.recv_from(&mut buffer) {
            Ok(got) => got,
            Err(_) => {
                match peer {
                    Some(peer) => acknowledge(next.saturating_sub(1), peer)?,
                    None => socket.send_to(&ask, server)?,
                };
                gap = false;
                continue;
            }
        };
        peer = Some(from);
        match buffer.get(..len).unwrap_or_default() {
            [0, 6, options @ ..] => {
                let text = String::from_utf8_lossy(options).into_owned();
                let mut words = text.split('\0').skip_while(|word| *word != "windowsize");
                agreed = words.nth(1).map_or(Ok(1), str::parse)?;
                acknowledge(0, from)?;
                next = next.max(1);
            }
            [0, 3, high, low, data @ ..] => {
                let number = u64::from(u16::from_be_bytes([*high, *low]));
                if number != next & 0xffff {
                    if !gap {
                        acknowledge(next - 1, from)?;
                        gap = true;
                    }
                    continue;
                }
                gap = false;
                bytes += data.len() as u64;
                let is_last = data.len() < 1468;
                if is_last || next.is_multiple_of(agreed) {
                    acknowledge(next, from)?;
                }
                next += 1;
                if is_last {
                    return Ok(bytes);
                }
            }
            [0, 5, ..] => return Err("the server refused".into()),
            _ => {}
        }
    }
    Err(format!("TFTP took over {LIMIT:?}").into())
}

fn bench_dhcp(folder: &Path) -> Outcome<()> {
    let Some(dnsmasq) = installed("dnsmasq") else {
        return Ok(());
    };
    let socket = dhcp_socket()?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for round in 0..u32::try_from(ROUNDS)? {
        {
            let _ours = ours("boot0", "10.77.0.1", "16", &folder.join("middle"))?;
            a.push(offers(&socket, round)?);
        }
        let leases = folder.join("leases");
        let _ = std::fs::remove_file(&leases);
        let _dnsmasq = Running(
            Command::new(&dnsmasq)
                .args([
                    "-k",
                    "--conf-file=/dev/null",
                    "--port=0",
                    "--user=root",
                    "--group=",
                ])
                .args([
                    "--bind-interfaces",
                    "--interface=boot0",
                    "--no-ping",
                    "--pid-file=",
                ])
                .args([
                    "--dhcp-range=10.77.1.0,10.77.250.255,255.255.0.0",
                    "--quiet-dhcp",
                ])
                .args(["--dhcp-lease-max=100000", "--dhcp-boot=x.efi"])
                .arg(format!("--dhcp-leasefile={}", leases.display()))
                .stderr(Stdio::null())
                .spawn()?,
        );
        std::thread::sleep(Duration::from_millis(500));
        b.push(offers(&socket, round)?);
    }
    print("dhcp-offers-1000-clients", best(&a), best(&b), "offers/s");
    Ok(())
}

fn dhcp_socket() -> Outcome<UdpSocket> {
    let made = std::thread::spawn(|| -> Result<UdpSocket, String> {
        let make = || -> Outcome<UdpSocket> {
            let namespace = File::open("/run/netns/client")?;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None)?;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
            socket.set_broadcast(true)?;
            socket.bind_device(Some(b"eth0"))?;
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20);
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68).into())?;
            Ok(socket.into())
        };
        make().map_err(|e| e.to_string())
    });
    let socket = made.join().map_err(|_| "the thread panicked")??;
    socket.set_read_timeout(Some(RESEND))?;
    Ok(socket)
}

/// Offers a second: all clients send at once, those without an offer again, until each has one.
fn offers(socket: &UdpSocket, round: u32) -> Outcome<f64> {
    let zero = Ipv4Addr::UNSPECIFIED;
    let mut packets = BTreeMap::new();
    for client in 0..DHCP_CLIENTS {
        let [_, _, c, d] = client.to_be_bytes();
        let [.., r] = round.to_be_bytes();
        let mac = [0x52, 0x54, r, 0, c, d];
        let mut message = Message::new_with_id(client, zero, zero, zero, zero, &mac);
        message.set_flags(Flags::default().set_broadcast());
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Discover));
        options.insert(DhcpOption::ClassIdentifier(
            b"PXEClient:Arch:00007:UNDI:003016".to_vec(),
        ));
        options.insert(DhcpOption::ClientSystemArchitecture(Architecture::from(7)));
        packets.insert(client, message.to_vec()?);
    }
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let mut waiting: BTreeSet<u32> = packets.keys().copied().collect();
    let mut buffer = [0; 1500];
    let began = Instant::now();
    while !waiting.is_empty() {
        if began.elapsed() > LIMIT {
            return Err(format!("{} clients got no offer in {LIMIT:?}", waiting.len()).into());
        }
        for client in &waiting {
            if let Some(packet) = packets.get(client) {
                socket.send_to(packet, to)?;
            }
        }
        let mut heard = Instant::now();
        while !waiting.is_empty() && heard.elapsed() < RESEND {
            let Ok(len) = socket.recv(&mut buffer) else {
                break;
            };
            if len > 8
                && let Some(xid) = buffer.get(4..8).and_then(|b| b.try_into().ok())
                && waiting.remove(&u32::from_be_bytes(xid))
            {
                heard = Instant::now();
            }
        }
    }
    Ok(f64::from(DHCP_CLIENTS) / began.elapsed().as_secs_f64())
}
