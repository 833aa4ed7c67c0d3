//! What a device asks for.

use std::collections::BTreeSet;

use undercroft_lend::{
    Digest, Epoch,
    device::{
        Device, Effect, Exit, Hindrance, Input, OwnerSays, RETRY_MS_MAX, Restored, Settings,
        UNBEGUN_REST_MS_MAX, UNBEGUN_REST_MS_MIN,
    },
    job::{Job, Limits, Runtime},
    offer::Offer,
    wire::{Assignment, Ended, Holding, Out, OutAnswer, OutSay, Want, WantAnswer, WantSay},
};
use undercroft_model::{Now, inventory::Sensitivity};

use crate::keys::TestKeys;

const LIMITS: Limits = Limits {
    cpu_percent: 100,
    memory_mb: 100,
    disk_mb: 100,
    wall_s: 100,
};

/// A device whose disk is always quick.
struct Pc {
    device: Device<TestKeys>,
    now: Now,
    wants: Vec<Want>,
    outs: Vec<Out>,
    others: Vec<Effect>,
}

fn offer() -> Offer {
    Offer {
        class: "pc".parse().unwrap(),
        runtimes: [Runtime::Wasm].into(),
        tenants: None,
        max_sensitivity: Sensitivity::Public,
        features: Default::default(),
        slots: 1,
        limits: LIMITS,
    }
}

impl Pc {
    fn lent() -> Self {
        let name: undercroft_lend::DeviceName = "pc".parse().unwrap();
        let sign = TestKeys::of(&name);
        let settings = Settings {
            keys: sign.0.clone(),
            beat_ms: 10_000,
            pause_ms: 60_000,
        };
        let now = Now {
            mono_ms: 1_000,
            wall_ms: 1_000_000,
        };
        let (device, effects) = Device::new(settings, sign, Restored::nothing(name), now);
        let mut pc = Self {
            device,
            now,
            wants: Vec::new(),
            outs: Vec::new(),
            others: Vec::new(),
        };
        pc.carry_out(effects);
        pc.step(Input::May(BTreeSet::new()));
        let offer = Box::new(offer());
        let until_ms = None;
        pc.step(Input::Owner(OwnerSays::Grant { offer, until_ms }));
        // What it asked before its owner agreed is answered, and it asks for work.
        pc.now.mono_ms += 1;
        let turn = pc.wants.last().unwrap().turn;
        pc.step(Input::WantAnswered(WantAnswer {
            turn,
            wall_ms: pc.now.wall_ms,
            have: pc.device.ledger().head(),
            say: WantSay::Ledger,
        }));
        assert!(pc.wants.last().unwrap().takes_work, "{:?}", pc.wants);
        pc
    }

    fn step(&mut self, input: Input) {
        let effects = self.device.step(self.now, input);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Keep { ticket, .. } => self.step(Input::Kept(ticket)),
                Effect::Want { want, .. } => self.wants.push(want),
                Effect::Out(out) => self.outs.push(out),
                other => self.others.push(other),
            }
        }
    }

    /// It is given a job, and runs it.
    fn runs(&mut self, name: &str) -> Holding {
        let job = Job {
            id: name.parse().unwrap(),
            tenant: "build".parse().unwrap(),
            runtime: Runtime::Wasm,
            class: None,
            artefact: Digest::of(b"program"),
            arguments: Vec::new(),
            inputs: Default::default(),
            limits: LIMITS,
            needs: Default::default(),
            sensitivity: Sensitivity::Public,
            attempts: 5,
            loss_s: 60,
        };
        let holding = Holding {
            job: job.id.clone(),
            epoch: Epoch(1),
        };
        self.answered(WantSay::Assigned(Box::new(Assignment {
            job,
            epoch: Epoch(1),
            lease_ms: 3_600_000,
            consent: self.device.ledger().consent().unwrap().number,
        })));
        let runs = |e: &Effect| matches!(e, Effect::Run(a) if a.job.id == holding.job);
        assert!(self.others.iter().any(runs), "{:?}", self.others);
        holding
    }

    fn answered(&mut self, say: WantSay) {
        let turn = self.wants.last().unwrap().turn;
        self.step(Input::WantAnswered(WantAnswer {
            turn,
            wall_ms: self.now.wall_ms,
            have: self.device.ledger().head(),
            say,
        }));
    }

    /// What the server is told of a job that is gone: a receipt comes before it.
    fn reports(&mut self, holding: &Holding) -> Ended {
        assert_eq!(self.others.last(), Some(&Effect::Wipe(holding.clone())));
        self.step(Input::Wiped(holding.clone()));
        assert!(!self.device.ledger().open().contains_key(&holding.job));
        let out = self.outs.last().unwrap().clone();
        assert_eq!(out.holding, *holding);
        self.step(Input::OutAnswered(OutAnswer {
            turn: out.turn,
            say: OutSay::Recorded,
        }));
        out.ended
    }

    /// A job can't be begun; what is said of it, and for how long no other is taken, in milliseconds.
    fn begins_in_vain(&mut self, name: &str, hindrance: Hindrance) -> (Ended, u64) {
        let holding = self.runs(name);
        let exit = Exit::Returned {
            why: "its disk is full".to_owned(),
            hindrance,
        };
        let input = Input::Ended {
            holding: holding.clone(),
            exit,
        };
        self.step(input);
        let ended = self.reports(&holding);
        let from_ms = self.now.mono_ms;
        while !self.device.why_not().is_empty() {
            let why = ["it could not begin a job: its disk is full"];
            assert_eq!(self.device.why_not(), why);
            assert!(!self.wants.last().unwrap().takes_work);
            self.now.mono_ms = self.device.next_deadline().unwrap();
            self.step(Input::Tick);
            if !self.wants.last().unwrap().takes_work {
                self.answered(WantSay::Nothing { again_ms: 30_000 });
            }
        }
        let rest_ms = self.now.mono_ms - from_ms;
        while !self.wants.last().unwrap().takes_work {
            self.now.mono_ms = self.device.next_deadline().unwrap();
            self.step(Input::Tick);
        }
        (ended, rest_ms)
    }

    /// What it has asked since, which is to be one request that takes no work.
    fn takes_back(&mut self, input: Input) {
        let asked = self.wants.len();
        let before = self.wants.last().unwrap().turn;
        self.step(input);
        assert_eq!(self.wants.len(), asked + 1, "{:?}", self.wants);
        let last = self.wants.last().unwrap();
        assert!(!last.takes_work && last.turn > before, "{last:?}");
        assert_eq!(last.head, self.device.ledger().head());
        self.step(Input::Tick);
        assert_eq!(self.wants.len(), asked + 1, "it asks once");
    }
}

#[test]
fn a_job_that_can_t_be_frozen_is_given_back_and_its_slot_is_free() {
    let mut pc = Pc::lent();
    let first = pc.runs("first");
    pc.step(Input::Owner(OwnerSays::Pause));
    assert_eq!(pc.others.last(), Some(&Effect::Freeze(first.clone())));
    // The daemon kills what doesn't freeze in time, of itself.
    pc.step(Input::Gone(first.clone()));
    let ended = pc.reports(&first);
    let killed = |ended: &Ended| matches!(ended, Ended::Returned { why } if why.contains("frozen"));
    assert!(killed(&ended), "{ended:?}");
    pc.step(Input::Owner(OwnerSays::Revoke));
    assert!(!pc.device.is_revoking());
}

#[test]
fn what_a_device_can_t_begin_is_given_back_and_it_rests_longer_each_time() {
    let mut pc = Pc::lent();
    let mut rest_ms = UNBEGUN_REST_MS_MIN;
    for n in 0..7 {
        let (ended, rested_ms) = pc.begins_in_vain(&format!("job-{n}"), Hindrance::Device);
        assert!(matches!(ended, Ended::Returned { .. }), "{ended:?}");
        assert_eq!(rested_ms, rest_ms);
        rest_ms = (rest_ms * 2).min(UNBEGUN_REST_MS_MAX);
    }
}

#[test]
fn a_job_that_is_too_much_for_a_device_isn_t_the_device_s_fault() {
    let mut pc = Pc::lent();
    let (ended, rested_ms) = pc.begins_in_vain("large", Hindrance::Fit);
    assert!(matches!(ended, Ended::Declined { .. }), "{ended:?}");
    assert_eq!(rested_ms, 0);
    let (ended, rested_ms) = pc.begins_in_vain("late", Hindrance::Passing);
    assert!(matches!(ended, Ended::Returned { .. }), "{ended:?}");
    assert_eq!(rested_ms, 0);
}

#[test]
fn whoever_takes_no_work_any_more_says_so_while_it_is_waited_for_some() {
    let reason = BTreeSet::from(["its owner is there".to_owned()]);
    for input in [
        Input::May(reason),
        Input::Owner(OwnerSays::Pause),
        Input::Owner(OwnerSays::Revoke),
    ] {
        Pc::lent().takes_back(input);
    }
}

/// Found by seeds: on a disk that was full, a word of before was written behind a revocation, and lent by after a crash.
#[test]
fn what_an_owner_has_agreed_to_before_they_revoke_is_not_written_afterwards() {
    let Pc {
        mut device, now, ..
    } = Pc::lent();
    let mut step = |input| device.step(now, input);
    let revoked = step(Input::Owner(OwnerSays::Revoke));
    let [Effect::Keep { ticket, .. }] = revoked.iter().filter(is_kept).collect::<Vec<_>>()[..]
    else {
        panic!("{revoked:?}");
    };
    let offer = Box::new(offer());
    let until_ms = None;
    step(Input::Owner(OwnerSays::Grant { offer, until_ms }));
    step(Input::Owner(OwnerSays::Revoke));
    let after = step(Input::Kept(*ticket));
    assert!(!after.iter().any(|effect| is_kept(&effect)), "{after:?}");
    assert!(device.ledger().consent().is_none() && !device.is_revoking());
}

/// Seeds 110007372 and 110011786 with many faults: the revocation of an agreement that a full disk kept out of the ledger
/// stayed, and was written where there was nothing to revoke.
#[test]
fn nothing_is_revoked_that_a_full_disk_has_kept_out_of_the_ledger() {
    let grants = || {
        let offer = Box::new(offer());
        Input::Owner(OwnerSays::Grant {
            offer,
            until_ms: None,
        })
    };
    let revokes = || Input::Owner(OwnerSays::Revoke);
    let ticket = |effects: &[Effect]| match effects.iter().filter(is_kept).collect::<Vec<_>>()[..] {
        [Effect::Keep { ticket, .. }] => *ticket,
        _ => panic!("{effects:?}"),
    };
    for agrees_again in [true, false] {
        let Pc {
            mut device,
            mut now,
            ..
        } = Pc::lent();
        let revoked = ticket(&device.step(now, revokes()));
        device.step(now, Input::Kept(revoked));
        let granted = ticket(&device.step(now, grants()));
        device.step(now, revokes());
        if agrees_again {
            device.step(now, grants());
        }
        device.step(now, Input::NotKept(granted));
        device.step(now, revokes());
        now.mono_ms += 10 * RETRY_MS_MAX;
        let after = device.step(now, Input::Tick);
        assert!(!after.iter().any(|effect| is_kept(&effect)), "{after:?}");
        assert!(device.ledger().consent().is_none() && !device.is_revoking());
    }
}

fn is_kept(effect: &&Effect) -> bool {
    matches!(effect, Effect::Keep { .. })
}

#[test]
fn whoever_takes_work_by_the_time_of_an_answer_asks_again_at_once() {
    let mut pc = Pc::lent();
    pc.takes_back(Input::Owner(OwnerSays::Pause));
    let turn = pc.wants.last().unwrap().turn;
    pc.step(Input::Owner(OwnerSays::Resume));
    assert_eq!(
        pc.wants.last().unwrap().turn,
        turn,
        "its answer is under way"
    );
    pc.step(Input::WantAnswered(WantAnswer {
        turn,
        wall_ms: pc.now.wall_ms,
        have: pc.device.ledger().head(),
        say: WantSay::Nothing { again_ms: 60_000 },
    }));
    let last = pc.wants.last().unwrap();
    assert!(last.turn > turn && last.takes_work, "{last:?}");
}

#[test]
fn the_next_job_has_room_while_the_last_one_is_wiped() {
    let mut pc = Pc::lent();
    let first = pc.runs("first");
    let exit = Exit::Done {
        output: Digest::of(b"made"),
        bytes: 4,
    };
    let holding = first.clone();
    pc.step(Input::Ended { holding, exit });
    let turn = pc.outs.last().unwrap().turn;
    let say = OutSay::Recorded;
    pc.step(Input::OutAnswered(OutAnswer { turn, say }));
    assert_eq!(pc.others.last(), Some(&Effect::Wipe(first)));
    pc.runs("second");
}
