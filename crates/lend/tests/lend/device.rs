//! What a device asks for.

use std::collections::BTreeSet;

use undercroft_lend::{
    device::{Device, Effect, Input, OwnerSays, Restored, Settings},
    job::{Limits, Runtime},
    offer::Offer,
    wire::{Want, WantAnswer, WantSay},
};
use undercroft_model::{Now, inventory::Sensitivity};

use crate::keys::TestKeys;

/// A device whose disk is always quick.
struct Pc {
    device: Device<TestKeys>,
    now: Now,
    wants: Vec<Want>,
}

fn offer() -> Offer {
    Offer {
        class: "pc".parse().unwrap(),
        runtimes: [Runtime::Wasm].into(),
        tenants: None,
        max_sensitivity: Sensitivity::Public,
        features: Default::default(),
        slots: 1,
        limits: Limits {
            cpu_percent: 100,
            memory_mb: 100,
            disk_mb: 100,
            wall_s: 100,
        },
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
                other => panic!("{other:?}"),
            }
        }
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

fn is_kept(effect: &&Effect) -> bool {
    matches!(effect, Effect::Keep { .. })
}
