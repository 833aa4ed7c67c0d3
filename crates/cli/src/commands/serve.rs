//! `undercroft serve`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use undercroft_fleet::{Intent, Notifier, Refused, Served, Service, Webhook, serve};
use undercroft_model::Entry;
use undercroft_planner::{PlanOptions, Scope};
use undercroft_secrets::keys::Consent;

use crate::{
    consent::consent,
    done::Done,
    error::CliError,
    interrupt, ports,
    prepare::{self, Begun, InstallArgs, Place, Selection},
    progress::{Form, Progress},
    project::OwnedProject,
    select::WhereArgs,
    ui::Ui,
};

/// Keep the machines as the inventory says: netboot and reconcile, as a service
///
/// It looks at the fleet, plans, carries the plan out, and begins again after a while, until it is
/// interrupted. Machines that were never installed are installed without a question, so it asks
/// once at the beginning, unless --yes is given. A machine that runs is never wiped.
///
/// What fails doesn't end it. A round, a build or a machine that failed is tried again after the
/// interval (5 seconds at least), and then after rests twice as long each time, up to 15 minutes, or
/// at once where the inventory has changed. A machine that was refused is left alone until the
/// inventory is another or a person runs `undercroft up`. What stays as it is is said again once an
/// hour.
///
/// The inventory is read before each look, and every few seconds while a plan is carried out. Where it has
/// changed, nothing further of that plan is begun; what runs comes to its end, and the next plan is made at
/// once.
///
/// As a service of systemd with Type=notify it says when it works, in one sentence why nothing moves, and,
/// with WatchdogSec=, that its rounds go on.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Don't ask before machines that were never installed are wiped
    #[arg(long, short)]
    yes: bool,
    /// Seconds from the end of one look to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interval: u64,
    /// Give numbers in Prometheus' format at this address, instead of the inventory's
    /// `network.metrics_port` at `network.server_address`
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Post a notice there when what is waited for changes, on a failure, and when all goes on again;
    /// `{secret}` in it stands for the secret
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// File with the secret of the webhook, that nobody else can read; without `{secret}` in the URL it
    /// is sent as a bearer's token
    #[arg(long, value_name = "FILE", requires = "webhook", value_hint = clap::ValueHint::FilePath)]
    webhook_secret: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    install: InstallArgs,
    /// Print what happens as lines of JSON, as `up --json` does
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft serve --yes
  undercroft serve --yes --json >> /var/log/undercroft.jsonl
  undercroft serve --yes --webhook https://hooks.example/{secret} --webhook-secret hook.txt";

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &ServeArgs) -> Result<Done, CliError> {
    let Begun {
        project,
        inventory,
        only,
        words,
    } = args.selection.begin(ui, at, &args.place)?;
    if !args.selection.reinstall.is_empty() {
        return Err(CliError::usage("a service reinstalls nothing")
            .hint("Use `undercroft up --reinstall NODE`."));
    }
    if !args.selection.adopt.is_empty() {
        return Err(CliError::usage("a service adopts nothing by name")
            .hint("Use `undercroft up --adopt NODE` once."));
    }
    if args.selection.update {
        return Err(CliError::usage("a service updates nothing yet")
            .hint("Use `undercroft up --update`: it ends when every machine is as it should be."));
    }
    let options = args.install.options()?;
    let notifier = Notifier::from_environment()
        .map_err(|e| CliError::failed("the supervisor can't be told how it goes").because(&e))?;
    let webhook = webhook(args)?;
    let place = prepare::place(&project, &inventory, only.as_ref(), true)?;
    if let Place::Here = place {
        ports::refuse_closed(&inventory, "serve")?;
    }
    if !args.yes && !prepare::is_prepared() {
        let question =
            "Machines that were never installed will be wiped and installed without a question.";
        if !ui.confirm(question, "Give --yes if that is what you want.")? {
            return Err(CliError::failed("nothing was done"));
        }
    }
    // A service has no end to show progress towards: what happens is told line by line.
    let form = match Form::of(ui, args.json) {
        Form::Bars => Form::Lines,
        form => form,
    };
    let progress = Progress::new(ui, form);
    let sink = progress.clone();
    let fleet = args.selection.fleet(
        &project,
        inventory,
        options,
        Arc::new(move |told| sink.told(&told)),
    )?;
    project.make_state()?;
    let fleet = fleet.agreeing(consent(ui, args.yes));
    crate::runtime::block_on(async {
        let signals = interrupt::listen(progress.clone(), "undercroft serve");
        let work = async {
            let journal = fleet
                .journal("undercroft serve")
                .map_err(|e| CliError::from(&e))?;
            if let Place::InRack(rack) = &place {
                drop(journal);
                let prefetched = fleet.prefetch(only.as_ref());
                return match signals.unless_asked(prefetched).await {
                    Some(Ok(())) => Err(prepare::enter(rack)),
                    Some(Err(error)) => Err(CliError::from(&error)),
                    None => Ok(stopped(ui)),
                };
            }
            let shown = progress.clone();
            let scope = Scope {
                options: PlanOptions {
                    until: args.selection.until.map(prepare::Until::state),
                    ..PlanOptions::default()
                },
                unattended: true,
                ..Scope::default()
            };
            let read = Reader {
                ui: Ui { quiet: true, ..ui },
                project: &project,
                args,
                machines: &words,
                progress: progress.clone(),
            };
            let service = Service {
                interval: Duration::from_secs(args.interval),
                scope,
                intent: move || read.intent(),
                observer: move |entry: &Entry| shown.entry(entry),
                interrupt: signals.asked(),
                notifier,
                metrics: args.metrics,
                webhook,
            };
            let served = serve(fleet, journal, service)
                .await
                .map_err(|e| CliError::from(&e))?;
            ended(ui, &served)
        };
        signals.unless_insisted(work).await
    })
}

/// Who is told by a notice.
fn webhook(args: &ServeArgs) -> Result<Option<Webhook>, CliError> {
    let Some(url) = &args.webhook else {
        return Ok(None);
    };
    let secret = args.webhook_secret.as_deref().map(Webhook::secret);
    let secret = secret.transpose().map_err(|e| CliError::from(&e))?;
    Webhook::new(url, secret)
        .map(Some)
        .map_err(|e| CliError::from(&e))
}

/// A service that was told to stop has done what it was told.
fn stopped(ui: Ui) -> Done {
    ui.hint("`undercroft serve` goes on from here.");
    Done::Well
}

/// The end of a service: a fault of the engine's own is no good one.
fn ended(ui: Ui, served: &Served) -> Result<Done, CliError> {
    match served.faults.first() {
        None => Ok(stopped(ui)),
        Some(fault) => Err(CliError::bug(format!(
            "the engine broke a promise of its own: {fault}"
        ))
        .hint(format!(
            "Please report it at {}, with `undercroft events --json`.",
            crate::bug::REPORT_AT
        ))),
    }
}

/// Reads the inventory, for each round anew.
struct Reader<'a> {
    ui: Ui,
    project: &'a OwnedProject,
    args: &'a ServeArgs,
    machines: &'a [String],
    progress: Progress,
}

impl Reader<'_> {
    fn intent(&self) -> Result<Intent, Refused> {
        self.read().map_err(|error| {
            let (message, hint) = error.told();
            Refused { message, hint }
        })
    }

    fn read(&self) -> Result<Intent, CliError> {
        let Self {
            ui,
            project,
            args,
            machines,
            progress,
        } = self;
        let (inventory, only) = args.selection.read(*ui, project, machines)?;
        let options = args.install.options()?;
        let sink = progress.clone();
        let sink = Arc::new(move |told| sink.told(&told));
        let fleet = args.selection.fleet(project, inventory, options, sink)?;
        // Nobody is there to agree to new readers of secrets: --yes was said of the inventory of then.
        let fleet = fleet.agreeing(Consent::Nobody);
        Ok(Intent { fleet, only })
    }
}
