//! `undercroft secrets`.

mod check;
mod edit;

use crate::consent::consent;
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use undercroft_secrets::keys::{IdentitySource, OPERATORS_PUBLIC_FILE, OperatorKey};
use undercroft_secrets::{Audience, Initialised, Make, Rekeyed, SecretFile, SecretString, Vault};
use zeroize::Zeroizing;

use undercroft_model::document::Version;

use crate::{
    args::DirArg,
    busy::Busy,
    complete,
    documents::{Identity, SecretRow, SecretsInit, SecretsList, SecretsRekey, SecretsRotate},
    done::Done,
    error::CliError,
    project::OwnedProject,
    style::{BAD, BOLD, DIM, GOOD, HINT, WARN, paint},
    text::{Table, plain},
    ui::Ui,
};

/// The largest secret that is read from standard input, in bytes.
const GIVEN_BYTES_MAX: u64 = 64 * 1024;

/// The fleet's secrets: made, changed and checked, and never in plain text on a disk
///
/// Secrets lie in the repository as SOPS files, in the folder that `path` of `[secrets]` names.
/// Names are readable, values are encrypted with age: to the operators, and to those machines
/// alone that need the file. A machine opens its files at its first boot with its SSH host key,
/// which `init` or `up` has made. The real `sops` reads and writes the same files; `.sops.yaml`
/// tells it to whom.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SecretsArgs {
    #[command(subcommand)]
    command: SecretsCommand,
}

const EXAMPLES: &str = "\
Examples:
  undercroft secrets init                      make what is missing; nothing is made twice
  undercroft secrets list                      names, and who can open what
  undercroft secrets rotate grafana/admin_password
  undercroft secrets rekey                     after nodes or operators came or went
  undercroft secrets check                     in CI: it needs no key
  sops decrypt secrets/operators.sops.yaml     the same, by sops itself

Your age identity is looked for in the files that --identity names, in SOPS_AGE_KEY_FILE, in
~/.config/sops/age/keys.txt, ~/.ssh/id_ed25519 and ~/.ssh/id_rsa. Where `operators` of [secrets] is
empty, the fleet gets an identity of its own in .undercroft/operator-identity.txt: keep a copy.

Exit codes:
  0   done; `check`: no errors, though there may be warnings
  1   failed: no identity opens a file, somebody else changes it, or it can't be written
  2   `rekey --dry-run`: there are changes
  64  there is no such secret or file
  65  `check`: there are errors; else a file or the inventory isn't what it should be";

#[derive(Debug, Subcommand)]
enum SecretsCommand {
    /// Make what is missing: host keys, tokens, authorities, passwords
    ///
    /// What is there is never made anew, so that it can be run at any time. What only a person can
    /// give is named. Where no identity at hand is one of the operators, nothing is made: nobody
    /// here could open it.
    #[command(
        after_help = "Example:\n  undercroft secrets init && git add secrets .sops.yaml && git commit\n\nExit codes: 0 all that can be made is there, 1 an identity is missing or a file can't be written."
    )]
    Init(InitArgs),
    List(ListArgs),
    Edit(EditArgs),
    Rotate(RotateArgs),
    Rekey(RekeyArgs),
    /// Find what is wrong: recipients, plain text, files that were tampered with
    ///
    /// It looks at every file of secrets, and for what looks like a secret in all files that git
    /// tracks. Without an identity at hand, values aren't opened, and all else is checked. A machine
    /// that can't open its files is an error, with or without a host key; what only a person can
    /// give is a warning.
    #[command(
        after_help = "Example:\n  undercroft secrets check || exit 1    in CI, without any key\n\nExit codes: 0 no errors, though there may be warnings, 65 there are errors.\n\nWith --json: {\"ok\", \"findings\": [{\"severity\", \"code\", \"file\", \"line\", \"message\", \"hint\"}]}"
    )]
    Check(CommonArgs),
}

/// What all of them understand.
#[derive(Debug, Args)]
struct Where {
    /// A file with your age identity or SSH private key, beside the usual places
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    identity: Vec<PathBuf>,
}

/// What commands that change who can read something understand.
#[derive(Debug, Args)]
struct Agreement {
    /// Don't ask before somebody can read secrets who couldn't, or no longer
    #[arg(long, short)]
    yes: bool,
}

/// What `init` takes.
#[derive(Debug, Args)]
struct InitArgs {
    #[command(flatten)]
    dir: DirArg,
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    agreement: Agreement,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What `check` takes.
#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    dir: DirArg,
    #[command(flatten)]
    at: Where,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// List the secrets by name, and who can open them
///
/// Names need no key. Values are never shown; `sops decrypt FILE` shows them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  undercroft secrets list\n  undercroft secrets list --public      the deploy key for the git server\n  undercroft secrets list --json | jq -r '.secrets[] | select(.state == \"missing\").name'"
)]
struct ListArgs {
    #[command(flatten)]
    dir: DirArg,
    #[command(flatten)]
    at: Where,
    /// Print the public halves of keys that other servers must know
    #[arg(long)]
    public: bool,
    /// Print the list as JSON
    #[arg(long, conflicts_with = "public")]
    json: bool,
}

/// Change a file in your editor
///
/// The plain text lies in memory while the editor has it: in a file of /dev/shm that only you can
/// read, and that is wiped when the editor ends, or this program is told to. VISUAL or EDITOR names
/// the editor; vim and its kin are told to keep no swap, backup, undo and history files. Other
/// commands that change secrets wait meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft secrets edit secrets/operators.sops.yaml")]
struct EditArgs {
    /// The file, as `undercroft secrets list` names it
    #[arg(add = ArgValueCompleter::new(complete::secret_files))]
    file: String,
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    agreement: Agreement,
}

/// Give one secret a new value, and make anew what follows from it
#[derive(Debug, Args)]
#[command(after_help = ROTATE_EXAMPLES)]
struct RotateArgs {
    /// The secret, or FILE:SECRET
    #[arg(add = ArgValueCompleter::new(complete::secrets))]
    name: String,
    /// Take the value from standard input instead of making one
    #[arg(long)]
    stdin: bool,
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    agreement: Agreement,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

const ROTATE_EXAMPLES: &str = "\
Examples:
  undercroft secrets rotate k3s/server_token
  undercroft secrets rotate tailscale/auth_key --stdin < key
  undercroft secrets rotate pcs/ada-mac.sops.yaml:nats/user_seed

A line break at the end of what is read from standard input is left out.";

/// Encrypt the files to those whom the inventory names, and to nobody else
///
/// Who comes gets a part of each file; the values stay as they are. Where somebody goes, the file
/// gets a new key, and the secrets are named that must be rotated because they may be known still.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  undercroft secrets rekey --dry-run    who would come and go\n\nExit codes: 0 done, 2 with --dry-run: there are changes."
)]
struct RekeyArgs {
    #[command(flatten)]
    dir: DirArg,
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    agreement: Agreement,
    /// Only say what would change; exit 2 if anything would
    #[arg(long)]
    dry_run: bool,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &SecretsArgs) -> Result<Done, CliError> {
    match &args.command {
        SecretsCommand::Init(args) => {
            let at = args.dir.or(at)?;
            let vault = open_to_change(ui, at, &args.at, &args.agreement)?;
            init(ui, &OwnedProject::find(at)?, &vault, args.json)
        }
        SecretsCommand::List(args) => show(ui, &open(ui, args.dir.or(at)?, &args.at)?, args),
        SecretsCommand::Edit(args) => {
            let vault = open_to_change(ui, at, &args.at, &args.agreement)?;
            edit::edit(ui, &vault, &args.file)
        }
        SecretsCommand::Rotate(args) => {
            let vault = open_to_change(ui, at, &args.at, &args.agreement)?;
            rotate(ui, &vault, args)
        }
        SecretsCommand::Rekey(args) => {
            let at = args.dir.or(at)?;
            let vault = if args.dry_run {
                open(ui, at, &args.at)?
            } else {
                open_to_change(ui, at, &args.at, &args.agreement)?
            };
            rekey(ui, &vault, args)
        }
        SecretsCommand::Check(args) => {
            check::run(ui, &open(ui, args.dir.or(at)?, &args.at)?, args.json)
        }
    }
}

/// The vault of the project, with its identities, to look at. Nothing is made.
fn open(ui: Ui, at: Option<&Path>, place: &Where) -> Result<Vault, CliError> {
    vault_of(ui, &OwnedProject::find(at)?, place)
}

/// The vault of the project, to be changed: what was agreed to is kept in the state folder.
fn open_to_change(
    ui: Ui,
    at: Option<&Path>,
    place: &Where,
    agreement: &Agreement,
) -> Result<Vault, CliError> {
    let project = OwnedProject::find(at)?;
    let vault = vault_of(ui, &project, place)?;
    project.make_state()?;
    Ok(vault.agreeing(consent(ui, agreement.yes)))
}

fn vault_of(ui: Ui, project: &OwnedProject, place: &Where) -> Result<Vault, CliError> {
    let inventory = project.load(ui)?;
    let source = IdentitySource::usual(project.state(), place.identity.clone());
    Vault::open(&project.dir, &inventory, source).map_err(|e| CliError::from(&e))
}

/// The moment that files are said to be changed at.
pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn init(ui: Ui, project: &OwnedProject, vault: &Vault, json: bool) -> Result<Done, CliError> {
    let busy = Busy::in_lines(ui, "making keys and encrypting");
    let done = vault.init(now_s()).map_err(|e| CliError::from(&e))?;
    drop(busy);
    // The flake lets in whoever has a key in there, and sees it once git knows the file.
    let fleet = project.load(Ui::new(true))?.fleet.name;
    let key = OperatorKey::ensure(&project.state(), &fleet).map_err(|e| CliError::from(&e))?;
    let published = key.publish(&project.dir).map_err(|e| CliError::from(&e))?;
    if json {
        ui.json(&SecretsInit {
            version: Version,
            identity: done.identity.map(|identity| Identity {
                path: identity.path,
                recipient: identity.recipient,
            }),
            host_keys: done.host_keys,
            made: done.made,
            asked: done.asked,
            rules_written: done.rules,
        })?;
        return Ok(Done::Well);
    }
    tell_made(ui, &done, published)?;
    for half in vault.public_halves().map_err(|e| CliError::from(&e))? {
        if done.made.iter().any(|made| made.name == half.name) {
            ui.line(&format!(
                "{} the public half of {}, {}:\n  {}",
                paint(HINT, "register"),
                half.name,
                half.goes,
                half.line
            ))?;
        }
    }
    let waiting = vault.rekey(now_s(), true).map_err(|e| CliError::from(&e))?;
    if !waiting.is_empty() {
        ui.hint(
            "Others should be able to open some files, or no longer: `undercroft secrets rekey`.",
        );
    }
    Ok(Done::Well)
}

/// Says what was made, and what is somebody's to give.
fn tell_made(ui: Ui, done: &Initialised, published: bool) -> Result<(), CliError> {
    if let Some(identity) = &done.identity {
        ui.line(&format!(
            "{} the fleet's own identity, {}, in {}",
            paint(GOOD, "made"),
            identity.recipient,
            identity.path.display()
        ))?;
        ui.hint(&format!(
            "Keep a copy of {} in a safe place: nobody opens the fleet's secrets without it, and git doesn't have it.",
            identity.path.display()
        ));
    }
    if published {
        ui.line(&format!(
            "{} {OPERATORS_PUBLIC_FILE}, this computer's key to the machines",
            paint(GOOD, "wrote")
        ))?;
    }
    for node in &done.host_keys {
        ui.line(&format!("{} the host key of {node}", paint(GOOD, "made")))?;
    }
    for made in &done.made {
        ui.line(&format!(
            "{} {} in {}",
            paint(GOOD, "made"),
            made.name,
            made.file
        ))?;
    }
    for asked in &done.asked {
        ui.line(&format!(
            "{} {} in {}: undercroft secrets rotate {} --stdin",
            paint(WARN, "yours to give"),
            asked.name,
            asked.file,
            asked.name
        ))?;
    }
    if done.rules {
        ui.line(&format!("{} .sops.yaml", paint(GOOD, "wrote")))?;
    }
    if done.foreign_rules {
        ui.warn(".sops.yaml isn't Undercroft's own and was left alone; see to it that its rules name the same recipients");
    }
    if done.made.is_empty() && done.host_keys.is_empty() {
        ui.line("all secrets that can be made are there")?;
    }
    Ok(())
}

fn audience(file: &SecretFile) -> String {
    match &file.audience {
        Audience::Operators => "operators".to_owned(),
        Audience::Nodes(nodes, why) => format!("operators, {why} ({})", nodes.len()),
        Audience::Person(name, _) => format!("operators, {name}"),
    }
}

/// Every secret of the catalogue and of the files, in their order.
fn rows(vault: &Vault) -> Result<Vec<SecretRow>, CliError> {
    let mut rows = Vec::new();
    for file in vault.files() {
        // Names are readable without a key.
        let present = vault
            .read(&file.path)
            .map_err(|e| CliError::from(&e))?
            .map(|encrypted| encrypted.names())
            .unwrap_or_default();
        let readers = audience(file);
        for secret in &file.secrets {
            rows.push(SecretRow {
                name: secret.name.clone(),
                file: vault.shown(&file.path),
                readers: readers.clone(),
                state: match (present.contains(&secret.name), &secret.make) {
                    (true, _) => "there",
                    (false, Make::Asked) => "yours to give",
                    (false, _) => "missing",
                }
                .to_owned(),
                about: secret.about.to_owned(),
            });
        }
        for name in present
            .into_iter()
            .filter(|name| !file.secrets.iter().any(|s| s.name == *name))
        {
            rows.push(SecretRow {
                name,
                file: vault.shown(&file.path),
                readers: readers.clone(),
                state: "there".to_owned(),
                about: "your own".to_owned(),
            });
        }
    }
    Ok(rows)
}

fn show(ui: Ui, vault: &Vault, args: &ListArgs) -> Result<Done, CliError> {
    if args.public {
        for half in vault.public_halves().map_err(|e| CliError::from(&e))? {
            ui.line(&format!("{}\n  {}", paint(BOLD, &half.name), half.line))?;
        }
        return Ok(Done::Well);
    }
    let rows = rows(vault)?;
    if args.json {
        ui.json(&SecretsList {
            version: Version,
            secrets: rows,
        })?;
        return Ok(Done::Well);
    }
    let mut file = String::new();
    let mut table = Table::plain(2);
    for row in &rows {
        if row.file != file {
            ui.print(&table.render())?;
            table = Table::plain(2);
            ui.line(&format!(
                "{} {}",
                paint(BOLD, &row.file),
                paint(DIM, &format!("for {}", row.readers))
            ))?;
            file.clone_from(&row.file);
        }
        let style = match row.state.as_str() {
            "there" => GOOD,
            "missing" => BAD,
            _ => WARN,
        };
        table.row([
            plain(&row.name),
            paint(style, &row.state),
            paint(DIM, &row.about),
        ]);
    }
    ui.print(&table.render())?;
    if rows.is_empty() {
        ui.line("the inventory asks for no secrets")?;
    }
    Ok(Done::Well)
}

fn rotate(ui: Ui, vault: &Vault, args: &RotateArgs) -> Result<Done, CliError> {
    let given = if args.stdin { Some(given()?) } else { None };
    let changed = vault
        .rotate(&args.name, given, now_s())
        .map_err(|e| CliError::from(&e))?;
    if args.json {
        ui.json(&SecretsRotate {
            version: Version,
            changed,
        })?;
        return Ok(Done::Well);
    }
    for change in &changed {
        ui.line(&format!(
            "{} {} in {}",
            paint(GOOD, "changed"),
            change.name,
            change.file
        ))?;
    }
    let mut said: Vec<&str> = Vec::new();
    for change in &changed {
        if !said.contains(&change.after.as_str()) {
            ui.hint(&change.after);
            said.push(&change.after);
        }
    }
    Ok(Done::Well)
}

/// A secret from standard input.
fn given() -> Result<SecretString, CliError> {
    let room = usize::try_from(GIVEN_BYTES_MAX).unwrap_or(0) + 64;
    // With room for all of it, as growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(room));
    std::io::stdin()
        .lock()
        .take(GIVEN_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|e| CliError::failed("can't read the secret from standard input").because(&e))?;
    if text.len() as u64 > GIVEN_BYTES_MAX {
        return Err(CliError::usage(format!(
            "what standard input gives is longer than {GIVEN_BYTES_MAX} bytes"
        )));
    }
    // Keys of several lines need the break at their end.
    let one_line = text.trim_end_matches(['\r', '\n']);
    let text = if one_line.contains('\n') {
        text.as_str()
    } else {
        one_line
    };
    if text.trim().is_empty() {
        return Err(CliError::usage("standard input gives no secret")
            .hint("Pipe it in, or leave --stdin out to have one made."));
    }
    Ok(SecretString::from(text))
}

fn rekey(ui: Ui, vault: &Vault, args: &RekeyArgs) -> Result<Done, CliError> {
    let busy = Busy::in_lines(ui, "encrypting to those who are to read");
    let done: Vec<Rekeyed> = vault
        .rekey(now_s(), args.dry_run)
        .map_err(|e| CliError::from(&e))?;
    drop(busy);
    let changes = args.dry_run && !done.is_empty();
    let ended = if changes { Done::Changes } else { Done::Well };
    if args.json {
        ui.json(&SecretsRekey {
            version: Version,
            files: done,
        })?;
        return Ok(ended);
    }
    let word = if args.dry_run {
        "would change"
    } else {
        "changed"
    };
    for file in &done {
        ui.line(&format!("{} {}", paint(GOOD, word), file.file))?;
        for name in &file.added {
            ui.line(&format!("  + {name}"))?;
        }
        for name in &file.removed {
            ui.line(&format!("  - {name}"))?;
        }
    }
    for after in done.iter().filter_map(|file| file.after.as_deref()) {
        ui.hint(after);
    }
    let mut rotate: Vec<&str> = done
        .iter()
        .flat_map(|f| &f.rotate)
        .map(String::as_str)
        .collect();
    rotate.sort_unstable();
    rotate.dedup();
    if !rotate.is_empty() {
        ui.line(&format!(
            "{} who was removed has been able to read these, and may know them still:",
            paint(WARN, "rotate:")
        ))?;
        for name in rotate {
            ui.line(&format!("  undercroft secrets rotate {name}"))?;
        }
    }
    if done.is_empty() {
        ui.line("every file is open to those of the inventory who have a key, and to nobody else")?;
    }
    Ok(ended)
}
