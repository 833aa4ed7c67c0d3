//! What a server does with a store that lags, a tenant that floods it, and a device that enrolled anew.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_lend::{
    DeviceName, Digest, Turn,
    consent::{Ledger, Said},
    job::{Job, Limits, Runtime},
    offer::Offer,
    server::{
        Answer, Effect, Input, JobSay, OPEN_JOBS_MAX, RELOAD_MS, Reply, Server, Settings, Stored,
        Ticket, Value, record::Runs,
    },
    wire::{Want, WantSay},
};
use undercroft_model::{Now, inventory::Sensitivity};

use crate::keys::{TestKeys, TestVerify};

fn job(id: &str, tenant: &str) -> Box<Job> {
    Box::new(Job {
        id: id.parse().unwrap(),
        tenant: tenant.parse().unwrap(),
        runtime: Runtime::Wasm,
        class: None,
        artefact: Digest::of(b"component"),
        arguments: Vec::new(),
        inputs: BTreeMap::new(),
        limits: limits(),
        needs: BTreeSet::new(),
        sensitivity: Sensitivity::Public,
        attempts: 3,
        loss_s: 1,
    })
}

fn limits() -> Limits {
    Limits {
        cpu_percent: 100,
        memory_mb: 100,
        disk_mb: 100,
        wall_s: 100,
    }
}

fn name() -> DeviceName {
    "pc".parse().unwrap()
}

struct Hub {
    server: Server<TestVerify>,
    now: Now,
    revision: u64,
}

impl Hub {
    fn new(keys: &TestKeys, stored: Vec<(Value, u64)>) -> Self {
        let settings = Settings {
            lease_ms: 20_000,
            devices: [(name(), keys.0.clone())].into(),
        };
        let now = Now {
            mono_ms: 1_000,
            wall_ms: 1_000_000,
        };
        Self {
            server: Server::new(settings, TestVerify, stored, now),
            now,
            revision: 10,
        }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.server.step(self.now, input)
    }

    fn submit(&mut self, job: Box<Job>) -> Vec<Effect> {
        let (reply, runs) = (Reply(1), Runs::Once);
        self.step(Input::Submit { reply, job, runs })
    }

    fn stored(&mut self, effects: &[Effect], how: Stored) -> Vec<Effect> {
        let ticket = stores(effects);
        self.step(Input::Stored { ticket, how })
    }

    /// The store takes what it is asked.
    fn take(&mut self, effects: &[Effect]) -> Vec<Effect> {
        self.revision += 1;
        self.stored(effects, Stored::Yes(self.revision))
    }
}

fn stores(effects: &[Effect]) -> Ticket {
    let ticket = effects.iter().find_map(|effect| match effect {
        Effect::Store { ticket, .. } => Some(*ticket),
        _ => None,
    });
    ticket.unwrap_or_else(|| panic!("nothing is stored: {effects:?}"))
}

fn says(effects: &[Effect]) -> Option<&JobSay> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer {
            answer: Answer::Job(say),
            ..
        } => Some(say),
        _ => None,
    })
}

#[test]
fn what_is_older_than_what_is_known_is_read_again() {
    let mut hub = Hub::new(&TestKeys::of(&name()), Vec::new());
    let effects = hub.submit(job("render-1", "research"));
    hub.take(&effects);
    let id = job("render-1", "research").id;
    let cancel = Input::Cancel {
        reply: Reply(2),
        job: id.clone(),
    };
    let effects = hub.step(cancel);
    let effects = hub.stored(&effects, Stored::Unknown);
    let [Effect::Load { key }, ..] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    // A server of the store answers that hasn't heard of the job as it is.
    let record = hub.server.job(&id).unwrap().clone();
    let found = Some((Value::Job(Box::new(record.clone())), hub.revision - 1));
    hub.step(Input::Loaded {
        key: key.clone(),
        found,
    });
    hub.now.mono_ms += RELOAD_MS;
    assert_eq!(hub.server.next_deadline(hub.now), Some(hub.now.mono_ms));
    let again = hub.step(Input::Tick);
    assert_eq!(again, [Effect::Load { key: key.clone() }]);
    let found = Some((Value::Job(Box::new(record)), hub.revision));
    hub.step(Input::Loaded {
        key: key.clone(),
        found,
    });
    let cancel = Input::Cancel {
        reply: Reply(3),
        job: id,
    };
    stores(&hub.step(cancel));
}

#[test]
fn a_tenant_has_so_many_jobs_that_arent_over_and_the_others_have_theirs() {
    let mut hub = Hub::new(&TestKeys::of(&name()), Vec::new());
    for n in 0..OPEN_JOBS_MAX {
        let effects = hub.submit(job(&format!("job-{n}"), "research"));
        // Also while the store hasn't answered yet.
        if n % 2 == 0 {
            hub.take(&effects);
        }
    }
    let effects = hub.submit(job("one-more", "research"));
    let max = OPEN_JOBS_MAX;
    assert_eq!(says(&effects), Some(&JobSay::TooMany { max }));
    stores(&hub.submit(job("other-1", "build")));
    // What is over makes room.
    let effects = hub.step(Input::Cancel {
        reply: Reply(2),
        job: job("job-0", "research").id,
    });
    hub.take(&effects);
    stores(&hub.submit(job("one-more", "research")));
}

#[test]
fn a_device_that_enrolled_anew_begins_another_ledger() {
    let granted = || Said::Granted {
        offer: Box::new(Offer {
            class: "pc".parse().unwrap(),
            runtimes: [Runtime::Wasm].into(),
            tenants: None,
            max_sensitivity: Sensitivity::Public,
            features: BTreeSet::new(),
            slots: 1,
            limits: limits(),
        }),
        until_ms: None,
    };
    let old = TestKeys::of(&"earlier".parse().unwrap());
    let mut ledger = Ledger::new(name());
    for _ in 0..3 {
        let record = ledger.next(1, granted(), &old);
        ledger.push(&record, &old.0, &TestVerify).unwrap();
    }
    let new = TestKeys::of(&name());
    let mut hub = Hub::new(&new, vec![(Value::Ledger(Box::new(ledger)), 7)]);
    assert_eq!(hub.server.consent(&name()), None);
    let mut ledger = Ledger::new(name());
    let record = ledger.next(1, granted(), &new);
    ledger.push(&record, &new.0, &TestVerify).unwrap();
    let want = Want {
        turn: Turn {
            start: 1,
            request: 1,
        },
        holds: Vec::new(),
        head: ledger.head(),
        records: vec![record],
        takes_work: true,
    };
    let effects = hub.step(Input::Want {
        reply: Reply(5),
        device: name(),
        want,
    });
    let [Effect::Store { expect, .. }] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(*expect, Some(7), "it takes the place of the earlier one");
    let effects = hub.take(&effects);
    let answered = effects.iter().any(|effect| match effect {
        Effect::Answer {
            answer: Answer::Want(answer),
            ..
        } => answer.say == WantSay::Ledger,
        _ => false,
    });
    assert!(answered, "{effects:?}");
    assert_eq!(hub.server.consent(&name()), Some(0));
}
