//! What those say who bring work.

use std::{collections::BTreeMap, sync::Arc};

use async_nats::{Message, Subject};
use undercroft_lend::{
    Digest, JobId, SubmitterName, Tenant,
    fleet::KnownSubmitter,
    job::{self, Label, NotLent, SUBMISSION_BYTES_MAX, Submission},
    server::{
        Input,
        record::{Runs, State},
    },
    wire::{
        self, BringSay, CONTENT_BYTES_MAX, ContentPart, Fetching, MESSAGE_BYTES_MAX, Made,
        submit::{AtSubmit, HAVE_MAX, JobLine, LISTED_MAX, SubmitAnswer},
    },
};

use crate::keys::UserKey;

use super::{
    Back, Hub,
    content::{self, AGAIN_MS, Owner},
    event::RefusedFor,
    send, send_message,
};

/// The most that one answer lists, in bytes: jobs that failed have the end of their logs with them.
const LISTED_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

impl Hub {
    pub(super) fn at_submit(&mut self, name: &str, to: Subject, message: Message) {
        let subject = message.subject.clone();
        let submitter = name.parse::<SubmitterName>().ok();
        let known = submitter.and_then(|name| {
            let known = self.fleet.submitters.get(&name)?.clone();
            Some((name, known))
        });
        let Some((name, known)) = known else {
            let why = format!("{name} is none of `lending.submitters`");
            self.answer_refused(&subject, to, RefusedFor::Unknown, why);
            return;
        };
        let (said, behind) = match wire::read_with_bytes::<AtSubmit>(&message.payload) {
            Ok((said, behind)) => (said, message.payload.slice_ref(behind)),
            Err(error) => {
                self.unreadable(&subject, to, &error);
                return;
            }
        };
        match said {
            AtSubmit::Bring(part) => self.brings(name, known, part, behind, to, subject),
            AtSubmit::Submit(submission) => {
                if message.payload.len() > SUBMISSION_BYTES_MAX {
                    let error = NotLent::TooLarge {
                        bytes: message.payload.len(),
                    };
                    self.refuse_submitter(&subject, to, RefusedFor::TooLarge, error.to_string());
                    return;
                }
                self.submits(known, *submission, to, subject);
            }
            AtSubmit::Cancel { job } => {
                if self.is_theirs(&known.tenant, &job) {
                    let reply = self.waits(to, Some(job.clone()));
                    self.step(Input::Cancel { reply, job });
                } else {
                    self.no_such_job(to);
                }
            }
            AtSubmit::Show { job } => match self.machine.job(&job) {
                Some(record) if record.job.tenant == known.tenant => {
                    let answer = SubmitAnswer::Job(Box::new(record.into()));
                    send_message(&self.bus, to, &answer);
                }
                _ => self.no_such_job(to),
            },
            AtSubmit::List { after } => {
                let answer = self.list(&known.tenant, after.as_ref());
                send_message(&self.bus, to, &answer);
            }
            AtSubmit::Lenders { runtime } => {
                let waiting = self.machine.lenders(&known.tenant, runtime);
                let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
                send_message(&self.bus, to, &SubmitAnswer::Lenders { waiting });
            }
            AtSubmit::Have { digests } => self.have(known.tenant, digests, to, &subject),
            AtSubmit::Fetch { job, made, offset } => {
                let asked = (job, made, offset);
                self.fetches(&known.tenant, asked, to, &subject);
            }
        }
    }

    fn is_theirs(&self, tenant: &Tenant, job: &JobId) -> bool {
        let record = self.machine.job(job);
        record.is_some_and(|record| record.job.tenant == *tenant)
    }

    /// Another tenant's job is no job to this one.
    fn no_such_job(&self, to: Subject) {
        let why = "there is no such job".to_owned();
        send_message(&self.bus, to, &SubmitAnswer::Refused { why });
    }

    fn refuse_submitter(
        &mut self,
        subject: &Subject,
        to: Subject,
        reason: RefusedFor,
        why: String,
    ) {
        send_message(&self.bus, to, &SubmitAnswer::Refused { why: why.clone() });
        self.refuse(subject, reason, why);
    }

    fn have(&mut self, tenant: Tenant, digests: Vec<Digest>, to: Subject, subject: &Subject) {
        if digests.len() > HAVE_MAX {
            let why = format!("at most {HAVE_MAX} digests are looked up at once");
            send_message(&self.bus, to, &SubmitAnswer::Refused { why });
            return;
        }
        let Some(permit) = self.room(subject) else {
            send_message(&self.bus, to, &SubmitAnswer::Again { after_ms: AGAIN_MS });
            return;
        };
        let (kept, back, bus) = (self.kept.clone(), self.back.clone(), self.bus.clone());
        tokio::spawn(async move {
            let mut have = Vec::new();
            for digest in digests {
                let found = match kept.claim(&tenant, &digest).await {
                    Ok(Some(whole)) => kept.is_there(&whole).await,
                    Ok(None) => Ok(false),
                    Err(error) => Err(error),
                };
                match found {
                    Ok(true) => have.push(digest),
                    Ok(false) => {}
                    Err(error) => {
                        let answer = SubmitAnswer::Again { after_ms: AGAIN_MS };
                        send_message(&bus, to, &answer);
                        let _ = back.send(Back::NotKept(error)).await;
                        return;
                    }
                }
            }
            send_message(&bus, to, &SubmitAnswer::Have { digests: have });
            drop(permit);
        });
    }

    fn list(&self, tenant: &Tenant, after: Option<&JobId>) -> SubmitAnswer {
        let theirs = self.machine.jobs();
        let mut theirs = theirs
            .filter(|record| record.job.tenant == *tenant)
            .filter(|record| after.is_none_or(|after| record.job.id > *after));
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        let more = theirs.any(|record| {
            let line = JobLine::from(record);
            bytes += serde_json::to_vec(&line).map_or(0, |line| line.len());
            let is_full = jobs.len() >= LISTED_MAX || bytes > LISTED_BYTES_MAX && !jobs.is_empty();
            if !is_full {
                jobs.push(line);
            }
            is_full
        });
        SubmitAnswer::Jobs { jobs, more }
    }

    fn brings(
        &mut self,
        name: SubmitterName,
        known: KnownSubmitter,
        part: ContentPart,
        behind: bytes::Bytes,
        to: Subject,
        subject: Subject,
    ) {
        if let Err(error) = part.check(&behind, CONTENT_BYTES_MAX) {
            let why = error.to_string();
            let say = BringSay::Refused { why: why.clone() };
            send_message(&self.bus, to, &SubmitAnswer::Brought(say));
            self.refuse(&subject, RefusedFor::Part, why);
            return;
        }
        let owner = Owner::Submitter {
            name,
            tenant: known.tenant,
            label: known.brings,
        };
        let bus = self.bus.clone();
        self.keep_part(owner, part, behind, subject, move |say| {
            send_message(&bus, to, &SubmitAnswer::Brought(say));
        });
    }

    /// What is known of all that a job reads is looked up, and then it is a job or not.
    fn submits(
        &mut self,
        known: KnownSubmitter,
        submission: Submission,
        to: Subject,
        subject: Subject,
    ) {
        let Some(permit) = self.room(&subject) else {
            let why = "too much is under way; it is to be said again".to_owned();
            self.refuse(&subject, RefusedFor::Busy, why);
            send_message(&self.bus, to, &SubmitAnswer::Again { after_ms: AGAIN_MS });
            return;
        };
        let reply = self.waits(to.clone(), Some(submission.id.clone()));
        let (kept, back, bus) = (self.kept.clone(), self.back.clone(), self.bus.clone());
        let (fleet, key) = (Arc::clone(&self.fleet), Arc::clone(&self.key));
        tokio::spawn(async move {
            let runs = draw(&key, &submission.id, submission.rerun_percent.unwrap_or(0));
            let mut labels: BTreeMap<Digest, Label> = BTreeMap::new();
            for digest in submission.inputs.values().chain([&submission.artefact]) {
                match kept.claim(&known.tenant, digest).await {
                    Ok(Some(whole)) => {
                        labels.insert(*digest, whole.label);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        let answer = SubmitAnswer::Again { after_ms: AGAIN_MS };
                        send_message(&bus, to, &answer);
                        let _ = back.send(Back::NotKept(error)).await;
                        return;
                    }
                }
            }
            let label = |digest: &Digest| labels.get(digest).copied();
            match job::admit(submission, &known.tenant, &fleet.rules, label) {
                Ok(job) => {
                    let job = Box::new(job);
                    let input = Input::Submit { reply, job, runs };
                    let _ = back.send(Back::Input(input)).await;
                }
                Err(error) => {
                    let why = error.to_string();
                    let reason = match error {
                        NotLent::Secret { .. } | NotLent::UnknownProvenance { .. } => {
                            RefusedFor::Secret
                        }
                        _ => RefusedFor::NotLent,
                    };
                    send_message(&bus, to, &SubmitAnswer::Refused { why: why.clone() });
                    let refused = Back::Refused {
                        subject,
                        reason,
                        why,
                    };
                    let _ = back.send(refused).await;
                }
            }
            drop(permit);
        });
    }

    fn fetches(
        &mut self,
        tenant: &Tenant,
        (job, made, offset): (JobId, Made, u64),
        to: Subject,
        subject: &Subject,
    ) {
        let record = self.machine.job(&job);
        let Some(record) = record.filter(|record| record.job.tenant == *tenant) else {
            self.no_such_job(to);
            return;
        };
        let output = match &record.state {
            State::Done { output, .. } => Some(*output),
            _ => None,
        };
        let nothing = self.nothing_of(record, made);
        let Some(permit) = self.room(subject) else {
            send_message(&self.bus, to, &SubmitAnswer::Again { after_ms: AGAIN_MS });
            return;
        };
        let (kept, back, bus) = (self.kept.clone(), self.back.clone(), self.bus.clone());
        let tenant = tenant.clone();
        tokio::spawn(async move {
            let found = match (made, output) {
                (Made::Log, _) => content::fetch_log(&kept, &job, offset).await,
                (Made::Output, None) => Ok(None),
                (Made::Output, Some(digest)) => {
                    let fetching = Fetching { digest, offset };
                    let part = content::fetch(&kept, &tenant, &fetching).await;
                    part.map(|part| part.map(|(total, bytes)| (digest, total, bytes)))
                }
            };
            match found {
                Ok(Some((digest, total, part))) => {
                    let fetching = Fetching { digest, offset };
                    let answer = SubmitAnswer::Part { fetching, total };
                    send(&bus, to, wire::write_with_bytes(&answer, &part));
                    let sent = u64::try_from(part.len()).unwrap_or(u64::MAX);
                    let _ = back.send(Back::Bytes { read: 0, sent }).await;
                }
                Ok(None) => {
                    send_message(&bus, to, &SubmitAnswer::Refused { why: nothing });
                }
                Err(error) => {
                    let answer = SubmitAnswer::Again { after_ms: AGAIN_MS };
                    send_message(&bus, to, &answer);
                    let _ = back.send(Back::NotKept(error)).await;
                }
            }
            drop(permit);
        });
    }
}

/// Whether a job is among those that are run twice. Nobody without the server's key can tell, and every server with
/// it says the same.
fn draw(key: &UserKey, job: &JobId, percent: u32) -> Runs {
    let signed = key.sign(format!("undercroft lend: is {job} run twice?").as_bytes());
    let drawn = signed.iter().take(8).fold(0_u64, |all, byte| {
        all.wrapping_mul(256).wrapping_add(u64::from(*byte))
    });
    match drawn % 100 < u64::from(percent) {
        true => Runs::Twice,
        false => Runs::Once,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_a_hundred_are_drawn_and_always_the_same() {
        let key = UserKey::generate();
        let twice = |percent| {
            let ids = (0..100).map(|n| format!("job-{n}").parse().unwrap());
            ids.filter(|id| draw(&key, id, percent) == Runs::Twice)
                .collect::<Vec<JobId>>()
        };
        assert_eq!((twice(0).len(), twice(100).len()), (0, 100));
        let half = twice(50);
        // Half of 100, give or take six times their deviation.
        assert!((20..80).contains(&half.len()), "{half:?}");
        assert_eq!(half, twice(50));
    }
}
