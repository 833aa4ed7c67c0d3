//! `sudo undercroft`, a service's capabilities, and a plain user.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use undercroft_testkit::skip;

use crate::desk::{ADA, BOB, Desk, finish};

/// The rights to bind low ports, to send raw packets and to set up networks (capability.h).
const PORTS: &str = "0000000000003400";
const NOTHING: &str = "0000000000000000";

/// The commands that look at what is known of a fleet.
const LOOKS: &[&[&str]] = &[
    &["status"],
    &["approve"],
    &["events"],
    &["doctor", "box-01"],
    &["plan"],
    &["secrets", "list"],
];

#[test]
fn what_sudo_makes_is_the_owners_and_the_owner_sees_it() {
    let Some(desk) = Desk::new() else { return };
    for args in [&["secrets", "init"][..], &["up", "--yes"], &["plan"]] {
        let ran = desk.sudo(ADA, args);
        assert!(!ran.text.contains("warning"), "{args:?}: {}", ran.text);
        assert_eq!(
            desk.not_adas(&desk.fleet()),
            [] as [std::path::PathBuf; 0],
            "{args:?}"
        );
    }
    assert!(desk.fleet().join(".undercroft/journal.db").exists());
    for args in LOOKS {
        let ran = desk.as_user(ADA, args);
        assert!([0, 2].contains(&ran.code), "{args:?}: {}", ran.text);
        assert!(!ran.text.contains("error"), "{args:?}: {}", ran.text);
    }
    // And the other way round: what the owner has made is no obstacle to sudo.
    for args in LOOKS {
        let ran = desk.sudo(ADA, args);
        assert!([0, 2].contains(&ran.code), "{args:?}: {}", ran.text);
    }
    assert_eq!(desk.not_adas(&desk.fleet()), [] as [std::path::PathBuf; 0]);
}

#[test]
fn only_the_command_itself_has_the_rights_and_no_more_than_it_needs() {
    let Some(desk) = Desk::new() else { return };
    let user = format!("{ADA}\t{ADA}\t{ADA}\t{ADA}");
    let ran = desk.sudo(ADA, &["up", "--yes"]);
    assert_eq!(ran.code, 1, "{}", ran.text);
    for whose in ["parent", "own"] {
        for line in ["Uid:", "Gid:"] {
            for seen in desk.seen(whose, line) {
                assert_eq!(seen, user, "{whose} {line}");
            }
        }
        for seen in desk.seen(whose, "Groups:") {
            assert_eq!(seen, ADA.to_string(), "{whose}: root's groups");
        }
        for line in ["CapInh:", "CapAmb:"] {
            for seen in desk.seen(whose, line) {
                assert_eq!(seen, NOTHING, "{whose} {line}");
            }
        }
    }
    for line in ["CapEff:", "CapPrm:"] {
        for seen in desk.seen("parent", line) {
            assert_eq!(seen, PORTS, "the command's {line}");
        }
        for seen in desk.seen("own", line) {
            assert_eq!(seen, NOTHING, "a program's {line}");
        }
    }
    for seen in desk.seen("env", "HOME=") {
        assert!(!seen.contains("root"), "{seen}");
    }
    // Another command needs none of it.
    fs::remove_dir_all(desk.path("seen")).unwrap();
    fs::create_dir(desk.path("seen")).unwrap();
    std::os::unix::fs::chown(desk.path("seen"), Some(ADA), Some(ADA)).unwrap();
    desk.sudo(ADA, &["plan"]);
    for seen in desk.seen("parent", "CapPrm:") {
        assert_eq!(seen, NOTHING);
    }
}

#[test]
fn a_folder_of_somebody_else_than_who_called_sudo_is_said() {
    let Some(desk) = Desk::new() else { return };
    for uid in [BOB, 0] {
        let ran = desk.sudo(uid, &["up", "--yes"]);
        let says = format!("belongs to uid {ADA}: working as that user");
        assert!(ran.text.contains(&says), "{}", ran.text);
    }
    assert_eq!(desk.not_adas(&desk.fleet()), [] as [std::path::PathBuf; 0]);
    // Root's own folder stays root's, and who will miss it is told.
    crate::desk::give(&desk.fleet(), 0);
    let ran = desk.sudo(ADA, &["up", "--yes"]);
    assert!(ran.text.contains("belongs to root"), "{}", ran.text);
    assert!(
        ran.text.contains(&format!("sudo chown -R {ADA}:{ADA} ")),
        "{}",
        ran.text
    );
}

#[test]
fn a_user_without_rights_is_told_what_is_needed_before_anything_is_made() {
    let Some(desk) = Desk::new() else { return };
    if fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .is_ok_and(|text| text.trim().parse().is_ok_and(|port: u16| port <= 67))
    {
        skip("every user may open every port here (net.ipv4.ip_unprivileged_port_start)");
        return;
    }
    for args in [&["up", "--yes"][..], &["serve", "--yes"]] {
        let ran = desk.as_user(ADA, args);
        assert_eq!(ran.code, 1, "{}", ran.text);
        assert!(ran.text.contains("the ports 67 and 69"), "{}", ran.text);
        let way = format!("sudo env \"PATH=$PATH\" undercroft {}", args[0]);
        assert!(ran.text.contains(&way), "{}", ran.text);
        assert!(ran.text.contains("CAP_NET_BIND_SERVICE"), "{}", ran.text);
    }
    assert!(!desk.fleet().join(".undercroft").exists());
    assert!(!desk.fleet().join("secrets").exists());
}

#[test]
fn a_services_capabilities_are_enough_and_are_not_handed_on() {
    let Some(desk) = Desk::new() else { return };
    let caps = "+net_bind_service,+net_raw";
    let inherit = format!("-all,{caps}");
    let more = ["--inh-caps", &inherit, "--ambient-caps", caps];
    let ran = desk.with(ADA, &more, &["up", "--yes"]);
    assert!(!ran.text.contains("may not open"), "{}", ran.text);
    for seen in desk.seen("parent", "CapPrm:") {
        assert_eq!(seen, "0000000000002400");
    }
    for line in ["CapPrm:", "CapAmb:", "CapInh:"] {
        for seen in desk.seen("own", line) {
            assert_eq!(seen, NOTHING, "{line}");
        }
    }
}

#[test]
fn a_new_folder_belongs_to_the_owner_of_the_one_that_it_is_in() {
    let Some(desk) = Desk::new() else { return };
    let ran = desk.sudo(ADA, &["init", "--template", "rack", "new/demo"]);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert!(desk.fleet().join("new/demo/undercroft.toml").exists());
    assert_eq!(desk.not_adas(&desk.fleet()), [] as [std::path::PathBuf; 0]);
}

#[test]
fn the_ports_open_for_the_owner_by_sudo() {
    let Some(desk) = Desk::new() else { return };
    let unshare = Path::new("/usr/bin/unshare");
    let network = "ip link add cellar0 type veth peer name cellar1 && ip link set cellar1 up && ip address add 10.77.0.2/24 dev cellar0 \
                   && ip link set cellar0 up && ip link set lo up";
    let mut probe = Command::new(unshare);
    probe.args(["--net", "sh", "-c", network]);
    if finish(&mut probe).code != 0 {
        skip("no network namespace with an interface can be made here");
        return;
    }
    // Without machines there is nothing to build, and the servers run all the same.
    let inventory = fs::read_to_string(desk.fleet().join("undercroft.toml")).unwrap();
    let (head, _) = inventory.split_once("[nodes.box-01]").unwrap();
    desk.write("undercroft.toml", head);
    let mut command = desk.command(unshare);
    let serve = desk.sudo_command(ADA, &[]);
    command
        .args(["--net", "sh", "-c"])
        .arg(format!(
            "{network} && cat /proc/net/udp > $SEEN/before && SUDO_UID={ADA} {} serve --yes --json & \
             pid=$!; n=0; until [ $n = 200 ] || grep -q ':0043 ' /proc/net/udp && grep -q ':0045 ' /proc/net/udp; do \
             sleep 0.1; n=$((n+1)); done; cat /proc/net/udp > $SEEN/udp; cat /proc/$pid/status > $SEEN/parent.1; \
             kill -INT $pid; wait $pid",
            serve.get_program().display()
        ))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    let ran = finish(&mut command);
    assert!(begun.elapsed() < Duration::from_secs(60));
    let udp = fs::read_to_string(desk.path("seen/udp")).unwrap_or_default();
    for port in [67_u16, 69] {
        // Addresses are in the fourth and fifth words of a line (proc(5)); the eighth is the owner.
        let line = udp
            .lines()
            .find(|line| line.contains(&format!(":{port:04X} ")));
        let owner = line.and_then(|line| line.split_whitespace().nth(7));
        assert_eq!(
            owner,
            Some(ADA.to_string().as_str()),
            "{port}: {}\n{udp}",
            ran.text
        );
    }
    assert_eq!(desk.not_adas(&desk.fleet()), [] as [std::path::PathBuf; 0]);
}

#[test]
fn the_rack_that_sudo_starts_is_the_owners() {
    let Some(desk) = Desk::new() else { return };
    // Only what makes the namespaces gets the right to.
    desk.program_named(
        "unshare",
        "#!/bin/sh\ncat /proc/self/status > $SEEN/own.$$\nexec /usr/bin/unshare \"$@\"\n",
    );
    desk.sudo(ADA, &["init", "--template", "rack", "demo"]);
    let ran = desk.sudo(ADA, &["rack", "up", "demo"]);
    if ran.code != 0 && !desk.path("seen").read_dir().unwrap().any(|e| e.is_ok()) {
        skip(format!("no rack can be started here: {}", ran.text));
        return;
    }
    // CAP_SYS_ADMIN alone (capability.h).
    for seen in desk.seen("own", "CapEff:") {
        assert_eq!(seen, "0000000000200000");
    }
    assert_eq!(desk.not_adas(&desk.fleet()), [] as [std::path::PathBuf; 0]);
    if ran.code != 0 {
        skip(format!("no rack can be started here: {}", ran.text));
        return;
    }
    let status = desk.as_user(ADA, &["rack", "status", "-C", "demo"]);
    assert_eq!(status.code, 0, "{}", status.text);
    // The owner enters its network, where all ports are open.
    let up = desk.as_user(ADA, &["plan", "demo"]);
    assert!(!up.text.contains("ermission"), "{}", up.text);
    let down = desk.as_user(ADA, &["rack", "down", "--delete", "demo"]);
    assert_eq!(down.code, 0, "{}", down.text);
}
