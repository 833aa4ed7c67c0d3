//! By what a machine is known, from its report to its inspection.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use undercroft_engine::{NodeFacts, World as _};
use undercroft_model::{Action, Evidence, FailureKind, MacAddr, MachineUuid, System, Work};
use undercroft_rack::ConsoleIdentity;
use undercroft_steps as steps;

use crate::bench::*;

const OTHER_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 99]);
const OWN: MachineUuid = MachineUuid([0x3f, 1, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1]);
const OTHER: MachineUuid = MachineUuid([0x3f, 1, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 99]);

/// The machine shows this of itself, to whoever asks and in its reports.
fn shows(bench: &mut Bench, mac: MacAddr, uuid: Option<MachineUuid>) {
    bench.report.macs = vec![mac];
    bench.report.uuid = uuid;
    let report = serde_json::to_string(&bench.report).unwrap();
    fs::write(bench.path("inspect.json"), report).unwrap();
}

/// A node of whose inventory only the UUID is known is booted, approved by its console, and inspected.
#[tokio::test]
async fn a_machine_that_is_known_by_its_uuid_alone_comes_up() {
    if !inside("identity::a_machine_that_is_known_by_its_uuid_alone_comes_up") {
        return;
    }
    let mut bench = Bench::new();
    bench.known = (vec![], Some(OWN));
    shows(&mut bench, OTHER_MAC, Some(OWN));
    let order = bench.order(Action::NetworkBoot, Work::Act, NodeFacts::default());
    bench.world.start(order);
    let until = Instant::now() + LIMIT;
    while *bench.facilities.boots.lock().unwrap() == 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(bench.world.reported(&node(), bench.report.clone()));
    let (_, outcome) = tokio::time::timeout(LIMIT, bench.outcomes.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(evidence(outcome), Evidence::Seen { .. }));
    *bench.facilities.console.lock().unwrap() = Some(ConsoleIdentity {
        fingerprint: bench.report.fingerprint.clone(),
        nonce: bench.report.nonce.clone(),
        boot_id: bench.report.boot_id.clone(),
        address: Ipv4Addr::LOCALHOST.into(),
        word: None,
    });
    let approved = evidence(bench.act(approve()).await);
    assert!(matches!(approved, Evidence::Approved { .. }));
    let inspected = evidence(bench.act(inspect()).await);
    assert!(matches!(inspected, Evidence::Inspected { .. }));
}

/// The rows of `a_machine_that_shows_another_s_identity_is_left_alone` in the simulation's tests. What the inspection over
/// SSH says is what `steps` says, word for word, by which the simulation goes too.
#[tokio::test]
async fn a_machine_is_inspected_by_whatever_it_is_known_by() {
    if !inside("identity::a_machine_is_inspected_by_whatever_it_is_known_by") {
        return;
    }
    let mut bench = Bench::new();
    let (own, other) = (Some(OWN), Some(OTHER));
    for (by_mac, by_uuid, mac, uuid, comes_up) in [
        (true, false, MAC, other, true),
        (true, false, MAC, None, true),
        (true, false, OTHER_MAC, own, false),
        (false, true, OTHER_MAC, own, true),
        (false, true, MAC, other, false),
        (false, true, MAC, None, false),
        (true, true, MAC, own, true),
        (true, true, MAC, None, true),
        (true, true, MAC, other, false),
        (true, true, OTHER_MAC, own, false),
        (true, true, OTHER_MAC, other, false),
    ] {
        let case = format!("known by MAC {by_mac}, UUID {by_uuid}; shows {mac} and {uuid:?}");
        bench.known = (
            by_mac.then_some(MAC).into_iter().collect(),
            by_uuid.then_some(OWN),
        );
        shows(&mut bench, mac, uuid);
        let plan = plan(inspect(), &bench.known);
        let disks = [disk("S1")];
        let wanted = steps::Wanted {
            node: &plan.nodes[&node()],
            disks: &disks,
            system: System::X86_64Linux,
            memory_mb_min: 1024,
        };
        let pure = steps::inspect(wanted, bench.report.boot_id.clone(), &bench.report);
        let outcome = bench.act(inspect()).await;
        if comes_up {
            assert_eq!(evidence(outcome), pure.unwrap(), "{case}");
        } else {
            let refused = failure(outcome);
            assert_eq!(refused.kind, FailureKind::Refused, "{case}");
            assert_eq!(refused, pure.unwrap_err(), "{case}");
        }
    }
}
