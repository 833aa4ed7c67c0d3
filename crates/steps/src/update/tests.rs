use undercroft_model::{RetryPolicy, StepId};

use super::*;

const OLD: &str = "/nix/store/old";
const NEW: &str = "/nix/store/new";

/// A machine that does what it is told, as far as it is well.
struct Machine {
    look: UpdateLook,
    whole: bool,
    /// What `switch-to-configuration boot` ends with.
    stage_code: i32,
    /// What it is after a restart; it stays as it is where there is none.
    after_restart: Option<UpdateLook>,
    restarts: u32,
    /// Whether its loader's entry starts another system than the one of its name.
    entry_lies: bool,
}

impl Machine {
    fn new() -> Self {
        let next = BootsNext {
            once: None,
            default: Some(OLD.to_owned()),
        };
        Self {
            look: UpdateLook {
                boot_id: "b1".to_owned(),
                booted: OLD.to_owned(),
                current: OLD.to_owned(),
                profile: OLD.to_owned(),
                next,
                ..UpdateLook::default()
            },
            whole: false,
            stage_code: 0,
            after_restart: None,
            restarts: 0,
            entry_lies: false,
        }
    }

    fn booted(&self, boot_id: &str, system: &str) -> UpdateLook {
        UpdateLook {
            boot_id: boot_id.to_owned(),
            booted: system.to_owned(),
            current: system.to_owned(),
            ..self.look.clone()
        }
    }

    fn answer(&mut self, ask: &UpdateAsk) -> UpdateAnswer {
        let ended = |code| {
            UpdateAnswer::Ended(Ended {
                code,
                stdout: String::new(),
                stderr_tail: String::new(),
                command: String::new(),
            })
        };
        match ask {
            UpdateAsk::Look => UpdateAnswer::Look(Box::new(self.look.clone())),
            UpdateAsk::Copy { .. } => {
                self.whole = true;
                UpdateAnswer::Done
            }
            UpdateAsk::IsWhole { .. } => ended(i32::from(!self.whole)),
            UpdateAsk::Stage { toplevel } => {
                if self.stage_code == 0 {
                    self.look.profile.clone_from(toplevel);
                    self.look.next.once = Some(match self.entry_lies {
                        true => "/nix/store/third".to_owned(),
                        false => toplevel.clone(),
                    });
                }
                ended(self.stage_code)
            }
            UpdateAsk::Restart => {
                self.restarts += 1;
                if let Some(after) = self.after_restart.take() {
                    self.look = after;
                }
                ended(0)
            }
        }
    }
}

fn step(action: Action) -> Step {
    Step {
        id: StepId(0),
        node: "n1".parse().unwrap(),
        requires: undercroft_model::NodeState::Unknown,
        reaches: undercroft_model::NodeState::Up,
        action,
        after: Vec::new(),
        after_settled: Vec::new(),
        resource: None,
        timeout_ms: 60_000,
        retry: RetryPolicy {
            attempts_max: 1,
            backoff_ms: 0,
            backoff_ms_max: 0,
        },
        destroys: Vec::new(),
        delivers_secrets: false,
        probe_first: false,
        restart_from: None,
    }
}

fn key() -> String {
    "SHA256:key".to_owned()
}

fn carry_out(action: Action, facts: &NodeFacts, work: Work, machine: &mut Machine) -> UpdateNext {
    let step = step(action);
    let cx = UpdateStep {
        step: &step,
        facts,
        work,
        wait_ms_max: 3000,
    };
    let mut script = UpdateScript::default();
    let mut at_ms = 0;
    for _ in 0..64 {
        match script.next(&cx, at_ms).unwrap() {
            UpdateNext::Ask(ask) => script.tell(machine.answer(&ask)),
            UpdateNext::Wait(_) => at_ms += 1000,
            end => return end,
        }
    }
    panic!("it comes to no end");
}

fn stage() -> Action {
    Action::Stage {
        toplevel: NEW.to_owned(),
        host_key_fingerprint: key(),
    }
}

fn confirm() -> Action {
    Action::Confirm {
        toplevel: NEW.to_owned(),
        host_key_fingerprint: key(),
    }
}

fn restart() -> Action {
    Action::Restart {
        host_key_fingerprint: key(),
    }
}

/// What is known of a machine whose system was staged.
fn staged_facts(machine: &mut Machine) -> NodeFacts {
    let mut facts = NodeFacts::default();
    match carry_out(stage(), &facts, Work::Act, machine) {
        UpdateNext::Done(evidence) => facts.learn(&evidence),
        other => panic!("{other:?}"),
    };
    facts
}

#[test]
fn a_system_is_fetched_staged_restarted_into_and_confirmed() {
    let mut machine = Machine::new();
    let fetch = || Action::Fetch {
        toplevel: NEW.to_owned(),
        closure_bytes: None,
        host_key_fingerprint: key(),
    };
    let none = NodeFacts::default();
    let probed = carry_out(fetch(), &none, Work::Probe, &mut machine);
    assert_eq!(probed, UpdateNext::NotDone);
    let fetched = UpdateNext::Done(Evidence::Fetched {
        boot_id: "b1".to_owned(),
    });
    assert_eq!(carry_out(fetch(), &none, Work::Act, &mut machine), fetched);
    assert_eq!(
        carry_out(fetch(), &none, Work::Probe, &mut machine),
        fetched
    );
    let probed = carry_out(stage(), &none, Work::Probe, &mut machine);
    assert_eq!(probed, UpdateNext::NotDone);
    let facts = staged_facts(&mut machine);
    assert_eq!(facts.staged_boot_id.as_deref(), Some("b1"));
    assert_eq!(facts.goes_back_to.as_deref(), Some(OLD));
    let probed = carry_out(restart(), &facts, Work::Probe, &mut machine);
    assert_eq!(probed, UpdateNext::NotDone);
    let early = carry_out(confirm(), &facts, Work::Act, &mut machine);
    assert!(
        matches!(&early, UpdateNext::Failed(f) if f.kind == FailureKind::PreconditionLost),
        "{early:?}"
    );
    machine.after_restart = Some(machine.booted("b2", NEW));
    let restarted = carry_out(restart(), &facts, Work::Act, &mut machine);
    let done = UpdateNext::Done(Evidence::Restarted {
        boot_id: "b2".to_owned(),
    });
    assert_eq!(restarted, done);
    // It runs what it should, and hasn't said that it is well with it.
    let trying = carry_out(confirm(), &facts, Work::Act, &mut machine);
    assert!(
        matches!(&trying, UpdateNext::Failed(f) if f.message == "it tries its new system"),
        "{trying:?}"
    );
    // What it said of the boot before counts for nothing.
    let proven = |system: &str| {
        Some(BootVerdict {
            state: "proven".to_owned(),
            system: system.to_owned(),
        })
    };
    machine.look.report = proven(OLD);
    let trying = carry_out(confirm(), &facts, Work::Act, &mut machine);
    assert!(matches!(trying, UpdateNext::Failed(_)), "{trying:?}");
    machine.look.report = proven(NEW);
    let confirmed = carry_out(confirm(), &facts, Work::Act, &mut machine);
    assert!(
        matches!(&confirmed, UpdateNext::Done(Evidence::Up { boot_id, .. }) if boot_id == "b2"),
        "{confirmed:?}"
    );
}

#[test]
fn a_machine_that_went_back_has_refuted_its_system_whether_it_says_why_or_not() {
    let mut machine = Machine::new();
    let facts = staged_facts(&mut machine);
    machine.look = machine.booted("b2", OLD);
    let silent = carry_out(confirm(), &facts, Work::Act, &mut machine);
    assert!(
        matches!(&silent, UpdateNext::Failed(f) if f.kind == FailureKind::Refuted && f.message.contains("panicked")),
        "{silent:?}"
    );
    machine.look.fell_back = Some(LeftSystem {
        system: NEW.to_owned(),
        failed: "network: no link".to_owned(),
    });
    let told = carry_out(confirm(), &facts, Work::Act, &mut machine);
    assert!(
        matches!(&told, UpdateNext::Failed(f) if f.kind == FailureKind::Refuted && f.message.contains("no link")),
        "{told:?}"
    );
    // A third system speaks for nothing but somebody's hand in the boot menu.
    machine.look = machine.booted("b3", "/nix/store/third");
    machine.look.fell_back = None;
    let other = carry_out(confirm(), &facts, Work::Act, &mut machine);
    assert!(
        matches!(&other, UpdateNext::Failed(f) if f.kind == FailureKind::Permanent),
        "{other:?}"
    );
}

#[test]
fn a_loader_that_would_boot_something_else_is_no_stage() {
    let mut machine = Machine::new();
    machine.stage_code = 1;
    let none = NodeFacts::default();
    let failed = carry_out(stage(), &none, Work::Act, &mut machine);
    assert!(
        matches!(&failed, UpdateNext::Failed(f) if f.kind == FailureKind::Permanent),
        "{failed:?}"
    );
    assert_eq!(machine.look.profile, OLD);
    // The program ends well, and the loader's entry starts another system.
    let mut machine = Machine::new();
    machine.entry_lies = true;
    let failed = carry_out(stage(), &none, Work::Act, &mut machine);
    assert!(
        matches!(&failed, UpdateNext::Failed(f) if f.message.contains("third")),
        "{failed:?}"
    );
}

#[test]
fn a_machine_is_told_to_restart_once_and_not_at_each_look() {
    let mut machine = Machine::new();
    let facts = staged_facts(&mut machine);
    let stays = carry_out(restart(), &facts, Work::Act, &mut machine);
    assert!(
        matches!(&stays, UpdateNext::Failed(f) if f.kind == FailureKind::Ambiguous),
        "{stays:?}"
    );
    assert_eq!(machine.restarts, 1);
}
