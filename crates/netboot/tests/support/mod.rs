//! What the end-to-end tests stand on: a network namespace of their own, and a DHCP client.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dhcproto::v4::{Architecture, DhcpOption, Flags, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "UNDERCROFT_NETBOOT_TEST_NAMESPACE";
/// The boot network's interface in the main namespace.
pub(crate) const BRIDGE: &str = "boot0";
/// The server's address.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where the other DHCP server of a test lives.
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The clients' address.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// Longer than anything here takes on a busy machine, threefold.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test's body in user, network and mount namespaces of its own, by running this test
/// program again within them. Says so and returns where that isn't allowed.
pub(crate) fn in_namespace(test: &str, needs: &[&str], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        lay_out();
        body();
        return;
    }
    for tool in ["unshare", "ip"].iter().chain(needs) {
        if find(tool).is_none() {
            println!("SKIPPED: {test}: the program {tool} is not installed");
            return;
        }
    }
    let unshare = |program: &Path, arguments: &[&str]| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount", "--"])
            .arg(program)
            .args(arguments)
            .env(INSIDE, "1")
            .output()
            .expect("unshare runs")
    };
    let probe = unshare(Path::new("true"), &[]);
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr);
        println!(
            "SKIPPED: {test}: no namespaces of our own here: {}",
            why.trim()
        );
        return;
    }
    let this = std::env::current_exe().expect("a test program has a path");
    let output = unshare(&this, &[test, "--exact", "--nocapture", "--test-threads=1"]);
    let text =
        [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
    println!("{}{}", text[0], text[1]);
    assert!(output.status.success(), "{test} failed in its namespace");
    assert!(
        text[0].contains("1 passed"),
        "{test} did not run in its namespace"
    );
}

/// A bridge with the server's address, and two namespaces on it: `client` and `other`.
fn lay_out() {
    let lines = [
        "mount -t tmpfs tmpfs /run",
        "ip link set lo up",
        "ip link add boot0 type bridge",
        "ip addr add 10.77.0.1/24 dev boot0",
        "ip link set boot0 up",
        "ip netns add client",
        "ip netns add other",
        "ip link add c0 type veth peer name eth0 netns client",
        "ip link set c0 master boot0 up",
        "ip link add o0 type veth peer name eth0 netns other",
        "ip link set o0 master boot0 up",
        "ip -n client link set lo up",
        "ip -n client link set eth0 up",
        "ip -n client addr add 10.77.0.3/24 dev eth0",
        "ip -n other link set lo up",
        "ip -n other link set eth0 up",
        "ip -n other addr add 10.77.0.2/24 dev eth0",
    ];
    for line in lines {
        let mut words = line.split(' ');
        let output = Command::new(words.next().expect("a program"))
            .args(words)
            .output()
            .expect(line);
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // A port of a new bridge forwards once the bridge has noticed its carrier.
    wait_for("the bridge", || {
        in_netns("client", "ping", &["-c1", "-W1", "10.77.0.1"])
            .status
            .success()
            || find("ping").is_none()
    });
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
}

/// Waits until something is so.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what} took over {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program in a namespace to its end.
pub(crate) fn in_netns(namespace: &str, program: &str, arguments: &[&str]) -> Output {
    Command::new("ip")
        .args(["netns", "exec", namespace, program])
        .args(arguments)
        .output()
        .expect("ip netns exec runs")
}

/// A program that is ended when it goes out of sight.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it, with nothing to read and nobody to listen.
    pub(crate) fn start(command: &mut Command) -> Self {
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(quiet.spawn().expect("the program starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts dnsmasq as a DHCP server with addresses from 10.77.0.100 on.
pub(crate) fn dnsmasq(
    namespace: Option<&str>,
    interface: &str,
    folder: &Path,
    more: &[&str],
) -> Running {
    let mut command = match namespace {
        Some(name) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", name, "dnsmasq"]);
            command
        }
        None => Command::new("dnsmasq"),
    };
    let leases = folder.join("leases");
    command
        .args([
            "-k",
            "--conf-file=/dev/null",
            "--port=0",
            "--user=root",
            "--group=",
            "--no-ping",
        ])
        .args(["--bind-interfaces", "--log-facility=-", "--pid-file="])
        .arg(format!("--interface={interface}"))
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .arg("--dhcp-range=10.77.0.100,10.77.0.150")
        .args(more);
    Running::start(&mut command)
}

/// A small DHCP client that does what firmware does.
pub(crate) struct Client {
    /// Port 68, or any for unicast.
    pub(crate) socket: UdpSocket,
    /// The Ethernet address that it claims.
    pub(crate) mac: [u8; 6],
}

impl Client {
    /// A client in the namespace `client`, at port `port`.
    pub(crate) fn new(mac: [u8; 6], port: u16) -> Self {
        Self::in_namespace("client", mac, port)
    }

    /// The same in another namespace.
    pub(crate) fn in_namespace(namespace: &str, mac: [u8; 6], port: u16) -> Self {
        let path = format!("/run/netns/{namespace}");
        // A thread's namespace is its own; the socket stays in the namespace it was made in.
        let socket = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).expect("the namespace is there");
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None).expect("setns");
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.bind_device(Some(b"eth0")).unwrap();
            socket
                .bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())
                .unwrap();
            UdpSocket::from(socket)
        })
        .join()
        .expect("a socket in the namespace");
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        Self { socket, mac }
    }

    /// A packet of x64 UEFI firmware.
    pub(crate) fn firmware(&self, kind: MessageType) -> Message {
        let mut message = self.plain(kind);
        let options = message.opts_mut();
        options.insert(DhcpOption::ClassIdentifier(
            b"PXEClient:Arch:00007:UNDI:003016".to_vec(),
        ));
        options.insert(DhcpOption::ClientSystemArchitecture(Architecture::from(7)));
        options.insert(DhcpOption::ClientMachineIdentifier(
            [[0].as_slice(), &[7; 16]].concat(),
        ));
        message
    }

    /// A packet of a running system.
    pub(crate) fn plain(&self, kind: MessageType) -> Message {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(0x1234_5678, zero, zero, zero, zero, &self.mac);
        message.set_flags(Flags::default().set_broadcast());
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message
            .opts_mut()
            .insert(DhcpOption::ParameterRequestList(vec![
                OptionCode::SubnetMask,
                OptionCode::BootfileName,
            ]));
        message
    }

    /// Sends to everyone.
    pub(crate) fn broadcast(&self, message: &Message) {
        self.send(
            &message.to_vec().unwrap(),
            SocketAddrV4::new(Ipv4Addr::BROADCAST, 67),
        );
    }

    /// Sends some bytes.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddrV4) {
        self.socket.send_to(bytes, to).unwrap();
    }

    /// Sends again and again, as firmware does, until an answer has come that `wanted` likes.
    pub(crate) fn exchange(
        &self,
        message: &Message,
        to: SocketAddrV4,
        mut wanted: impl FnMut(&Message) -> bool,
    ) -> Message {
        let bytes = message.to_vec().unwrap();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            self.send(&bytes, to);
            let round = Instant::now();
            while round.elapsed() < Duration::from_secs(1) {
                if let Some(answer) = self.receive()
                    && wanted(&answer)
                {
                    return answer;
                }
            }
        }
        panic!("no such answer to {message} within {PATIENCE:?}");
    }

    /// One answer, if one comes within 200 ms.
    pub(crate) fn receive(&self) -> Option<Message> {
        let mut buffer = [0; 1500];
        let len = self.socket.recv(&mut buffer).ok()?;
        Message::decode(&mut Decoder::new(&buffer[..len])).ok()
    }
}

/// Option 54 of an answer.
pub(crate) fn server_of(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(address)) => Some(*address),
        _ => None,
    }
}

/// The file that an answer names.
pub(crate) fn file_of(message: &Message) -> Option<String> {
    let text = String::from_utf8_lossy(message.fname()?).into_owned();
    Some(text.trim_end_matches('\0').to_owned())
}
