//! How commands of lending reach NATS, and as whom.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use undercroft_lending::{
    bus::{Bus, BusSettings, Inbox},
    keys::UserKey,
    submit::Submitting,
};
use undercroft_model::{SubmitterName, inventory::Inventory};

use crate::{error::CliError, project::OwnedProject, ui::Ui};

/// The file with a submitter's key, in the folder of the person's configuration.
const KEY_FILE: &str = "undercroft/submit.nk";

/// How a server is reached.
#[derive(Debug, Args)]
pub(super) struct ReachArgs {
    /// NATS, as tls://HOST:PORT [default: `lending.nats_url` of the inventory]
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// File with the certificate of the authority that signed NATS' [default: the system's own]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    ca: Option<PathBuf>,
}

impl ReachArgs {
    pub(super) fn bus(
        &self,
        inventory: Option<&Inventory>,
        key: UserKey,
        name: &str,
        inbox: Inbox,
    ) -> Result<BusSettings, CliError> {
        let of_inventory = inventory.and_then(|inventory| inventory.lending.nats_url.clone());
        let url = self.nats.clone().or(of_inventory).ok_or_else(|| {
            CliError::usage("no NATS server is named")
                .hint("Give --nats, or set `lending.nats_url` in the inventory.")
        })?;
        Ok(BusSettings {
            url,
            ca_file: self.ca.clone(),
            key: Arc::new(key),
            name: name.to_owned(),
            inbox,
        })
    }
}

/// Who submits.
#[derive(Debug, Args)]
pub(super) struct SubmitterArgs {
    #[command(flatten)]
    reach: ReachArgs,
    /// File with your key, as `undercroft lend key` makes it [default: ~/.config/undercroft/submit.nk]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// Your name under `[lending.submitters]` [default: the one with your key]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<SubmitterName>,
}

impl SubmitterArgs {
    /// Connects.
    pub(super) async fn connect(&self, ui: Ui, at: Option<&Path>) -> Result<Submitting, CliError> {
        let path = match &self.key {
            Some(path) => path.clone(),
            None => own_key()?,
        };
        let key = UserKey::read(&path).map_err(|e| CliError::from(&e))?;
        // With everything given, no folder of a fleet is needed.
        let inventory = match (&self.reach.nats, &self.name) {
            (Some(_), Some(_)) => None,
            _ => Some(OwnedProject::find(at)?.load(ui)?),
        };
        let name = match (&self.name, &inventory) {
            (Some(name), _) => name.clone(),
            (None, Some(inventory)) => by_key(inventory, &key.public().0)?,
            (None, None) => return Err(CliError::bug("nobody submits")),
        };
        let inbox = Inbox::Submitter(name.to_string());
        let settings = self
            .reach
            .bus(inventory.as_ref(), key, "undercroft lend", inbox)?;
        let bus = Bus::connect(&settings)
            .await
            .map_err(|e| CliError::from(&e))?;
        Ok(Submitting::new(bus, &name))
    }
}

fn own_key() -> Result<PathBuf, CliError> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.filter(|path| path.is_absolute());
    let config = config.or_else(|| Some(std::env::home_dir()?.join(".config")));
    let config = config.ok_or_else(|| {
        CliError::usage("no key is named").hint("Give --key; `undercroft lend key` makes one.")
    })?;
    Ok(config.join(KEY_FILE))
}

fn by_key(inventory: &Inventory, public: &str) -> Result<SubmitterName, CliError> {
    let submitters = &inventory.lending.submitters;
    let found = submitters.iter().find(|(_, who)| who.nkey == public);
    found.map(|(name, _)| name.clone()).ok_or_else(|| {
        CliError::input(format!(
            "{public} is the key of none of `lending.submitters`"
        ))
        .hint(format!(
            "Have it put into the inventory: [lending.submitters.YOUR-NAME] with nkey = \"{public}\" and a tenant."
        ))
    })
}
