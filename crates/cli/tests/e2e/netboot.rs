//! The ways in which a machine may come by its installer.

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    bring_up::{assert_up, evidence},
    fleet::{Fleet, Node, inventory, missing, wait_until},
};

#[test]
fn an_arm64_machine_and_a_bios_machine_reach_their_installers() {
    if let Some(reason) = missing(&["qemu-system-aarch64"]) {
        println!("SKIPPED: {reason}");
        return;
    }
    let nodes = [
        Node {
            system: "aarch64-linux",
            ..Node::uefi("arm-1", 21)
        },
        Node {
            firmware: "bios",
            ..Node::uefi("bios-1", 22)
        },
    ];
    let mut fleet = Fleet::start("firmware", &inventory("server", &nodes), &[]);
    let up = fleet.call(&["up", "--yes", "--inspect-only"]);
    assert!(up.status.success(), "{}", up.text);
    assert!(
        up.text.contains(" machines looked at after "),
        "{}",
        up.text
    );
    for (node, firmware) in nodes.iter().zip(["uefi", "bios"]) {
        let seen = evidence(&fleet, node.name, "seen").pop().expect("a report");
        assert_eq!(seen["report"]["system"], node.system);
        assert_eq!(seen["report"]["firmware"], firmware);
        assert_eq!(evidence(&fleet, node.name, "inspected").len(), 1);
        assert_eq!(
            fleet.disk_written_bytes(node),
            0,
            "{}'s disk was written to",
            node.name
        );
    }
}

#[test]
fn a_machine_is_installed_beside_another_dhcp_server() {
    if let Some(reason) = missing(&["dnsmasq"]) {
        println!("SKIPPED: {reason}");
        return;
    }
    let nodes = [Node::uefi("proxied", 31)];
    let mut fleet = Fleet::start("proxy", &inventory("proxy", &nodes), &[]);
    let dnsmasq = OtherServer::start(&fleet, &nodes[0]);
    let up = fleet.call(&["up", "--yes"]);
    let log = dnsmasq.log();
    drop(dnsmasq);
    assert!(up.status.success(), "{}\ndnsmasq:\n{log}", up.text);
    assert_up(&fleet, &nodes);
    assert!(
        log.contains("DHCPACK"),
        "the addresses came from dnsmasq: {log}"
    );
}

/// Another DHCP server on the machines' network: dnsmasq, on a machine of its own as far as the
/// network can tell.
struct OtherServer {
    child: Child,
    log: PathBuf,
}

/// Run inside the rack's network. The server's own network is ready when it differs from this one.
const OTHER_SERVER: &str = r#"
unshare --net sh -c '
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
    ip addr add 10.88.0.2/24 dev eth0 && ip link set eth0 up && ip link set lo up &&
    exec dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --interface=eth0 \
        --bind-interfaces --no-ping --user=root --group= --log-dhcp --log-facility=- \
        --dhcp-range=10.88.0.100,10.88.0.150,1h --dhcp-host="$0" --dhcp-leasefile="$1"
' "$1" "$2" &
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add other0 type veth peer name eth0 netns $! && ip link set other0 master br0 up
wait
"#;

impl OtherServer {
    fn start(fleet: &Fleet, node: &Node) -> Self {
        let log = fleet.folder.join("dnsmasq.log");
        let leases = fleet.folder.join("leases").display().to_string();
        let host = format!("{},{}", node.mac(), node.address());
        let state = fleet.folder.join(".undercroft/rack");
        let arguments = ["-c", OTHER_SERVER, "sh", &host, &leases];
        let child = undercroft_rack::enter_command(&state, "sh", arguments)
            .unwrap()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let server = Self { child, log };
        wait_until("dnsmasq serves", 60, || server.log().contains("IP range"));
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for OtherServer {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn a_rack_leaves_nothing_behind() {
    if let Some(reason) = missing(&[]) {
        println!("SKIPPED: {reason}");
        return;
    }
    let nodes = [Node::uefi("gone", 41)];
    let mut fleet = Fleet::start("gone", &inventory("server", &nodes), &[]);
    let on = fleet.call(&["power", "gone", "on"]);
    assert!(on.status.success(), "{}", on.text);
    let log = fleet
        .folder
        .join(".undercroft/rack/machines/gone/serial.log");
    wait_until("the firmware speaks", 120, || {
        std::fs::metadata(&log).is_ok_and(|m| m.len() > 0)
    });
    let down = fleet.call(&["rack", "down"]);
    assert!(down.status.success(), "{}", down.text);
    wait_until(
        "its processes end",
        Duration::from_secs(30).as_secs(),
        || !some_process_mentions(&fleet.folder.display().to_string()),
    );
}

/// Whether any process but this one was started with that text.
fn some_process_mentions(text: &str) -> bool {
    let me = std::process::id().to_string();
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name != me
            && name.bytes().all(|b| b.is_ascii_digit())
            && std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    })
}
