//! Whatever hands out addresses, and whatever has one, are apart: each pair of keys is made to meet.

use undercroft_model::{Severity, inventory::parse};

/// Each address and range of an inventory, with what it has in a good one.
const GOOD: [(&str, &str); 10] = [
    ("SERVER", "10.0.0.1"),
    ("GATEWAY", "10.0.0.254"),
    ("VIRTUAL", "10.0.0.10"),
    ("NODE", "10.0.0.11"),
    ("FIRST", "10.0.0.100"),
    ("LAST", "10.0.0.120"),
    ("BALANCERS", "10.0.0.192/27"),
    ("PODS", "10.42.0.0/16"),
    ("SERVICES", "10.43.0.0/16"),
    ("OVERLAY", "100.64.0.0/10"),
];

fn errors(with: &[(&str, &str)]) -> Vec<String> {
    let mut text = r#"
[fleet]
name = "cellar"
[network]
node_cidr = "10.0.0.0/24"
server_address = "SERVER"
gateway = "GATEWAY"
dhcp = "server"
dhcp_range = { first = "FIRST", last = "LAST" }
[network.overlay]
kind = "tailscale"
cidr = "OVERLAY"
[kubernetes]
distribution = "k3s"
founder = "one"
virtual_ip = "VIRTUAL"
pod_cidr = "PODS"
service_cidr = "SERVICES"
load_balancer_cidrs = ["BALANCERS"]
[classes.box]
kind = "control"
layout = "ext4"
[nodes.one]
class = "box"
macs = ["52:54:00:00:00:0b"]
address = "NODE"
disks = [{ serial = "DISK-ONE" }]
"#
    .to_owned();
    for (name, value) in with.iter().chain(&GOOD) {
        text = text.replace(name, value);
    }
    let parsed = parse("undercroft.toml", text.as_bytes());
    parsed
        .diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .map(|found| format!("{}: {}", found.code, found.message))
        .collect()
}

#[test]
fn each_pair_that_meets_is_an_error() {
    assert_eq!(errors(&[]), [""; 0]);
    let meets: &[&[(&str, &str)]] = &[
        // An address that somebody else has.
        &[("SERVER", "10.0.0.10")],
        &[("SERVER", "10.0.0.11")],
        &[("GATEWAY", "10.0.0.10")],
        &[("GATEWAY", "10.0.0.11")],
        &[("VIRTUAL", "10.0.0.11")],
        // An address in a range that is handed out: its first, its last, one between.
        &[("SERVER", "10.0.0.100")],
        &[("GATEWAY", "10.0.0.110")],
        &[("VIRTUAL", "10.0.0.120")],
        &[("NODE", "10.0.0.101")],
        &[("SERVER", "10.0.0.192")],
        &[("GATEWAY", "10.0.0.200")],
        &[("VIRTUAL", "10.0.0.223")],
        &[("NODE", "10.0.0.201")],
        // Two ranges: one in the other, both ways, and each end over the other's.
        &[("FIRST", "10.0.0.195"), ("LAST", "10.0.0.200")],
        &[("FIRST", "10.0.0.150"), ("LAST", "10.0.0.192")],
        &[("FIRST", "10.0.0.223"), ("LAST", "10.0.0.230")],
        &[("FIRST", "10.0.0.150"), ("LAST", "10.0.0.230")],
        &[("BALANCERS", "10.0.0.104/29")],
        &[("BALANCERS", "10.0.0.64/26")],
        // Networks.
        &[("PODS", "10.0.0.0/16")],
        &[("PODS", "10.43.128.0/17")],
        &[("PODS", "100.64.0.0/16")],
        &[("SERVICES", "10.42.0.0/15")],
        &[("SERVICES", "10.0.0.0/24")],
        &[("SERVICES", "100.127.0.0/16")],
        &[("OVERLAY", "10.0.0.128/25")],
        &[("BALANCERS", "10.42.7.0/24")],
        &[("BALANCERS", "10.43.7.0/24")],
        &[("BALANCERS", "100.100.0.0/24")],
        &[("BALANCERS", "10.0.0.0/24")],
        &[("BALANCERS", "10.0.0.0/16")],
    ];
    for meet in meets {
        assert!(!errors(meet).is_empty(), "{meet:?}");
    }
    // What only touches is apart.
    for apart in [
        &[("FIRST", "10.0.0.150"), ("LAST", "10.0.0.191")][..],
        &[("FIRST", "10.0.0.224"), ("LAST", "10.0.0.250")],
        &[("NODE", "10.0.0.121")],
        &[("BALANCERS", "10.1.0.0/24")],
    ] {
        assert_eq!(errors(apart), [""; 0], "{apart:?}");
    }
}
