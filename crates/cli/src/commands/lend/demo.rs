//! `undercroft lend demo`.

mod files;
mod nats;

use std::path::{Path, PathBuf};

use clap::Args;
use undercroft_lending::{
    accounts::Accounts,
    bus::{BusSettings, Inbox},
    keys::UserKey,
    server::{KEEP_MS, LendingFleet, ServerSettings, StoreSettings, serve},
};

use self::{
    files::{CA_FILE, SERVER_KEY_FILE},
    nats::Nats,
};
use super::{
    server::{say, told_to_end},
    submit::scan,
};
use crate::{
    args::one_folder, done::Done, error::CliError, owner, project::OwnedProject, runtime::block_on,
    ui::Ui,
};

/// The most that a demonstration's content may take in JetStream, in bytes.
const CONTENT_BYTES_MAX: i64 = 1024 * 1024 * 1024;

/// Try lending on this machine: NATS with TLS, a server of lending, and a folder with a PC's policy and a job
///
/// In a fleet, the operator has NATS and the server, and Home Manager writes the policy. Here the folder has all of
/// it, with keys and certificates of its own, on the loopback interface alone. Nothing is lent before you agree. Both
/// servers run until Ctrl-C; the folder stays, and the same command goes on with it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// The folder; it is made if need be
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    at: Option<PathBuf>,
    /// NATS' server, 2.11 or later
    #[arg(long, value_name = "PROGRAM", default_value = "nats-server", value_hint = clap::ValueHint::CommandName)]
    nats_server: PathBuf,
    /// Print what the server does as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Example:
  undercroft lend demo lending         and in other terminals, in that folder:
  undercroft lend enrol --grant --config desk.json
  undercroft lend run --config desk.json
  undercroft lend submit first-job.toml --key you.nk --ca ca.crt --wait";

pub(super) fn run(ui: Ui, at: Option<&Path>, args: &DemoArgs) -> Result<Done, CliError> {
    let dir = one_folder(args.at.as_deref(), at)?.ok_or_else(|| {
        CliError::usage("no folder is named").hint("Give one: `undercroft lend demo lending`.")
    })?;
    owner::settle_for_new(dir)?;
    files::prepare(dir)?;
    let inventory = OwnedProject::find(Some(dir))?.load(ui)?;
    let dir = dir
        .canonicalize()
        .map_err(|e| CliError::file("use", dir, &e))?;
    let fleet = LendingFleet::of(&inventory).map_err(|e| CliError::from(&e))?;
    let key = UserKey::read(&dir.join(SERVER_KEY_FILE)).map_err(|e| CliError::from(&e))?;
    let accounts = Accounts::of(&inventory, Some(key.public()));
    let url = inventory.lending.nats_url.clone().unwrap_or_default();
    let bus = BusSettings {
        url: url.clone(),
        ca_file: Some(dir.join(CA_FILE)),
        key: std::sync::Arc::new(key),
        name: "undercroft lend demo".to_owned(),
        inbox: Inbox::Server,
    };
    let settings = ServerSettings {
        fleet,
        bus,
        store: StoreSettings {
            replicas: 1,
            content_bytes_max: CONTENT_BYTES_MAX,
            keep_ms: KEEP_MS,
        },
        metrics: None,
        scan,
    };
    let json = args.json;
    block_on(async move {
        let mut nats = Nats::start(&args.nats_server, &dir, &url, &accounts).await?;
        ui.note(&format!(
            "NATS listens at {url}. In {}, as the PC's owner and as whoever brings work, each in a terminal:",
            dir.display()
        ));
        ui.note("  undercroft lend enrol --grant --config desk.json");
        ui.note("  undercroft lend run --config desk.json");
        ui.note("  undercroft lend submit first-job.toml --key you.nk --ca ca.crt --wait");
        let stop = async {
            tokio::select! {
                () = told_to_end() => Ok(()),
                ended = nats.ended() => Err(ended),
            }
        };
        let (ends, mut ended) = tokio::sync::oneshot::channel();
        let serves = serve(settings, move |event| say(ui, json, event), async move {
            let _ = ends.send(stop.await);
        });
        serves.await.map_err(|e| CliError::from(&e))?;
        if let Ok(Err(why)) = ended.try_recv() {
            return Err(why);
        }
        nats.end().await;
        Ok(Done::Well)
    })
}
