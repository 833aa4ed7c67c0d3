//! A ledger holds as it was written, and in no other way.

use undercroft_lend::{
    DeviceName, Epoch,
    consent::{Gone, Keys, Ledger, Record, Said, Sign, Signer, Why},
    job::{Limits, Runtime},
    offer::Offer,
};
use undercroft_model::inventory::Sensitivity;

use crate::keys::{TestKeys, TestVerify};

fn keys() -> TestKeys {
    TestKeys::of(&name())
}

fn name() -> DeviceName {
    "pc".parse().unwrap()
}

fn offer(slots: u32) -> Box<Offer> {
    Box::new(Offer {
        class: "pc".parse().unwrap(),
        runtimes: [Runtime::Wasm].into(),
        tenants: None,
        max_sensitivity: Sensitivity::Public,
        features: Default::default(),
        slots,
        limits: Limits {
            cpu_percent: 100,
            memory_mb: 100,
            disk_mb: 100,
            wall_s: 100,
        },
    })
}

fn started(job: &str, consent: u64) -> Said {
    Said::Started {
        job: job.parse().unwrap(),
        epoch: Epoch(1),
        consent,
    }
}

fn receipt(job: &str) -> Said {
    Said::Receipt {
        job: job.parse().unwrap(),
        epoch: Epoch(1),
        gone: Gone::Ended,
    }
}

/// Writes a ledger without asking whether it holds.
fn written(said: Vec<Said>) -> Vec<Record> {
    let keys = keys();
    let mut ledger = Ledger::new(name());
    let mut records = Vec::new();
    for said in said {
        let record = ledger.next(1000, said, &keys);
        if ledger.push(&record, &keys.0, &keys).is_err() {
            records.push(record);
            break;
        }
        records.push(record);
    }
    records
}

fn broken(records: &[Record]) -> (u64, Why) {
    let keys = keys();
    let broken = Ledger::replay(name(), records, &keys.0, &TestVerify).unwrap_err();
    (broken.number, broken.why)
}

fn whole() -> Vec<Record> {
    let granted = Said::Granted {
        offer: offer(2),
        until_ms: Some(5000),
    };
    let narrowed = Said::Narrowed { offer: offer(1) };
    written(vec![
        granted,
        started("a", 0),
        receipt("a"),
        narrowed,
        started("b", 3),
        Said::Revoked,
        receipt("b"),
    ])
}

#[test]
fn a_whole_ledger_holds_and_says_where_it_stands() {
    let records = whole();
    let keys = keys();
    let ledger = Ledger::replay(name(), &records, &keys.0, &TestVerify).unwrap();
    assert_eq!(ledger.head().map(|head| head.number), Some(6));
    assert!(ledger.consent().is_none() && ledger.open().is_empty());
}

#[test]
fn no_record_can_be_changed_left_out_moved_or_doubled() {
    let whole = whole();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at].claim.at_ms += 1;
        let signer = whole[at].claim.said.signer();
        assert_eq!(broken(&changed), (at as u64, Why::Signature(signer)));

        let mut resigned = changed.clone();
        let claim = serde_json::to_vec(&resigned[at].claim).unwrap();
        resigned[at].signature = keys().sign(signer, &claim);
        if at + 1 < whole.len() {
            // Who has the keys can write another ledger, but not one that goes on as this does.
            assert_eq!(broken(&resigned), (at as u64 + 1, Why::Previous));
        }

        let mut doubled = whole.clone();
        doubled.insert(at, whole[at].clone());
        assert_eq!(broken(&doubled), (at as u64, Why::Number(at as u64 + 1)));
        if at + 1 < whole.len() {
            let mut without = whole.clone();
            without.remove(at);
            assert_eq!(broken(&without), (at as u64 + 1, Why::Number(at as u64)));
        }
    }
    let keys = keys();
    let other = Ledger::replay("other".parse().unwrap(), &whole, &keys.0, &TestVerify);
    assert_eq!(other.unwrap_err().why, Why::Foreign(name()));
}

#[test]
fn the_device_can_t_say_what_the_owner_has_to() {
    let keys = keys();
    let forger = TestKeys(Keys {
        owner: keys.0.device.clone(),
        device: keys.0.device.clone(),
    });
    let granted = Said::Granted {
        offer: offer(2),
        until_ms: None,
    };
    let forged = Ledger::new(name()).next(0, granted, &forger);
    assert_eq!(broken(&[forged]), (0, Why::Signature(Signer::Owner)));
}

#[test]
fn work_stands_on_the_consent_that_holds() {
    let grant = |until_ms| Said::Granted {
        offer: offer(1),
        until_ms,
    };
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    for (said, why) in [
        (
            vec![started("a", 0)],
            Why::OtherConsent {
                cited: 0,
                held: None,
            },
        ),
        (
            vec![grant(None), grant(None), started("a", 0)],
            Why::OtherConsent {
                cited: 0,
                held: Some(1),
            },
        ),
        (
            vec![grant(None), Said::Revoked, started("a", 0)],
            Why::OtherConsent {
                cited: 0,
                held: None,
            },
        ),
        (vec![grant(Some(1000)), started("a", 0)], Why::Ended),
        (
            vec![grant(None), started("a", 0), started("a", 0)],
            Why::Twice(a, Epoch(1)),
        ),
        (
            vec![grant(None), started("a", 0), receipt("b")],
            Why::NotOpen(b, Epoch(1)),
        ),
        (
            vec![grant(None), Said::Narrowed { offer: offer(2) }],
            Why::Wider,
        ),
        (vec![Said::Narrowed { offer: offer(1) }], Why::NoConsent),
        (vec![Said::Revoked], Why::NoConsent),
    ] {
        let records = written(said);
        assert_eq!(broken(&records), (records.len() as u64 - 1, why));
    }
}

#[test]
fn the_same_time_of_a_job_is_begun_once_also_after_its_receipt() {
    let granted = Said::Granted {
        offer: offer(1),
        until_ms: None,
    };
    let records = written(vec![
        granted,
        started("a", 0),
        receipt("a"),
        started("a", 0),
    ]);
    assert_eq!(
        broken(&records),
        (3, Why::Twice("a".parse().unwrap(), Epoch(1)))
    );
}
