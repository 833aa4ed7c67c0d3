//! The login to the overlay, the control server's users, and its policy and the message system's
//! configuration as their own programs read them.

use std::{path::Path, process::Command};

use undercroft_testkit::{OrSkip as _, peer};

use crate::{Machine, failed, succeeded};

fn client() -> Machine {
    Machine::new()
        .with("AUTH_KEY_FILE", "/run/credentials/key")
        .with("HOST_NAME", "gpu-01")
        .with("LOGIN_SERVER", "https://headscale.cellar.example")
        .with("ROUTES", "10.0.0.0/24")
        .with("ATTEMPTS", "3")
        .with("PAUSE_S", "0")
}

#[test]
fn a_login_is_tried_again_and_shows_no_key() {
    let machine = client();
    machine.program("tailscale", r#"[ "$(wc -l < "$root/calls")" -ge 2 ]"#);
    succeeded(&machine.run(&["overlay-connect"], &[]));
    let calls = machine.calls();
    assert_eq!(calls.lines().count(), 2);
    assert_eq!(
        calls.lines().next(),
        Some(
            "tailscale up --reset --auth-key=file:/run/credentials/key --hostname=gpu-01 \
             --advertise-routes=10.0.0.0/24 --accept-dns=false --accept-routes=false \
             --timeout=30s --login-server=https://headscale.cellar.example"
        )
    );
}

#[test]
fn a_login_gives_up_after_its_attempts() {
    let machine = client();
    machine.program("tailscale", "exit 1");
    assert!(failed(&machine.run(&["overlay-connect"], &[])).contains("failed 3 times"));
    assert_eq!(machine.calls().lines().count(), 3);
}

#[test]
fn people_are_made_once_and_nobody_is_deleted() {
    if !crate::programs_are_here(&["jq"]) {
        return;
    }
    let machine = Machine::new().with("USERS", "ada lin").with("WAIT_S", "1");
    machine.program(
        "headscale",
        r#"case "$1 $2" in
  "users list") echo '[{"id":1,"name":"ada"},{"id":2,"name":"vic"}]' ;;
esac"#,
    );
    let output = machine.run(&["headscale-users"], &[]);
    succeeded(&output);
    assert_eq!(
        machine.calls(),
        "headscale users list --output json\nheadscale users create lin\n"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("vic is a user of Headscale"));
}

#[test]
fn a_control_server_without_users_says_null() {
    if !crate::programs_are_here(&["jq"]) {
        return;
    }
    let machine = Machine::new().with("USERS", "ada").with("WAIT_S", "1");
    machine.program("headscale", r#"[ "$2" != list ] || echo null"#);
    succeeded(&machine.run(&["headscale-users"], &[]));
    assert!(machine.calls().contains("users create ada"));
}

fn nix_lib(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nix/lib");
    path.canonicalize()
        .unwrap()
        .join(name)
        .to_str()
        .unwrap()
        .to_owned()
}

/// The value of an expression of Nix, as JSON.
fn evaluated(expression: &str) -> String {
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--expr", expression])
        .output()
        .unwrap();
    succeeded(&output);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn headscale_takes_the_policy() {
    let Some(headscale) = peer("headscale").or_skip() else {
        return;
    };
    if !crate::programs_are_here(&["nix-instantiate"]) {
        return;
    }
    let machine = Machine::new();
    let root = machine.root();
    machine.write(
        "config.yaml",
        format!(
            r#"{{"server_url":"http://127.0.0.1:1","listen_addr":"127.0.0.1:1",
"noise":{{"private_key_path":"{root}/noise"}},"prefixes":{{"v4":"100.64.0.0/10"}},
"database":{{"type":"sqlite","sqlite":{{"path":"{root}/db"}}}},"derp":{{"urls":[]}},
"dns":{{"magic_dns":false,"override_local_dns":false}},"unix_socket":"{root}/socket"}}"#
        ),
    );
    let check = |policy: &str| {
        machine.write("policy.json", policy);
        Command::new(&headscale)
            .args(["--force", "--config", &format!("{root}/config.yaml")])
            .args([
                "policy",
                "check",
                "--bypass-grpc-and-access-database-directly",
            ])
            .args(["--file", &format!("{root}/policy.json")])
            .output()
            .unwrap()
    };
    let lib = nix_lib("overlay.nix");
    for arguments in [
        "{ }",
        r#"{ routes = [ "10.0.0.0/24" ]; }"#,
        r#"{ users.ada.role = "admin"; }"#,
        r#"{ users = { ada.role = "admin"; lin.role = "developer"; vic.role = "viewer"; };
             routes = [ "10.0.0.0/24" "10.1.0.0/16" ]; }"#,
        r#"{ users.vic.role = "viewer"; }"#,
    ] {
        let policy = evaluated(&format!("(import {lib}).policy {arguments}"));
        succeeded(&check(&policy));
    }
    // The check finds something where there is something to find.
    assert!(
        !check(r#"{"acls":[{"action":"accept","src":["group:no"],"dst":["*:*"]}]}"#)
            .status
            .success()
    );
}

#[test]
fn nats_takes_the_accounts() {
    let Some(server) = peer("nats-server").or_skip() else {
        return;
    };
    if !crate::programs_are_here(&["nix-instantiate"]) {
        return;
    }
    let lib = nix_lib("nats.nix");
    let accounts = evaluated(&format!(
        r#"(import {lib}).accounts {{
          devices.ada-workstation.nkey = "UATDUTN6IFEI7ODSCSYAGIZZ3O47BSG2CTAW37HRGCCL6PBFKLWKLB4W";
          submitters.ci.nkey = "UANRLCBZ7CVDHHUJXNILCYB6SDWGRYH5KVS74EFHZMZHFH6564DQVGKZ";
          services.lend-server.nkey = "UCX535HLU5JWVAJHAG6IVZJPVZWONKNWOUQBTKOLTCZ2TKO5VVIPKSUV";
        }}"#
    ));
    let machine = Machine::new();
    let check = |accounts: &str| {
        machine.write(
            "nats.conf",
            format!(r#"{{"system_account":"SYS","jetstream":{{}},"accounts":{accounts}}}"#),
        );
        Command::new(&server)
            .args(["-t", "-c", machine.path("nats.conf").to_str().unwrap()])
            .output()
            .unwrap()
    };
    succeeded(&check(&accounts));
    assert!(!check(&accounts.replace("UATD", "UATE")).status.success());
}
