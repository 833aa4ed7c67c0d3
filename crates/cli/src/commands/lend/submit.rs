//! `undercroft lend submit|jobs|logs|cancel|result`.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use tempfile::NamedTempFile;
use undercroft_folder::named::read_text_bounded;
use undercroft_lending::submit::{
    JOB_FILE_BYTES_MAX, JobFile, LendJob, LendJobState, Made, SubmitError, Submitting,
};
use undercroft_model::{JobId, document::Version};

use super::reach::SubmitterArgs;
use crate::{
    documents::{LendJobs, LendOneJob},
    done::Done,
    error::CliError,
    runtime::block_on,
    style::{BAD, BOLD, DIM, GOOD, WARN, paint},
    text::{Table, ago, plain_line},
    ui::Ui,
};

/// Time between two looks at a job that is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bring work: a job as a TOML file, with the files that it names
///
/// The files go to the server of lending, which looks for secrets in them and keeps them by their digests. A
/// job is named by whoever brings it: the same file twice is the same job, and runs once.
#[derive(Debug, Args)]
#[command(after_help = SUBMIT_EXAMPLES)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    who: SubmitterArgs,
    /// The job's file; paths in it are relative to it
    #[arg(value_name = "JOB.TOML", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Wait until the job is over; exit code 1 if it is given up
    #[arg(long)]
    wait: bool,
    /// Print how the job stands as JSON
    #[arg(long)]
    json: bool,
}

const SUBMIT_EXAMPLES: &str = "\
Example:
  undercroft lend submit render.toml --wait && undercroft lend result render-1 -o frames.tar

A job's file:
  id = \"render-1\"             # the same name is the same job
  tenant = \"research\"         # one of `lending.tenants`
  runtime = \"process\"         # wasm: a component; process: a static program; nix: a derivation
  artefact = \"render\"         # the file that is run
  arguments = [\"--all\"]
  sensitivity = \"public\"      # or \"internal\"; without it, it is secret and never lent
  loss_s = 60                 # seconds of work that a kill loses [default: wall_s]
  attempts = 3                # times that it may fail [default: `lending.attempts`]
  needs = []                  # what the device must have
  rerun_percent = 5           # of 100 such jobs, those that another owner's PC runs again, before their results
                              # count; the job has to make the same each time [default: 0]
  [inputs]                    # the name that the job sees = the file
  scene = \"scene.blend\"
  [limits]                    # all of them
  cpu_percent = 100           # of one processor
  memory_mb = 512
  disk_mb = 256               # for its files; its output is at most as large
  wall_s = 600

Exit codes: 0 it was taken in, and with --wait has its result, 1 it was given up or nobody answers, 65 it is refused.";

/// List your tenant's jobs
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  undercroft lend jobs --json | jq -r '.jobs[] | select(.state.dead).id'"
)]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    who: SubmitterArgs,
    /// Print the jobs as JSON
    #[arg(long)]
    json: bool,
}

/// Print the end of what a job wrote
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend logs render-1 | tail")]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    who: SubmitterArgs,
    /// The job
    #[arg(value_name = "JOB")]
    job: JobId,
}

/// End a job: it isn't handed out any more, and whoever runs it kills it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend cancel render-1")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    who: SubmitterArgs,
    /// The job
    #[arg(value_name = "JOB")]
    job: JobId,
    /// Print how the job stands as JSON
    #[arg(long)]
    json: bool,
}

/// Take a job's result
///
/// Its digest is compared; the file appears whole or not at all.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend result render-1 -o frames.tar")]
pub(crate) struct ResultArgs {
    #[command(flatten)]
    who: SubmitterArgs,
    /// The job
    #[arg(value_name = "JOB")]
    job: JobId,
    /// The file for the result
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: PathBuf,
}

/// What a scan for secrets says of some bytes, in words.
pub(super) fn scan(bytes: &[u8]) -> Option<String> {
    let found = undercroft_secrets::scan::scan(bytes);
    found.first().map(|found| found.what.to_owned())
}

fn told(error: &SubmitError) -> CliError {
    CliError::from(error)
}

pub(super) fn submit(ui: Ui, at: Option<&Path>, args: &SubmitArgs) -> Result<Done, CliError> {
    let text = read_text_bounded(&args.file, JOB_FILE_BYTES_MAX)
        .map_err(|e| CliError::file("read", &args.file, &e))?;
    let file = JobFile::read(&text).map_err(|source| {
        told(&SubmitError::JobFile {
            path: args.file.clone(),
            source,
        })
    })?;
    let folder = args.file.parent().unwrap_or(Path::new("."));
    block_on(async {
        let server = args.who.connect(ui, at).await?;
        let mut last = PathBuf::new();
        let mut tell = |sending: undercroft_lending::submit::Sending<'_>| {
            if sending.path != last {
                sending.path.clone_into(&mut last);
                ui.note(&format!(
                    "{}: {} bytes",
                    sending.path.display(),
                    sending.total
                ));
            }
        };
        let line = server.submit(&file, folder, scan, &mut tell).await;
        let mut job = LendJob::from(line.map_err(|e| told(&e))?);
        if args.wait {
            job = wait(ui, &server, job).await?;
        }
        let is_dead = matches!(job.state, LendJobState::Dead { .. });
        show(ui, job, args.json)?;
        Ok(if is_dead { Done::Failed } else { Done::Well })
    })
}

async fn wait(ui: Ui, server: &Submitting, mut job: LendJob) -> Result<LendJob, CliError> {
    loop {
        match job.state {
            LendJobState::Done { .. } | LendJobState::Dead { .. } => return Ok(job),
            LendJobState::Queued | LendJobState::Leased { .. } => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let line = server.show(&job.id).await.map_err(|e| told(&e))?;
        let now = LendJob::from(line);
        let is_over = matches!(
            now.state,
            LendJobState::Done { .. } | LendJobState::Dead { .. }
        );
        // How it ended is what the command prints.
        if now.state != job.state && !is_over {
            ui.note(&format!("{}: {}", now.id, words(&now.state)));
        }
        job = now;
    }
}

fn show(ui: Ui, job: LendJob, json: bool) -> Result<(), CliError> {
    if json {
        return ui.json(&LendOneJob {
            version: Version,
            job,
        });
    }
    ui.line(&format!(
        "{}: {}",
        paint(BOLD, job.id.as_str()),
        words(&job.state)
    ))
}

fn words(state: &LendJobState) -> String {
    match state {
        LendJobState::Queued => "it waits for a device".to_owned(),
        LendJobState::Leased { device, consent } => {
            format!("{device} has it, under its owner's consent {consent}")
        }
        LendJobState::Done {
            device,
            consent,
            bytes,
            verified_by,
            ..
        } => {
            let same = verified_by.as_ref();
            let same = same.map_or_else(String::new, |other| format!("; {other} came to the same"));
            format!("done: {bytes} bytes by {device}, under its owner's consent {consent}{same}")
        }
        // A device's text is a stranger's.
        LendJobState::Dead { why } => format!("given up: {}", plain_line(why)),
    }
}

pub(super) fn jobs(ui: Ui, at: Option<&Path>, args: &JobsArgs) -> Result<Done, CliError> {
    block_on(async {
        let server = args.who.connect(ui, at).await?;
        let jobs = server.jobs().await.map_err(|e| told(&e))?;
        let jobs: Vec<LendJob> = jobs.into_iter().map(LendJob::from).collect();
        if args.json {
            ui.json(&LendJobs {
                version: Version,
                jobs,
            })?;
            return Ok(Done::Well);
        }
        if jobs.is_empty() {
            ui.note("There are no jobs.");
            return Ok(Done::Well);
        }
        let now_ms = undercroft_process::clock::wall_ms_now();
        let mut table = Table::new(&["JOB", "STATE", "SUBMITTED", "HANDED OUT", "FAILED", ""]);
        for job in jobs {
            let (style, word) = match &job.state {
                LendJobState::Queued => (DIM, "waits"),
                LendJobState::Leased { .. } => (WARN, "runs"),
                LendJobState::Done { .. } => (GOOD, "done"),
                LendJobState::Dead { .. } => (BAD, "given up"),
            };
            let more = match &job.state {
                LendJobState::Queued => job.first.as_ref().map_or_else(String::new, |first| {
                    format!("{first} has run it; another is to come to the same")
                }),
                state => words(state),
            };
            table.row([
                job.id.to_string(),
                paint(style, word).to_string(),
                ago(now_ms.saturating_sub(job.submitted_ms)),
                job.handed_out.to_string(),
                job.failed.to_string(),
                more,
            ]);
        }
        ui.print(&table.render())?;
        Ok(Done::Well)
    })
}

pub(super) fn logs(ui: Ui, at: Option<&Path>, args: &LogsArgs) -> Result<Done, CliError> {
    block_on(async {
        let server = args.who.connect(ui, at).await?;
        let mut log = Vec::new();
        let fetched = server.fetch(&args.job, Made::Log, &mut log, Path::new("-"));
        fetched.await.map_err(|e| told(&e))?;
        // What a job wrote is a stranger's: nothing of it may move the cursor or ring the bell.
        for line in String::from_utf8_lossy(&log).lines() {
            ui.line(&plain_line(line))?;
        }
        Ok(Done::Well)
    })
}

pub(super) fn cancel(ui: Ui, at: Option<&Path>, args: &CancelArgs) -> Result<Done, CliError> {
    block_on(async {
        let server = args.who.connect(ui, at).await?;
        let line = server.cancel(&args.job).await.map_err(|e| told(&e))?;
        let job = LendJob::from(line);
        if args.json {
            show(ui, job, true)?;
        } else if matches!(job.state, LendJobState::Leased { .. }) {
            ui.line(&format!("{}: cancelled; its device kills it", job.id))?;
        } else {
            ui.line(&format!("{}: cancelled", job.id))?;
        }
        Ok(Done::Well)
    })
}

pub(super) fn result(ui: Ui, at: Option<&Path>, args: &ResultArgs) -> Result<Done, CliError> {
    let failed = |what: &str, e: &std::io::Error| CliError::file(what, &args.output, e);
    let folder = args.output.parent().filter(|p| *p != Path::new(""));
    block_on(async {
        let server = args.who.connect(ui, at).await?;
        let mut file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
            .map_err(|e| failed("make", &e))?;
        let fetched = server.fetch(&args.job, Made::Output, &mut file, &args.output);
        let bytes = fetched.await.map_err(|e| told(&e))?;
        file.flush().map_err(|e| failed("write", &e))?;
        file.as_file().sync_all().map_err(|e| failed("write", &e))?;
        file.persist(&args.output)
            .map_err(|e| failed("write", &e.error))?;
        ui.note(&format!("{}: {bytes} bytes", args.output.display()));
        Ok(Done::Well)
    })
}
