//! What devices say.

use async_nats::{Message, Subject};
use undercroft_lend::{
    DeviceName,
    job::Label,
    server::Input,
    wire::{
        self, AtOut, AtWant, Beat, Bring, BringAnswer, BringSay, Ended, Fetch, FetchAnswer,
        FetchSay, Out, OutAnswer, OutSay,
    },
};
use undercroft_model::inventory::Sensitivity;

use super::{
    Back, Hub,
    content::{self, AGAIN_MS, Brought, Owner},
    event::RefusedFor,
    send, send_message,
};

impl Hub {
    pub(super) fn at_want(&mut self, device: DeviceName, to: Subject, message: Message) {
        match wire::read(&message.payload) {
            Ok(AtWant::Want(want)) => {
                let reply = self.waits(to, None);
                self.step(Input::Want {
                    reply,
                    device,
                    want,
                });
            }
            Ok(AtWant::Fetch(fetch)) => self.fetch(&device, fetch, to, message.subject),
            Err(error) => self.unreadable(&message.subject, to, &error),
        }
    }

    pub(super) fn at_beat(&mut self, device: DeviceName, to: Subject, message: Message) {
        match wire::read::<Beat>(&message.payload) {
            Ok(beat) => {
                let reply = self.waits(to, None);
                self.step(Input::Beat {
                    reply,
                    device,
                    beat,
                });
            }
            Err(error) => self.unreadable(&message.subject, to, &error),
        }
    }

    pub(super) fn at_out(
        &mut self,
        device: DeviceName,
        rest: &[&str],
        to: Subject,
        message: Message,
    ) {
        let subject = message.subject;
        let (said, behind) = match wire::read_with_bytes::<AtOut>(&message.payload) {
            Ok(read) => read,
            Err(error) => {
                self.unreadable(&subject, to, &error);
                return;
            }
        };
        let holding = match &said {
            AtOut::Out(out) => &out.holding,
            AtOut::Bring(bring) => &bring.holding,
        };
        let epoch = holding.epoch.to_string();
        if rest != [holding.job.as_str(), epoch.as_str()] {
            let why = "the message is about another job than its subject".to_owned();
            self.answer_refused(&subject, to, RefusedFor::Holding, why);
            return;
        }
        match said {
            AtOut::Out(out) => self.out(device, out, to, subject),
            AtOut::Bring(bring) => {
                let behind = message.payload.slice_ref(behind);
                self.bring(&device, bring, behind, to, subject);
            }
        }
    }

    /// A job's end counts when what it made is there, whole and with its digest.
    fn out(&mut self, device: DeviceName, out: Out, to: Subject, subject: Subject) {
        let (Ended::Done { output, bytes }, Some(record)) =
            (&out.ended, self.machine.job(&out.holding.job))
        else {
            self.ended(device, out, to);
            return;
        };
        let (output, bytes, tenant) = (*output, *bytes, record.job.tenant.clone());
        let Some(permit) = self.room(&subject) else {
            self.busy(&subject);
            let say = OutSay::Again { after_ms: AGAIN_MS };
            send_message(
                &self.bus,
                to,
                &OutAnswer {
                    turn: out.turn,
                    say,
                },
            );
            return;
        };
        let reply = self.waits(to.clone(), None);
        let (kept, back, bus) = (self.kept.clone(), self.back.clone(), self.bus.clone());
        tokio::spawn(async move {
            let say = match kept.claim(&tenant, &output).await {
                Ok(Some(whole)) if whole.total == bytes => {
                    let input = Input::Out { reply, device, out };
                    let _ = back.send(Back::Input(input)).await;
                    return;
                }
                Ok(_) => {
                    let why = format!("its output {output} of {bytes} bytes never came");
                    let refused = Back::Refused {
                        subject,
                        reason: RefusedFor::NoOutput,
                        why: why.clone(),
                    };
                    let _ = back.send(refused).await;
                    OutSay::Stale { why }
                }
                Err(error) => {
                    let _ = back.send(Back::NotKept(error)).await;
                    OutSay::Again { after_ms: AGAIN_MS }
                }
            };
            send_message(
                &bus,
                to,
                &OutAnswer {
                    turn: out.turn,
                    say,
                },
            );
            drop(permit);
        });
    }

    fn ended(&mut self, device: DeviceName, out: Out, to: Subject) {
        let reply = self.waits(to, None);
        self.step(Input::Out { reply, device, out });
    }

    fn busy(&mut self, subject: &Subject) {
        let why = "too much is under way; it is to be said again".to_owned();
        self.refuse(subject, RefusedFor::Busy, why);
    }

    fn fetch(&mut self, device: &DeviceName, fetch: Fetch, to: Subject, subject: Subject) {
        let fetching = fetch.fetching;
        let answer = |say| FetchAnswer { fetching, say };
        if let Err(why) = self.machine.may_fetch(device, &fetch) {
            let say = FetchSay::Refused { why: why.clone() };
            send_message(&self.bus, to, &answer(say));
            self.refuse(&subject, RefusedFor::Holding, why);
            return;
        }
        let tenant = self.machine.job(&fetch.holding.job);
        let tenant = tenant.map(|record| record.job.tenant.clone());
        let (Some(tenant), Some(permit)) = (tenant, self.room(&subject)) else {
            self.busy(&subject);
            let say = FetchSay::Again { after_ms: AGAIN_MS };
            send_message(&self.bus, to, &answer(say));
            return;
        };
        let (kept, back, bus) = (self.kept.clone(), self.back.clone(), self.bus.clone());
        tokio::spawn(async move {
            let say = match content::fetch(&kept, &tenant, &fetching).await {
                Ok(Some((total, part))) => {
                    let say = FetchSay::Part { total };
                    send(
                        &bus,
                        to,
                        wire::write_with_bytes(&FetchAnswer { fetching, say }, &part),
                    );
                    let sent = u64::try_from(part.len()).unwrap_or(u64::MAX);
                    let _ = back.send(Back::Bytes { read: 0, sent }).await;
                    return;
                }
                Ok(None) => FetchSay::Refused {
                    why: format!(
                        "{} has no part at byte {}",
                        fetching.digest, fetching.offset
                    ),
                },
                Err(error) => {
                    let _ = back.send(Back::NotKept(error)).await;
                    FetchSay::Again { after_ms: AGAIN_MS }
                }
            };
            send_message(&bus, to, &FetchAnswer { fetching, say });
            drop(permit);
        });
    }

    fn bring(
        &mut self,
        device: &DeviceName,
        bring: Bring,
        behind: bytes::Bytes,
        to: Subject,
        subject: Subject,
    ) {
        let checked = match self.machine.may_bring(device, &bring) {
            Err(why) => Err((RefusedFor::Holding, why)),
            Ok(max) => bring
                .part
                .check(&behind, max)
                .map_err(|error| (RefusedFor::Part, error.to_string())),
        };
        if let Err((reason, why)) = checked {
            let say = BringSay::Refused { why: why.clone() };
            let part = bring.part;
            send_message(&self.bus, to, &BringAnswer { part, say });
            self.refuse(&subject, reason, why);
            return;
        }
        let Some(record) = self.machine.job(&bring.holding.job) else {
            return;
        };
        let owner = Owner::Device {
            holding: bring.holding,
            made: bring.made,
            tenant: record.job.tenant.clone(),
            label: match record.job.sensitivity {
                Sensitivity::Public => Label::Public,
                Sensitivity::Internal => Label::Internal,
            },
        };
        let (part, bus) = (bring.part, self.bus.clone());
        self.keep_part(owner, part.clone(), behind, subject, move |say| {
            send_message(&bus, to, &BringAnswer { part, say });
        });
    }

    /// Keeps a part that was checked, beside the state machine.
    pub(super) fn keep_part(
        &mut self,
        owner: Owner,
        part: wire::ContentPart,
        behind: bytes::Bytes,
        subject: Subject,
        answer: impl FnOnce(BringSay) + Send + 'static,
    ) {
        let Some(permit) = self.room(&subject) else {
            self.busy(&subject);
            answer(BringSay::Again { after_ms: AGAIN_MS });
            return;
        };
        let (kept, back, scan) = (self.kept.clone(), self.back.clone(), self.scan);
        tokio::spawn(async move {
            let read = u64::try_from(behind.len()).unwrap_or(u64::MAX);
            let brought = content::bring(&kept, &owner, &part, behind, scan).await;
            let _ = back.send(Back::Bytes { read, sent: 0 }).await;
            let (reason, why) = match brought {
                Brought::Said(say) => {
                    answer(say);
                    return;
                }
                Brought::NotKept(error) => {
                    answer(BringSay::Again { after_ms: AGAIN_MS });
                    let _ = back.send(Back::NotKept(error)).await;
                    return;
                }
                Brought::OtherDigest(why) => (RefusedFor::Digest, why),
                Brought::Secret(what) => (
                    RefusedFor::Secret,
                    format!("it holds {what}, and secrets are never lent"),
                ),
            };
            answer(BringSay::Refused { why: why.clone() });
            let refused = Back::Refused {
                subject,
                reason,
                why,
            };
            let _ = back.send(refused).await;
            drop(permit);
        });
    }
}
