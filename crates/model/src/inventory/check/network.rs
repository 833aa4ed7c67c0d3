//! Networks and addresses: inside what they must be inside of, apart from all else.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{
    causes,
    state::{Check, Seen},
};
use crate::inventory::{
    Dhcp, Distribution, Network, OverlayKind, POD_NODE_PREFIX, draft::Draft, source::Finding,
};

pub(super) fn check(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let own_is_sound = if let Some(network) = &draft.network {
        own(c, network);
        overlay(c, network);
        nodes(c, network);
        outside(c, network)
    } else {
        true
    };
    collisions(c, own_is_sound);
}

/// Whether a network is written as one.
fn is_net(net: &Ipv4Net) -> bool {
    net.trunc() == *net
}

/// Whether a network can be the nodes'; where it can't, nothing is said of what lies in it.
fn holds_fleet(net: &Ipv4Net) -> bool {
    is_net(net) && (8..=30).contains(&net.prefix_len())
}

/// Whether two networks have an address in common.
fn meet(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Whether an address is one that a machine of the network can have.
fn is_host(net: &Ipv4Net, address: Ipv4Addr) -> bool {
    net.contains(&address) && address != net.network() && address != net.broadcast()
}

/// Reports a network that is written as an address in it.
fn host_bits(c: &mut Check<'_, '_>, path: &[&str], net: &Ipv4Net) {
    if !is_net(net) {
        let message = format!("{net} is an address in a network, not a network");
        let hint = format!("Did you mean {}?", net.trunc());
        c.error("host-bits", path, message, hint);
    }
}

/// Reports an address that no machine on the nodes' network can have.
fn inside(c: &mut Check<'_, '_>, net: &Ipv4Net, path: &[&str], address: Ipv4Addr) {
    if is_host(net, address) || !holds_fleet(net) {
        return;
    }
    let (message, code) = if net.contains(&address) {
        (
            format!("{address} is the first or last address of {net}, which no machine can have"),
            "not-a-host-address",
        )
    } else {
        (format!("{address} is not in {net}"), "outside-network")
    };
    let first = Ipv4Addr::from_bits(net.network().to_bits().saturating_add(1));
    let last = Ipv4Addr::from_bits(net.broadcast().to_bits().saturating_sub(1));
    let hint = format!("Give an address from {first} to {last}, or correct `network.node_cidr`.");
    let finding = Finding::error(code, c.at(path), message).hint(hint);
    c.causes.outside.push((path.join("."), address, finding));
}

/// Reports the addresses that lie outside: several because of the one network that they lie outside
/// of. Gives whether that network can be the one that is meant.
fn outside(c: &mut Check<'_, '_>, network: &Network) -> bool {
    let mut outside = std::mem::take(&mut c.causes.outside);
    if outside.len() < 2 {
        for (_, _, finding) in outside {
            c.report(finding);
        }
        return true;
    }
    let names: Vec<String> = outside
        .iter()
        .map(|(path, address, _)| format!("`{path}` ({address})"))
        .collect();
    let net = network.node_cidr;
    let message = format!(
        "machines can't have these addresses in {net}: {}",
        causes::named(&names)
    );
    let first = outside.swap_remove(0).2;
    let place = c.at(&["network", "node_cidr"]);
    let finding = Finding::error("outside-network", place, message)
        .related("the first of them is given here", first.span())
        .hint("Correct `node_cidr`, or the addresses.");
    c.report(finding);
    false
}

fn own(c: &mut Check<'_, '_>, network: &Network) {
    let net = network.node_cidr;
    let path = &["network", "node_cidr"];
    host_bits(c, path, &net);
    if is_net(&net) && !holds_fleet(&net) {
        let message = format!(
            "a network of prefix length {} holds no fleet",
            net.prefix_len()
        );
        c.error(
            "network-size",
            path,
            message,
            "Give a prefix length from 8 to 30.",
        );
        return;
    }
    inside(
        c,
        &net,
        &["network", "server_address"],
        network.server_address,
    );
    if let Some(gateway) = network.gateway {
        inside(c, &net, &["network", "gateway"], gateway);
        // A gateway that is the server itself is fine: the operator's machine then routes.
    }
    if network.metrics_port == Some(network.http_port) {
        c.error(
            "port-twice",
            &["network", "metrics_port"],
            "numbers can't be given at the port of the HTTP server that machines boot from",
            "Give each a port of its own.",
        );
    }
    let kubernetes = c.draft.kubernetes.as_ref();
    if let Some(vip) = kubernetes.and_then(|k| k.virtual_ip) {
        let path = &["kubernetes", "virtual_ip"];
        inside(c, &net, path, vip);
        let owner = [
            (Some(network.server_address), ["network", "server_address"]),
            (network.gateway, ["network", "gateway"]),
        ];
        for (_, other) in owner.iter().filter(|(a, _)| *a == Some(vip)) {
            let message = format!("{vip} is already the value of `{}`", other.join("."));
            c.duplicate("duplicate-address", other, path, message, VIP_HINT);
        }
    }
    range(c, network);
}

const VIP_HINT: &str = "Give the virtual address one that no machine has.";

fn range(c: &mut Check<'_, '_>, network: &Network) {
    let Some(range) = &network.dhcp_range else {
        return;
    };
    let path = &["network", "dhcp_range"];
    if network.dhcp != Dhcp::Server {
        let message = format!(
            "`dhcp_range` is without effect while `dhcp` is \"{}\": another server gives addresses",
            network.dhcp
        );
        let finding = Finding::error(
            "not-in-this-mode",
            c.at_key(&["network"], "dhcp_range"),
            message,
        )
        .hint("Take it out, or set `dhcp` to \"server\".");
        c.report(finding);
        return;
    }
    let net = network.node_cidr;
    inside(c, &net, &["network", "dhcp_range", "first"], range.first);
    inside(c, &net, &["network", "dhcp_range", "last"], range.last);
    if range.first > range.last {
        let message = format!("the range ends at {}, before its first address", range.last);
        c.error(
            "empty-range",
            &["network", "dhcp_range", "last"],
            message,
            "Exchange `first` and `last`.",
        );
        return;
    }
    let inside: Vec<Vec<&str>> = points(c.draft)
        .into_iter()
        .filter(|(address, _)| (range.first..=range.last).contains(address))
        .map(|(_, path)| path)
        .collect();
    lie_in(
        c,
        &inside,
        "in-dhcp-range",
        path,
        "`network.dhcp_range`",
        "an unknown machine would be given this address",
    );
}

/// All addresses that somebody has or is to have, and where they are given. Whatever hands out addresses of a
/// range must leave out each of them.
fn points(draft: &Draft) -> Vec<(Ipv4Addr, Vec<&str>)> {
    let mut points = Vec::new();
    if let Some(network) = &draft.network {
        points.push((network.server_address, vec!["network", "server_address"]));
        if let Some(gateway) = network.gateway {
            points.push((gateway, vec!["network", "gateway"]));
        }
    }
    if let Some(vip) = draft.kubernetes.as_ref().and_then(|k| k.virtual_ip) {
        points.push((vip, vec!["kubernetes", "virtual_ip"]));
    }
    for node in draft.own_parts() {
        points.push((node.address, vec!["nodes", node.name, "address"]));
    }
    points
}

/// Reports addresses that lie in a range that isn't for them: one at its own place, several at the
/// range.
fn lie_in(
    c: &mut Check<'_, '_>,
    inside: &[Vec<&str>],
    code: &'static str,
    range: &[&str],
    range_name: &str,
    consequence: &str,
) {
    let hint = format!("Move one of the two: {consequence}.");
    let names: Vec<String> = inside
        .iter()
        .map(|path| format!("`{}`", path.join(".")))
        .collect();
    let finding = match inside {
        [] => return,
        [one] => {
            let message = format!("{} lies in {range_name}", causes::named(&names));
            Finding::error(code, c.at(one), message)
                .related("the range is given here", c.at(range))
                .hint(hint)
        }
        [first, ..] => {
            let message = format!("{} lie in {range_name}", causes::named(&names));
            Finding::error(code, c.at(range), message)
                .related("the first of them is given here", c.at(first))
                .hint(hint)
        }
    };
    c.report(finding);
}

fn overlay(c: &mut Check<'_, '_>, network: &Network) {
    let overlay = &network.overlay;
    host_bits(c, &["network", "overlay", "cidr"], &overlay.cidr);
    for (name, routes) in &overlay.routes {
        if !c.draft.nodes.contains_key(name) {
            c.unknown(
                "node",
                "nodes",
                name.as_str(),
                &["network", "overlay", "routes", name.as_str()],
            );
        }
        for (i, route) in routes.iter().enumerate() {
            let i = i.to_string();
            host_bits(
                c,
                &["network", "overlay", "routes", name.as_str(), &i],
                route,
            );
        }
    }
    if let Some(name) = &overlay.server_node
        && !c.draft.nodes.contains_key(name)
    {
        c.unknown(
            "node",
            "nodes",
            name.as_str(),
            &["network", "overlay", "server_node"],
        );
    }
    match overlay.kind {
        OverlayKind::Headscale if overlay.server_url.is_none() && c.whole("network", "overlay") => {
            c.error(
                "missing-key",
                &["network", "overlay"],
                "an overlay of Headscale needs `server_url`",
                "Add `server_url = \"https://…\"`, at which all clients reach the server.",
            )
        }
        OverlayKind::None | OverlayKind::Tailscale => {
            for key in ["server_url", "server_node", "derp"] {
                let path = ["network", "overlay", key];
                if c.has(&path) && (key != "derp" || overlay.derp) {
                    let message = format!(
                        "`{key}` is without effect while the overlay is \"{}\"",
                        overlay.kind
                    );
                    c.warning(
                        "without-effect",
                        &path,
                        message,
                        "Take it out, or set `kind` to \"headscale\".",
                    );
                }
            }
        }
        OverlayKind::Headscale => {}
    }
    // Headscale's configuration says that the domain must differ from the server's, since the
    // overlay's DNS would answer for the server's own name.
    if let (Some(url), Some(domain)) = (&overlay.server_url, &overlay.base_domain) {
        let host = url.split("://").nth(1).unwrap_or("");
        let host = host.split([':', '/']).next().unwrap_or("");
        if host == domain || host.ends_with(&format!(".{domain}")) {
            let message = format!("the server's own name `{host}` lies in the overlay's domain");
            c.error(
                "overlay-domain",
                &["network", "overlay", "base_domain"],
                message,
                "Give the overlay a domain of its own, such as net.example beside headscale.example.",
            );
        }
    }
}

fn nodes(c: &mut Check<'_, '_>, network: &Network) {
    let draft = c.draft;
    let mut seen: Seen<Ipv4Addr, Vec<&str>> = Seen::new();
    seen.note(network.server_address, vec!["network", "server_address"]);
    if let Some(gateway) = network.gateway {
        seen.note(gateway, vec!["network", "gateway"]);
    }
    let kubernetes = draft.kubernetes.as_ref();
    if let Some(vip) = kubernetes.and_then(|k| k.virtual_ip) {
        seen.note(vip, vec!["kubernetes", "virtual_ip"]);
    }
    let balancers = kubernetes.map_or(&[][..], |k| &k.load_balancer_cidrs);
    for node in draft.own_parts() {
        let path = vec!["nodes", node.name, "address"];
        inside(c, &network.node_cidr, &path, node.address);
        if let Some(first) = seen.note(node.address, path.clone()) {
            let message = format!("{} is given twice", node.address);
            let hint = "Give each machine its own address.";
            let (code, what) = ("duplicate-address", "address");
            if first.first() == Some(&"nodes") {
                c.claimed_twice(code, what, &first, &path, message, hint);
            } else {
                c.duplicate(code, &first, &path, message, hint);
            }
        }
    }
    for (i, net) in balancers.iter().enumerate().filter(|(_, net)| is_net(net)) {
        let inside: Vec<Vec<&str>> = points(draft)
            .into_iter()
            .filter(|(address, _)| net.contains(address))
            .map(|(_, path)| path)
            .collect();
        let i = i.to_string();
        let here = ["kubernetes", "load_balancer_cidrs", &i];
        lie_in(
            c,
            &inside,
            "in-load-balancer-network",
            &here,
            &format!("the load balancers' network {net}"),
            "a service could be given this address",
        );
        // Two that hand out addresses, each without a look at the other.
        if let Some(range) = network.dhcp_range.as_ref()
            && network.dhcp == Dhcp::Server
            && range.first <= range.last
            && range.first <= net.broadcast()
            && net.network() <= range.last
        {
            let message = format!(
                "`network.dhcp_range`, {} to {}, overlaps the load balancers' network {net}",
                range.first, range.last
            );
            let finding = Finding::error("ranges-overlap", c.at(&here), message)
                .related("the range is given here", c.at(&["network", "dhcp_range"]))
                .hint(
                    "Move one of the two: a machine and a service would be given the same address.",
                );
            c.report(finding);
        }
    }
}

/// What a network is called that a node leads the overlay's members to.
const ROUTE: &str = "a route";

/// Networks that have an address in common though each needs its own.
fn collisions(c: &mut Check<'_, '_>, own_is_sound: bool) {
    let draft = c.draft;
    let mut nets: Vec<(&str, Vec<String>, Ipv4Net)> = Vec::new();
    let path = |keys: &[&str]| keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>();
    if let Some(network) = &draft.network {
        if own_is_sound {
            nets.push(("nodes", path(&["network", "node_cidr"]), network.node_cidr));
        }
        if network.overlay.kind != OverlayKind::None {
            nets.push((
                "overlay",
                path(&["network", "overlay", "cidr"]),
                network.overlay.cidr,
            ));
            for (name, routes) in &network.overlay.routes {
                for (i, route) in routes.iter().enumerate() {
                    let keys = [
                        "network",
                        "overlay",
                        "routes",
                        name.as_str(),
                        &i.to_string(),
                    ];
                    nets.push((ROUTE, path(&keys), *route));
                }
            }
        }
    }
    if let Some(kubernetes) = &draft.kubernetes
        && kubernetes.distribution != Distribution::None
    {
        for (what, key, net) in [
            ("pods", "pod_cidr", kubernetes.pod_cidr),
            ("services", "service_cidr", kubernetes.service_cidr),
        ] {
            host_bits(c, &["kubernetes", key], &net);
            nets.push((what, path(&["kubernetes", key]), net));
        }
        for (i, net) in kubernetes.load_balancer_cidrs.iter().enumerate() {
            let keys = ["kubernetes", "load_balancer_cidrs", &i.to_string()];
            host_bits(c, &keys, net);
            nets.push(("load balancers", path(&keys), *net));
        }
        pods_per_node(c, kubernetes.pod_cidr);
    }
    // A network that isn't written as one collides with others only by that.
    nets.retain(|(_, _, net)| is_net(net));
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for (i, (what_a, _, a)) in nets.iter().enumerate() {
        for (j, (what_b, _, b)) in nets.iter().enumerate().skip(i + 1) {
            // Load balancers' addresses may be cut out of the nodes' network, where they are
            // announced by ARP.
            let cut_out = *what_a == "nodes" && *what_b == "load balancers";
            // A route leads to a network that is another's; only to the overlay itself it can't.
            let leads = [(what_a, what_b), (what_b, what_a)]
                .iter()
                .any(|(route, other)| **route == ROUTE && **other != "overlay");
            let cut_out = cut_out && a.contains(b) && a != b || leads;
            if meet(a, b) && !cut_out {
                pairs.push((i, j));
            }
        }
    }
    // The network that collides with the most others is told first, with all of them.
    while let Some(pair) = pairs.first().copied() {
        let hits = |net: usize| pairs.iter().filter(|(a, b)| *a == net || *b == net).count();
        let worst = (0..nets.len())
            .filter(|net| hits(*net) > 1)
            .max_by_key(|net| hits(*net));
        let told: Vec<(usize, usize)> = match worst {
            Some(net) => pairs
                .iter()
                .copied()
                .filter(|(a, b)| *a == net || *b == net)
                .collect(),
            None => vec![pair],
        };
        pairs.retain(|pair| !told.contains(pair));
        collision(c, &nets, worst, &told);
    }
}

/// Reports pairs of networks that collide: one, or several that are `worst`'s.
fn collision(
    c: &mut Check<'_, '_>,
    nets: &[(&str, Vec<String>, Ipv4Net)],
    worst: Option<usize>,
    pairs: &[(usize, usize)],
) {
    const HINT: &str = "Give each network addresses of its own.";
    let others: Vec<_> = pairs
        .iter()
        .map(|(a, b)| if worst == Some(*a) { *b } else { *a })
        .filter_map(|i| nets.get(i))
        .collect();
    let Some((_, last)) = pairs.first() else {
        return;
    };
    let Some((what, path, net)) = nets.get(worst.unwrap_or(*last)) else {
        return;
    };
    let Some((other_what, other_path, other)) = others.first() else {
        return;
    };
    let (path, other_path) = (refs(path), refs(other_path));
    let finding = if worst.is_some() {
        let names: Vec<String> = others
            .iter()
            .map(|(what, _, net)| format!("{what} ({net})"))
            .collect();
        let message = format!(
            "the network of {what} ({net}) collides with those of {}",
            causes::named(&names)
        );
        Finding::error("network-collision", c.at(&path), message).hint(HINT)
    } else {
        let (mut first, mut second) = (other_path, path);
        if !c.has(&second) || c.at(&first).start > c.at(&second).start && c.has(&first) {
            std::mem::swap(&mut first, &mut second);
        }
        let message = format!("the networks of {other_what} ({other}) and {what} ({net}) collide");
        let mut finding = Finding::error("network-collision", c.at(&second), message).hint(HINT);
        if c.has(&first) {
            finding = finding.related("the other one is given here", c.at(&first));
        }
        finding
    };
    c.report(finding);
}

fn refs(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

fn pods_per_node(c: &mut Check<'_, '_>, pods: Ipv4Net) {
    let nodes = c.draft.nodes.values();
    let nodes = nodes
        .filter(|n| n.role != crate::inventory::Role::None)
        .count();
    let room = match POD_NODE_PREFIX.checked_sub(pods.prefix_len()) {
        Some(bits) => 1usize << bits,
        None => 0,
    };
    if nodes > room {
        let message = format!(
            "{pods} has room for {room} nodes of a /{POD_NODE_PREFIX} each, and there are {nodes}"
        );
        let needed = nodes.next_power_of_two().trailing_zeros();
        let prefix = u32::from(POD_NODE_PREFIX).saturating_sub(needed);
        let hint = format!("Give `pod_cidr` a prefix length of at most {prefix}.");
        c.error("network-size", &["kubernetes", "pod_cidr"], message, hint);
    }
}
