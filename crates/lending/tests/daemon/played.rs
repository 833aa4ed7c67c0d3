//! The server of lending, played: it hands out what a test has, and remembers what it was told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures_util::StreamExt as _;
use undercroft_lend::{
    Digest, Epoch, JobId,
    consent::{Keys, Ledger, Said},
    job::{Job, Limits, Runtime},
    wire::{
        Assignment, AtOut, AtWant, Beat, BeatAnswer, BeatSay, BringAnswer, BringSay, Ended,
        FetchAnswer, FetchSay, Holding, Made, OutAnswer, OutSay, PART_BYTES, WantAnswer, WantSay,
        next_offset, read_with_bytes, write, write_with_bytes,
    },
};
use undercroft_lending::device_keys::NkeyVerify;
use undercroft_process::clock::wall_ms_now;

use crate::site::{DEVICE, Nats};

/// How long a lease is good, in milliseconds.
pub(crate) const LEASE_MS: u64 = 6_000;

#[derive(Debug)]
struct Known {
    keys: Keys,
    ledger: Ledger,
    said: Vec<Said>,
    waiting: Vec<Job>,
    leased: BTreeMap<JobId, (Job, Epoch)>,
    ended: BTreeMap<JobId, Ended>,
    content: BTreeMap<Digest, Vec<u8>>,
    brought: BTreeMap<(JobId, Made), (Digest, Vec<u8>)>,
    epoch: u64,
}

pub(crate) struct Played {
    known: Arc<Mutex<Known>>,
    program: Digest,
    input: Digest,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Played {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Played {
    pub(crate) async fn new(nats: &Nats, keys: Keys, program: Vec<u8>) -> Self {
        let input = b"four words of text".to_vec();
        let digests = (Digest::of(&program), Digest::of(&input));
        let known = Known {
            keys,
            ledger: Ledger::new(DEVICE.parse().unwrap()),
            said: Vec::new(),
            waiting: Vec::new(),
            leased: BTreeMap::new(),
            ended: BTreeMap::new(),
            content: [(digests.0, program), (digests.1, input)].into(),
            brought: BTreeMap::new(),
            epoch: 0,
        };
        let mut played = Self {
            known: Arc::new(Mutex::new(known)),
            program: digests.0,
            input: digests.1,
            task: None,
        };
        played.reconnect(nats).await;
        played
    }

    /// Nobody listens any more.
    pub(crate) async fn leave(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // What it listened with is gone when it is.
            let _ = task.await;
        }
    }

    pub(crate) async fn reconnect(&mut self, nats: &Nats) {
        self.leave().await;
        let client = async_nats::ConnectOptions::with_nkey(nats.server_seed.clone())
            .connect(nats.url())
            .await
            .unwrap();
        let mut messages = client.subscribe("lend.>").await.unwrap();
        client.flush().await.unwrap();
        let known = Arc::clone(&self.known);
        self.task = Some(tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let answer = known
                    .lock()
                    .unwrap()
                    .hear(&message.subject, &message.payload);
                if let Some(reply) = message.reply {
                    client.publish(reply, answer.into()).await.unwrap();
                }
            }
        }));
    }

    pub(crate) fn submit(&self, id: &str, arguments: &[&str]) {
        let job = Job {
            id: id.parse().unwrap(),
            tenant: "batch".parse().unwrap(),
            runtime: Runtime::Process,
            class: None,
            artefact: self.program,
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            inputs: [("text".to_owned(), self.input)].into(),
            limits: Limits {
                cpu_percent: 50,
                memory_mb: 64,
                disk_mb: 16,
                wall_s: 300,
            },
            needs: Default::default(),
            sensitivity: undercroft_model::inventory::Sensitivity::Public,
            attempts: 3,
            loss_s: 0,
        };
        self.known.lock().unwrap().waiting.push(job);
    }

    /// Takes a job out, wherever it is.
    pub(crate) fn forget(&self, id: &str) {
        let mut known = self.known.lock().unwrap();
        known.waiting.retain(|job| job.id.as_str() != id);
        known.leased.retain(|job, _| job.as_str() != id);
    }

    pub(crate) fn ended(&self, id: &str) -> Option<Ended> {
        self.known
            .lock()
            .unwrap()
            .ended
            .get(&id.parse().unwrap())
            .cloned()
    }

    pub(crate) fn leased(&self) -> Vec<JobId> {
        self.known.lock().unwrap().leased.keys().cloned().collect()
    }

    pub(crate) fn brought(&self, id: &str) -> Option<(Digest, Vec<u8>)> {
        let key = (id.parse().unwrap(), Made::Output);
        self.known.lock().unwrap().brought.get(&key).cloned()
    }
}

impl Known {
    fn hear(&mut self, subject: &str, payload: &[u8]) -> Vec<u8> {
        let parts: Vec<&str> = subject.split('.').collect();
        match parts[1] {
            "want" => match read_with_bytes::<AtWant>(payload).unwrap().0 {
                AtWant::Want(want) => {
                    // A daemon that was started anew doesn't know yet what is there, and sends it all again.
                    let next = self.ledger.head().map_or(0, |head| head.number + 1);
                    let new = want.records.iter().filter(|r| r.claim.number >= next);
                    for record in new {
                        self.ledger.push(record, &self.keys, &NkeyVerify).unwrap();
                        self.said.push(record.claim.said.clone());
                    }
                    let say = if want.head != self.ledger.head() {
                        WantSay::Ledger
                    } else {
                        self.leased.retain(|job, (_, epoch)| {
                            let holding = Holding {
                                job: job.clone(),
                                epoch: *epoch,
                            };
                            want.holds.contains(&holding)
                        });
                        self.assign(want.takes_work)
                    };
                    write(&WantAnswer {
                        turn: want.turn,
                        wall_ms: wall_ms_now(),
                        have: self.ledger.head(),
                        say,
                    })
                }
                AtWant::Fetch(fetch) => {
                    let whole = &self.content[&fetch.fetching.digest];
                    let from = usize::try_from(fetch.fetching.offset).unwrap();
                    let to = whole.len().min(from + PART_BYTES);
                    let total = whole.len() as u64;
                    let fetching = fetch.fetching;
                    let say = FetchSay::Part { total };
                    write_with_bytes(&FetchAnswer { fetching, say }, &whole[from..to])
                }
            },
            "beat" => {
                let beat: Beat = undercroft_lend::wire::read(payload).unwrap();
                let say = match self.leased.contains_key(&beat.holding.job) {
                    true => BeatSay::Go { lease_ms: LEASE_MS },
                    false => BeatSay::Stop {
                        why: "it isn't wanted any more".to_owned(),
                    },
                };
                write(&BeatAnswer {
                    turn: beat.turn,
                    say,
                })
            }
            _ => match read_with_bytes::<AtOut>(payload).unwrap() {
                (AtOut::Out(out), _) => {
                    let leased = self.leased.remove(&out.holding.job);
                    match (&out.ended, leased) {
                        (Ended::Returned { .. }, Some((job, _))) => self.waiting.push(job),
                        (Ended::Returned { .. }, None) => {}
                        (ended, _) => {
                            self.ended.insert(out.holding.job, ended.clone());
                        }
                    }
                    write(&OutAnswer {
                        turn: out.turn,
                        say: OutSay::Recorded,
                    })
                }
                (AtOut::Bring(bring), bytes) => {
                    let key = (bring.holding.job, bring.made);
                    let piece = bring.part;
                    let kept = self
                        .brought
                        .entry(key)
                        .or_insert((piece.digest, Vec::new()));
                    kept.1.truncate(usize::try_from(piece.offset).unwrap());
                    kept.1.extend_from_slice(bytes);
                    let say = match next_offset(piece.total, piece.offset) {
                        Some(offset) => BringSay::Next { offset },
                        None => BringSay::Whole,
                    };
                    write(&BringAnswer { part: piece, say })
                }
            },
        }
    }

    fn assign(&mut self, takes_work: bool) -> WantSay {
        let consent = self.ledger.consent().map(|consent| consent.number);
        match (takes_work, consent, self.waiting.pop()) {
            (true, Some(consent), Some(job)) => {
                self.epoch += 1;
                let epoch = Epoch(self.epoch);
                self.leased.insert(job.id.clone(), (job.clone(), epoch));
                WantSay::Assigned(Box::new(Assignment {
                    job,
                    epoch,
                    lease_ms: LEASE_MS,
                    consent,
                }))
            }
            (_, _, back) => {
                self.waiting.extend(back);
                WantSay::Nothing { again_ms: 200 }
            }
        }
    }
}
