//! `undercroft lend audit`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use undercroft_folder::named::read_text_bounded;
use undercroft_lending::{
    audit::{FILE_BYTES_MAX, Keys, PublicKey, Record, audit, fetch, read},
    bus::{Bus, Inbox},
    keys::UserKey,
    server::devices,
};
use undercroft_model::{DeviceName, document::Version};

use super::reach::ReachArgs;
use crate::{
    documents::LendAudit,
    done::Done,
    error::CliError,
    project::OwnedProject,
    runtime::block_on,
    style::{BAD, GOOD, paint},
    text::count,
    ui::Ui,
};

/// Check what owners agreed to, and what was done under it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    Verify(VerifyArgs),
}

/// Go through a ledger of consent again, from its first record, and name the first that doesn't hold
///
/// Each record names the one before it by its digest, and is signed by the owner or by the device. It needs
/// the two public keys and no network: those of the inventory, or others that are given. A file is a device's
/// own (`entries` in its state folder), or has a record a line as JSON. Without one, the server's records are
/// read off its store.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct VerifyArgs {
    /// The ledger; without it, what the server of lending has
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath, required_unless_present = "key")]
    file: Option<PathBuf>,
    /// Whose ledger
    #[arg(long, value_name = "NAME")]
    device: DeviceName,
    /// The device's public nkey [default: `nkey` of its PC in the inventory]
    #[arg(long, value_name = "U…", requires = "owner_key")]
    device_key: Option<String>,
    /// Its owner's public nkey [default: `owner_key` of its PC in the inventory]
    #[arg(long, value_name = "U…", requires = "device_key")]
    owner_key: Option<String>,
    #[command(flatten)]
    reach: ReachArgs,
    /// File with the server's key, to read the server's records
    #[arg(long, value_name = "FILE", conflicts_with = "file", value_hint = clap::ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft lend audit verify ~/.local/state/undercroft/lending/entries --device ada-desk
  undercroft lend audit verify --device ada-desk --key server.nk --ca ca.crt

Exit codes: 0 all of it holds, 65 a record doesn't, or the file is no ledger.";

pub(super) fn run(ui: Ui, at: Option<&Path>, args: &AuditArgs) -> Result<Done, CliError> {
    let AuditCommand::Verify(args) = &args.command;
    let inventory = match (&args.device_key, &args.file) {
        (Some(_), Some(_)) => None,
        _ => Some(OwnedProject::find(at)?.load(ui)?),
    };
    let keys = match (&args.owner_key, &args.device_key, &inventory) {
        (Some(owner), Some(device), _) => Keys {
            owner: PublicKey(owner.clone()),
            device: PublicKey(device.clone()),
        },
        (_, _, Some(inventory)) => devices(inventory).remove(&args.device).ok_or_else(|| {
            CliError::input(format!("{} has no keys in the inventory", args.device))
                .hint("Give both with --device-key and --owner-key.")
        })?,
        _ => return Err(CliError::bug("there are no keys")),
    };
    let records = match (&args.file, &args.key) {
        (Some(file), _) => of_file(file)?,
        (None, Some(key)) => {
            let key = UserKey::read(key).map_err(|e| CliError::from(&e))?;
            let name = "undercroft lend audit";
            let settings = args
                .reach
                .bus(inventory.as_ref(), key, name, Inbox::Server)?;
            block_on(of_server(settings, &args.device))?
        }
        (None, None) => return Err(CliError::bug("there is no ledger")),
    };
    verdict(ui, args, &records, &keys)
}

fn of_file(file: &Path) -> Result<Vec<Record>, CliError> {
    let text =
        read_text_bounded(file, FILE_BYTES_MAX).map_err(|e| CliError::file("read", file, &e))?;
    read(&text).map_err(|e| CliError::input(format!("{} is no ledger", file.display())).because(&e))
}

async fn of_server(
    settings: undercroft_lending::bus::BusSettings,
    device: &DeviceName,
) -> Result<Vec<Record>, CliError> {
    let bus = Bus::connect(&settings)
        .await
        .map_err(|e| CliError::from(&e))?;
    let records = fetch(&bus, device).await.map_err(|e| CliError::from(&e))?;
    records.ok_or_else(|| CliError::input(format!("the server has no ledger of {device}")))
}

fn verdict(ui: Ui, args: &VerifyArgs, records: &[Record], keys: &Keys) -> Result<Done, CliError> {
    let device = args.device.clone();
    let audited = audit(device.clone(), records, keys);
    let broken = audited.as_ref().err().cloned();
    if args.json {
        let found = audited.as_ref().ok();
        ui.json(&LendAudit {
            version: Version,
            device,
            holds: broken.is_none(),
            records: u64::try_from(records.len()).unwrap_or(u64::MAX),
            head: found.and_then(|a| Some(a.head?.digest.to_string())),
            consent: found.and_then(|a| Some(a.consent.as_ref()?.number)),
            begun: found.map(|a| a.begun),
            receipts: found.map(|a| a.receipts),
            open: found.map_or_else(Vec::new, |a| a.open.keys().cloned().collect()),
            first_broken: broken.as_ref().map(|b| b.number),
            why: broken.as_ref().map(ToString::to_string),
        })?;
        return match broken {
            None => Ok(Done::Well),
            Some(broken) => Err(CliError::input(broken.to_string())),
        };
    }
    let audited = audited.map_err(|broken| {
        CliError::input(broken.to_string()).hint(
            "What stands before that record holds. Compare with the other copy: the device has one, and the server.",
        )
    })?;
    let lends = match &audited.consent {
        Some(consent) => paint(GOOD, &format!("lends by record {}", consent.number)).to_string(),
        None => paint(BAD, "lends nothing").to_string(),
    };
    let number = |n: u64, noun| count(usize::try_from(n).unwrap_or(usize::MAX), noun);
    ui.line(&format!(
        "{device}: {} records hold; {} begun, {}, {} open; its owner {lends}",
        audited.records,
        number(audited.begun, "job"),
        number(audited.receipts, "receipt"),
        audited.open.len(),
    ))?;
    Ok(Done::Well)
}
