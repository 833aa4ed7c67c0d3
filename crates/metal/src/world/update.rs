//! A machine that runs gets another system: what its steps ask, over SSH pinned to the machine's own host key.

use std::{net::IpAddr, time::Duration};

use undercroft_model::{Failure, FailureKind};

use super::{
    copy,
    host_key::final_host_key,
    installer::{ended, unanswered},
    job::{Done, Job, Stop},
};
use undercroft_journal::TimelineSource;
use undercroft_ssh::{Connection, Endpoint, RemoteCommand, SshError};
use undercroft_steps::{
    Answer, LOOK_INTERVAL_MS, MARGIN_MS, UpdateAnswer, UpdateAsk, UpdateLook, UpdateNext,
    UpdateScript, UpdateStep, update_words,
};

/// The wait between two looks at something that takes its time.
const LOOK_INTERVAL: Duration = Duration::from_millis(LOOK_INTERVAL_MS);
/// How long a look at a machine, or the word to restart, may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries a step of an update out, or looks whether it is done.
pub(super) async fn carry_out(job: &Job<'_>, host_key_fingerprint: &str) -> Done {
    let key = final_host_key(job, host_key_fingerprint)?;
    let endpoint = Endpoint::root(job.name().as_str(), IpAddr::V4(job.address()), key);
    let identity = &job.shared.parts.operator.private_file;
    let connection = Connection::prepare(endpoint, identity).map_err(SshError::into_failure)?;
    let step = UpdateStep {
        step: job.step,
        facts: &job.order.facts,
        work: job.order.work,
        wait_ms_max: job.order.timeout_ms.saturating_sub(MARGIN_MS),
    };
    let mut script = UpdateScript::default();
    let mut said = String::new();
    loop {
        match script.next(&step, job.elapsed_ms()) {
            Some(UpdateNext::Ask(ask)) => script.tell(answer(job, &connection, &ask).await?),
            Some(UpdateNext::Wait(missing)) => {
                if missing != said {
                    job.note(TimelineSource::Ssh, missing.clone());
                    said = missing;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Some(UpdateNext::Done(evidence)) => return Ok(evidence),
            Some(UpdateNext::NotDone) => return Err(Stop::NotDone),
            Some(UpdateNext::Failed(failure)) => return Err(failure.into()),
            None => {
                return Err(Stop::new(
                    FailureKind::Permanent,
                    "this is no step of an update",
                ));
            }
        }
    }
}

async fn answer(
    job: &Job<'_>,
    connection: &Connection,
    ask: &UpdateAsk,
) -> Result<UpdateAnswer, Failure> {
    if let UpdateAsk::Copy {
        toplevel,
        closure_bytes,
    } = ask
    {
        let to = copy::Destination::OwnStore;
        let copied = copy::push_over(job, connection, toplevel, to, *closure_bytes).await?;
        return Ok(match copied {
            Answer::CopyFailed(failed) => UpdateAnswer::CopyFailed(failed),
            Answer::Nothing(nothing) => UpdateAnswer::Nothing(nothing),
            _ => UpdateAnswer::Done,
        });
    }
    let (words, shown) = update_words(ask).unwrap_or_default();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    let limit = match ask {
        UpdateAsk::Look | UpdateAsk::Restart => ASK_TIMEOUT.min(job.left()),
        _ => job.left(),
    };
    if *ask == UpdateAsk::Restart {
        job.note(TimelineSource::Ssh, "told to restart into its new system");
    }
    let command = RemoteCommand::new(words.iter().copied(), limit).shown_as(&shown);
    match Box::pin(connection.run(command)).await {
        Ok(output) if *ask == UpdateAsk::Look && output.code == 0 => Ok(UpdateAnswer::Look(
            Box::new(UpdateLook::read(&output.stdout)),
        )),
        Ok(output) => Ok(UpdateAnswer::Ended(ended(output))),
        Err(error) => Ok(UpdateAnswer::Nothing(Box::new(unanswered(error)))),
    }
}
