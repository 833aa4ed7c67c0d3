//! `undercroft lend server`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use undercroft_folder::named::read_bounded;
use undercroft_lending::{
    bus::Inbox,
    keys::UserKey,
    server::{
        FleetFile, KEEP_MS, LendingFleet, MetricsAt, ServerEvent, ServerLine, ServerSettings,
        StoreSettings, serve,
    },
};
use undercroft_model::{document::Version, inventory::Inventory};

use super::{reach::ReachArgs, submit::scan};
use crate::{
    done::Done,
    error::CliError,
    project::OwnedProject,
    runtime::block_on,
    text::{clock, plain_line},
    ui::Ui,
};

/// Bytes of a GiB.
const GIB: i64 = 1024 * 1024 * 1024;
/// The longest that content is kept, in seconds: a hundred years.
const KEEP_S_MAX: u64 = 100 * 365 * 24 * 3600;
/// The largest file that the flake's word is read from, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Hand work out to lent PCs: the one process beside NATS that keeps jobs, leases and results
///
/// It keeps everything in JetStream, and can be killed and started anew at any moment, here or elsewhere. Who
/// may take work and who may bring it stands in the inventory, or in the file that the flake made of it. Each
/// thing that happens is a line: who asked for what, where it went, under which consent.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    reach: ReachArgs,
    /// File with the server's key, whose public half is `lending.server_key`
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    key: PathBuf,
    /// What the flake made of the inventory, on a machine without the repository
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Give numbers in Prometheus' format at this address of the loopback interface, and /livez and /readyz
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Let --metrics be an address that others reach, who are asked for no password
    #[arg(long, requires = "metrics")]
    metrics_beyond_loopback: bool,
    /// On how many servers of a NATS cluster everything is kept; only where it isn't there yet
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
    /// The most that content may take in JetStream, in GiB; only where it isn't there yet
    #[arg(long, value_name = "GIB", default_value_t = 8, value_parser = clap::value_parser!(i64).range(1..=65_536))]
    content_gib: i64,
    /// Seconds for which content is kept after the last job that reads it or made it has ended: results, logs, and what
    /// jobs read. What takes longer than half of that to bring has to be brought anew [default: a week]
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = KEEP_MS / 1000,
        hide_default_value = true,
        value_parser = clap::value_parser!(u64).range(1..=KEEP_S_MAX)
    )]
    keep_s: u64,
    /// Print lines as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft lend key --out server.nk          and its public half as `lending.server_key`
  undercroft lend server --key server.nk --ca ca.crt --metrics 127.0.0.1:9109

Exit codes: 0 it was told to end, 1 NATS or its store can't be used, 65 the inventory or a key isn't right.";

pub(super) fn run(ui: Ui, at: Option<&Path>, args: &ServerArgs) -> Result<Done, CliError> {
    let key = UserKey::read(&args.key).map_err(|e| CliError::from(&e))?;
    let (fleet, inventory) = fleet(ui, at, args)?;
    if let Some(expected) = inventory
        .as_ref()
        .and_then(|i| i.lending.server_key.as_ref())
        && *expected != key.public().0
    {
        return Err(CliError::input(format!(
            "{} holds another key than `lending.server_key`",
            args.key.display()
        ))
        .hint(format!("Its public half is {}.", key.public().0)));
    }
    let bus = args.reach.bus(
        inventory.as_ref(),
        key,
        "undercroft lend server",
        Inbox::Server,
    )?;
    let settings = ServerSettings {
        fleet,
        bus,
        store: StoreSettings {
            replicas: usize::from(args.replicas),
            content_bytes_max: args.content_gib.saturating_mul(GIB),
            keep_ms: args.keep_s.saturating_mul(1000),
        },
        metrics: args.metrics.map(|at| MetricsAt {
            at,
            beyond_loopback: args.metrics_beyond_loopback,
        }),
        scan,
    };
    let json = args.json;
    block_on(async move {
        serve(settings, move |event| say(ui, json, event), told_to_end())
            .await
            .map_err(|e| CliError::from(&e))?;
        Ok(Done::Well)
    })
}

fn fleet(
    ui: Ui,
    at: Option<&Path>,
    args: &ServerArgs,
) -> Result<(LendingFleet, Option<Inventory>), CliError> {
    let Some(path) = &args.config else {
        let inventory = OwnedProject::find(at)?.load(ui)?;
        let fleet = LendingFleet::of(&inventory).map_err(|e| CliError::from(&e))?;
        return Ok((fleet, Some(inventory)));
    };
    let bytes =
        read_bounded(path, CONFIG_BYTES_MAX).map_err(|e| CliError::file("read", path, &e))?;
    let fleet = FleetFile::read(&bytes).map_err(|e| {
        CliError::input(format!("{} can't be used", path.display()))
            .because(&e)
            .hint("Let the flake or `undercroft render` of the same version write it.")
    })?;
    Ok((fleet, None))
}

pub(super) fn say(ui: Ui, json: bool, event: ServerEvent) {
    let at_ms = undercroft_process::clock::wall_ms_now();
    // Who reads the lines may have gone; the work goes on.
    let _ = if json {
        ui.json_line(&ServerLine {
            version: Version,
            at_ms,
            event,
        })
    } else {
        ui.line(&format!(
            "{} {}",
            clock(at_ms),
            plain_line(&event.to_string())
        ))
    };
}

pub(super) async fn told_to_end() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
    let [Ok(mut interrupt), Ok(mut terminate)] = kinds.map(signal) else {
        // Without handlers the signals end the program by themselves, which is as safe.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
