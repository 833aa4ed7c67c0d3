//! The rack's network: a bridge and taps, made by `ip` inside the rack's namespace.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::RackError;
use super::firmware::find_program;
use super::spec::RackNetwork;

/// How long one `ip` command may take, in milliseconds.
const IP_MS: u64 = 10_000;

/// The bridge's own Ethernet address. It is set, since a bridge without one takes that of a tap
/// and changes it when the tap goes. The address is a locally administered one.
const BRIDGE_MAC: &str = "02:75:63:00:00:01";

/// Makes the bridge with its address, in a namespace that has nothing yet.
pub(crate) async fn set_up(network: &RackNetwork) -> Result<(), RackError> {
    let bridge = network.bridge.as_str();
    let address = format!("{}/{}", network.address, network.prefix_len);
    ip(&["link", "set", "dev", "lo", "up"]).await?;
    // A port forwards at once: a firmware's first DHCP request must not be lost to the listening
    // and learning of the spanning tree. Snooping would ask who listens, which firmware ignores.
    ip(&[
        "link",
        "add",
        "name",
        bridge,
        "address",
        BRIDGE_MAC,
        "type",
        "bridge",
        "stp_state",
        "0",
        "forward_delay",
        "0",
        "mcast_snooping",
        "0",
    ])
    .await?;
    ip(&["address", "add", &address, "dev", bridge]).await?;
    ip(&["link", "set", "dev", bridge, "up"]).await
}

/// Adds a tap to the bridge.
pub(crate) async fn add_tap(network: &RackNetwork, tap: &str) -> Result<(), RackError> {
    ip(&["tuntap", "add", "dev", tap, "mode", "tap"]).await?;
    ip(&["link", "set", "dev", tap, "master", &network.bridge, "up"]).await
}

/// Removes a tap.
pub(crate) async fn remove_tap(tap: &str) -> Result<(), RackError> {
    ip(&["link", "delete", "dev", tap]).await
}

async fn ip(args: &[&str]) -> Result<(), RackError> {
    let program = find_program(
        "ip",
        "the rack's network",
        "Install iproute2 (Fedora: iproute).",
    )?;
    let shown = format!("ip {}", args.join(" "));
    let mut run = Command::new(&program);
    run.args(args).stdin(Stdio::null()).kill_on_drop(true);
    undercroft_process::trace::started(run.as_std());
    let run = run.output();
    let output = timeout(Duration::from_millis(IP_MS), run)
        .await
        .map_err(|_| RackError::TimedOut {
            what: format!("`{shown}`"),
            limit_ms: IP_MS,
        })?
        .map_err(|e| RackError::io("run", &program, e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(RackError::Network {
        command: shown,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
