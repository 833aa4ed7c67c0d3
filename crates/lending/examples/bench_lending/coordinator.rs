//! What the worker in Node asks for work: as much of a server as that worker needs, which keeps a job before it hands
//! it out, the lease, and the result, each in JetStream.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

use async_nats::{
    Client, Message, Subject,
    jetstream::{self, kv},
};
use futures_util::StreamExt as _;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use undercroft_lending::keys::UserKey;

use crate::Outcome;

/// How long a request for work is kept open, as the server of lending does.
const POLL: Duration = Duration::from_secs(55);
/// How many jobs wait, at most: they are brought one after the other.
const QUEUE_MAX: usize = 16;

/// A job that was done.
pub(crate) struct Recorded {
    pub(crate) at: SystemTime,
    pub(crate) job: String,
    pub(crate) output: String,
}

struct Coordinator {
    client: Client,
    jobs: kv::Store,
    program: String,
    queue: Vec<String>,
    revisions: BTreeMap<String, u64>,
    waits: Option<Subject>,
    recorded: UnboundedSender<Recorded>,
}

/// Begins to serve, and tells of what is recorded.
pub(crate) async fn start(
    seed: &Path,
    url: &str,
    ca: &Path,
    program: &Path,
) -> Outcome<UnboundedReceiver<Recorded>> {
    let seed = UserKey::read(seed)?.seed().expose_secret().to_owned();
    let options = async_nats::ConnectOptions::with_nkey(seed).add_root_certificates(ca.to_owned());
    let client = options.connect(url).await?;
    let config = kv::Config {
        bucket: "bench-jobs".to_owned(),
        ..kv::Config::default()
    };
    let jobs = jetstream::new(client.clone())
        .create_key_value(config)
        .await?;
    let (to, recorded) = unbounded_channel();
    let coordinator = Coordinator {
        client: client.clone(),
        jobs,
        program: program.display().to_string(),
        queue: Vec::new(),
        revisions: BTreeMap::new(),
        waits: None,
        recorded: to,
    };
    let messages = client.subscribe("bench.*").await?;
    client.flush().await?;
    tokio::spawn(coordinator.serve(messages));
    Ok(recorded)
}

impl Coordinator {
    async fn serve(mut self, mut messages: async_nats::Subscriber) {
        let mut until = tokio::time::Instant::now() + POLL;
        loop {
            let heard = tokio::select! {
                message = messages.next() => match message {
                    Some(message) => {
                        if message.subject.as_str() == "bench.want" {
                            until = tokio::time::Instant::now() + POLL;
                        }
                        self.heard(message).await
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(until), if self.waits.is_some() => {
                    let to = self.waits.take();
                    self.answer(to, &json!({})).await
                }
            };
            if let Err(error) = heard {
                eprintln!("the coordinator: {error}");
            }
        }
    }

    async fn heard(&mut self, message: Message) -> Outcome<()> {
        let said: Value = serde_json::from_slice(&message.payload)?;
        let job = said
            .get("job")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        match message.subject.as_str() {
            "bench.echo" => self.answer(message.reply, &said).await,
            "bench.submit" if self.queue.len() < QUEUE_MAX => {
                self.keep(&job, &json!({ "state": "queued", "job": said }))
                    .await?;
                self.answer(message.reply, &json!({ "kept": true })).await?;
                self.queue.push(job);
                self.hand_out().await
            }
            "bench.want" => {
                self.waits = message.reply;
                self.hand_out().await
            }
            "bench.beat" => {
                self.keep(&job, &json!({ "state": "leased" })).await?;
                self.answer(message.reply, &json!({ "go": true })).await
            }
            "bench.out" => {
                self.keep(&job, &json!({ "state": "done", "result": said }))
                    .await?;
                let output = said
                    .get("output")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let _ = self.recorded.send(Recorded {
                    at: SystemTime::now(),
                    job,
                    output: output.to_owned(),
                });
                self.answer(message.reply, &json!({ "recorded": true }))
                    .await
            }
            other => Err(format!("nobody is to say {other}").into()),
        }
    }

    async fn hand_out(&mut self) -> Outcome<()> {
        if self.queue.is_empty() || self.waits.is_none() {
            return Ok(());
        }
        let job = self.queue.remove(0);
        self.keep(&job, &json!({ "state": "leased" })).await?;
        let to = self.waits.take();
        let assigned = json!({ "job": job, "program": self.program, "arguments": ["now"] });
        self.answer(to, &assigned).await
    }

    /// Makes a state of a job durable, if it follows the one before.
    async fn keep(&mut self, job: &str, value: &Value) -> Outcome<()> {
        let before = self.revisions.get(job).copied().unwrap_or(0);
        let revision = self
            .jobs
            .update(job, value.to_string().into(), before)
            .await?;
        self.revisions.insert(job.to_owned(), revision);
        Ok(())
    }

    async fn answer(&self, to: Option<Subject>, value: &Value) -> Outcome<()> {
        if let Some(to) = to {
            self.client.publish(to, value.to_string().into()).await?;
        }
        Ok(())
    }
}
