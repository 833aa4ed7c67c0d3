//! Checks that ask somebody else, and what it means that nobody answers: nothing.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Output,
};

use undercroft_testkit::{OrSkip as _, peer};

use crate::{Machine, programs_are_here};

/// A member of a cluster of three, whose kubelet runs.
fn member() -> Machine {
    let machine = Machine::new();
    machine.write("var/lib/joined", "");
    machine.write("etc/kubelet.conf", "apiVersion: v1\nkind: Config\n");
    machine.program("systemctl", "echo active");
    machine
        .with("UNIT", "kubelet.service")
        .with("KUBECTL", "kubectl")
        .with("KUBELET_CONFIG", "/etc/kubelet.conf")
        .with("JOINED", "/var/lib/joined")
        .with("UNDERCROFT_NODE", "box-01")
        .with(
            "SERVERS",
            "https://10.0.0.11:6443 https://10.0.0.12:6443 https://10.0.0.13:6443",
        )
}

/// A kubectl that says the same wherever it asks, except at the servers that have words of their own.
fn kubectl(machine: &Machine, everywhere: &str, of_one: &[(&str, &str)]) {
    let mut arms: String = of_one
        .iter()
        .map(|(server, says)| format!("*{server}*) {says} ;;\n"))
        .collect();
    arms += &format!("*) {everywhere} ;;\n");
    machine.program("kubectl", &format!("case $* in\n{arms}esac"));
}

fn node(ready: &str) -> String {
    format!(
        r#"echo '{{"status":{{"conditions":[{{"type":"DiskPressure","status":"False"}},{{"type":"Ready","status":"{ready}","message":"so it is"}}]}}}}'"#
    )
}

const REFUSED: &str = "echo 'E1128 memcache.go:265] couldn'; echo 'The connection to the server 10.0.0.10:6443 was refused - did you specify the right host or port?' >&2; exit 1";

#[track_caller]
fn ends(machine: &Machine, code: i32, words: &str) {
    let output = machine.run(&["health-kubernetes"], &[]);
    assert!(said(&output).contains(words), "{}", said(&output));
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn an_answer_about_the_node_decides() {
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    let machine = member();
    kubectl(&machine, &node("True"), &[]);
    ends(&machine, 0, "");
    for ready in ["False", "Unknown"] {
        kubectl(&machine, &node(ready), &[]);
        ends(&machine, 1, &format!("Ready is {ready}: so it is"));
    }
    for says in [
        r#"Error from server (NotFound): nodes "box-01" not found"#,
        r#"Error from server (Forbidden): nodes "box-01" is forbidden"#,
        "error: You must be logged in to the server (Unauthorized)",
    ] {
        kubectl(&machine, &format!("echo '{says}' >&2; exit 1"), &[]);
        ends(&machine, 1, says);
    }
}

#[test]
fn an_api_that_is_away_says_nothing_of_the_machine() {
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    let machine = member();
    kubectl(&machine, REFUSED, &[]);
    ends(&machine, 75, "no API server answered");
    let asked = machine.calls().matches("kubectl").count();
    assert_eq!(asked, 4, "{}", machine.calls());
    // An API that is ill says as little of the node.
    for says in [
        "Unable to connect to the server: net/http: TLS handshake timeout",
        "Error from server (ServiceUnavailable): the server is currently unable to handle the request",
        "Error from server (InternalError): etcdserver: leader changed",
        "Error from server: etcdserver: request timed out",
    ] {
        kubectl(&machine, &format!("echo '{says}' >&2; exit 1"), &[]);
        ends(&machine, 75, says);
    }
    // k3s ends where it finds nobody, and is started again.
    machine.program("systemctl", "echo activating");
    kubectl(&machine, REFUSED, &[]);
    ends(&machine, 75, "started again");
}

#[test]
fn where_one_server_answers_the_others_silence_is_none() {
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    let machine = member();
    kubectl(&machine, REFUSED, &[("10.0.0.13", &node("Unknown"))]);
    ends(&machine, 1, "Ready is Unknown");
    kubectl(&machine, REFUSED, &[("10.0.0.12", &node("True"))]);
    ends(&machine, 0, "");
    // The cluster is there, and this machine's part of it comes and goes.
    machine.program("systemctl", "echo activating");
    ends(&machine, 1, "started again");
}

#[test]
fn what_the_machine_knows_by_itself_needs_no_answer() {
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    let machine = member();
    kubectl(&machine, REFUSED, &[]);
    machine.program("systemctl", "echo failed");
    ends(&machine, 1, "it is failed");
    machine.program("systemctl", "echo active");
    machine.write("etc/kubelet.conf", "");
    ends(&machine, 1, "missing or empty");
    // The only server of a cluster has nobody else to wait for.
    machine.write("etc/kubelet.conf", "apiVersion: v1\n");
    let alone = machine.with("SOLE_SERVER", "1");
    ends(&alone, 1, "no other server than this machine");
    std::fs::remove_file(alone.path("var/lib/joined")).unwrap();
    ends(&alone, 0, "has not joined yet");
}

/// What a played API gives the real kubectl back, and what comes of it.
const ANSWERS: [(&str, &str, i32); 7] = [
    (
        "200 OK",
        r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
        0,
    ),
    (
        "200 OK",
        r#"{"status":{"conditions":[{"type":"Ready","status":"False"}]}}"#,
        1,
    ),
    (
        "404 Not Found",
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","message":"nodes \"box-01\" not found","code":404}"#,
        1,
    ),
    (
        "403 Forbidden",
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no","code":403}"#,
        1,
    ),
    (
        "401 Unauthorized",
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","message":"Unauthorized","code":401}"#,
        1,
    ),
    ("503 Service Unavailable", "no endpoints", 75),
    (
        "500 Internal Server Error",
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"etcdserver: request timed out","code":500}"#,
        75,
    ),
];

#[test]
fn the_real_kubectl_tells_answers_from_silence() {
    let Some(kubectl) = peer("kubectl").or_skip() else {
        return;
    };
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let machine = member()
        .with("KUBECTL", kubectl.to_str().unwrap())
        .with("SERVERS", "");
    machine.write(
        "etc/kubelet.conf",
        format!(
            "{{apiVersion: v1, kind: Config, current-context: a, clusters: [{{name: a, cluster: {{server: '{server}'}}}}], \
             users: [{{name: a, user: {{}}}}], contexts: [{{name: a, context: {{cluster: a, user: a}}}}]}}"
        ),
    );
    for (status, body, code) in ANSWERS {
        let answering = std::thread::spawn({
            let listener = listener.try_clone().unwrap();
            move || {
                let (mut stream, _) = listener.accept().unwrap();
                let asked = stream.read(&mut [0; 4096]).unwrap();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).unwrap();
                asked
            }
        });
        ends(&machine, code, "");
        assert!(answering.join().unwrap() > 0, "{status}");
    }
    // Whoever listens and says nothing, and where nobody listens.
    ends(&machine, 75, "no API server answered");
    drop(listener);
    ends(&machine, 75, "was refused");
}

/// A machine with network cards: name, Ethernet address, and what reading its carrier gives.
fn with_cards(cards: &[(&str, &str, &str)], has: &str) -> Machine {
    let machine = Machine::new().with("ADDRESS", "10.0.0.12");
    machine.program(
        "ip",
        &format!("echo '2: eth0    inet {has}/24 brd 10.0.0.255 scope global eth0'"),
    );
    for (name, mac, carrier) in cards {
        machine.write(&format!("sys/class/net/{name}/address"), mac);
        machine.write(&format!("sys/class/net/{name}/device/vendor"), "");
        if !carrier.is_empty() {
            machine.write(&format!("sys/class/net/{name}/carrier"), carrier);
        }
    }
    machine.write("sys/class/net/lo/carrier", "1");
    machine
}

#[test]
fn a_switch_that_is_off_says_nothing_of_the_machine_and_its_own_cards_do() {
    if !programs_are_here(&["grep"]) {
        return;
    }
    let (own, other) = ("52:54:00:00:00:01", "52:54:00:00:00:02");
    type Card<'a> = (&'a str, &'a str, &'a str);
    let cases: [(&[Card<'_>], &str, i32, &str); 6] = [
        (&[], "10.0.0.12", 0, ""),
        (&[("eth0", own, "0")], "10.0.0.1", 75, "no carrier at eth0"),
        (&[("eth0", own, "1")], "10.0.0.1", 1, "eth0 has a carrier"),
        (&[("eth0", own, "")], "10.0.0.1", 1, "was brought up"),
        (
            &[("eth1", other, "1")],
            "10.0.0.1",
            1,
            "there is no network card",
        ),
        (
            &[("eth0", own, "0"), ("eth1", other, "1")],
            "10.0.0.121",
            75,
            "no carrier at eth0",
        ),
    ];
    for (cards, has, code, words) in cases {
        let machine = with_cards(cards, has).with("MAC", own);
        let output = machine.run(&["health-network"], &[]);
        assert!(said(&output).contains(words), "{}", said(&output));
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    }
}
