//! Members that are wiped: what etcd can spare, and how each comes back.

use super::*;

fn reinstall(nodes: &[&str]) -> PlanOptions {
    PlanOptions {
        reinstall: nodes.iter().map(|node| name(node)).collect(),
        ..PlanOptions::default()
    }
}

#[test]
fn servers_that_are_wiped_are_so_one_after_the_other() {
    let inventory = basement(5);
    let observation = converged(&inventory);
    let options = reinstall(&["control-02", "gpu-01"]);
    let (plan, _) = planned(&inventory, &observation, &options);
    for node in ["control-02", "gpu-01"] {
        let join = &step(&plan, node, "join").action;
        assert!(matches!(join, Action::JoinCluster { replaces: true, .. }));
    }
    let mut inventory = basement(28);
    // Five servers can spare two.
    for node in ["gpu-01", "gpu-02"] {
        let node = inventory.nodes.get_mut(&name(node)).unwrap();
        node.role = undercroft_model::inventory::Role::Server;
    }
    let observation = converged(&inventory);
    let options = reinstall(&["control-02", "control-03"]);
    let (plan, _) = planned(&inventory, &observation, &options);
    let first = step(&plan, "control-03", "network-boot");
    assert!(first.after.contains(&step(&plan, "control-02", "ready").id));
    // The founder may have something to do meanwhile, in the cluster that stands: it waits for none of them.
    let mut observation = observation;
    let seen = observation.cluster.as_mut().unwrap();
    seen.parts.remove(&BootstrapPart::RootApp);
    let (busy, _) = planned(&inventory, &observation, &options);
    assert_eq!(check(&busy), []);
    assert!(step(&busy, "control-01", "found").after_settled.is_empty());
    // Who is not to be wiped may hold the cluster while the founder holds nothing of it.
    let members = |plan: &Plan| plan.cluster.as_ref().unwrap().members.clone();
    assert!(!members(&busy).contains(&name("control-03")));
    let (kept, _) = planned(&inventory, &observation, &reinstall(&["control-02"]));
    assert!(members(&kept).contains(&name("control-03")));
    assert!(!members(&kept).contains(&name("control-02")));
    let first = step(&busy, "control-03", "network-boot");
    assert!(first.after.contains(&step(&busy, "control-02", "ready").id));
    let first = step(&plan, "control-03", "network-boot");
    // Whoever changes that is told.
    let mut side_by_side = plan.clone();
    side_by_side.steps[first.id.0 as usize].after.clear();
    side_by_side.id = side_by_side.content_id();
    let found: Vec<String> = check(&side_by_side)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [format!(
            "control-03: step {}: it takes a server from etcd while control-02 may not be back in it",
            first.id.0
        )]
    );
}

#[test]
fn what_etcd_can_not_spare_is_not_wiped() {
    let inventory = basement(5);
    let mut observation = converged(&inventory);
    let cluster = observation.cluster.as_mut().unwrap();
    cluster
        .nodes
        .get_mut(&name("control-03"))
        .unwrap()
        .etcd_voter = false;
    let (_, report) = planned(&inventory, &observation, &reinstall(&["control-02"]));
    insta::assert_snapshot!(
        reasons(&report, "control-02"),
        @"without it 1 of etcd's 3 members would vote, which is no majority: the cluster would stand still"
    );
    observation.cluster = None;
    let (_, report) = planned(&inventory, &observation, &reinstall(&["control-02"]));
    insta::assert_snapshot!(
        reasons(&report, "control-02"),
        @"it is a member of etcd, and the cluster's API doesn't answer: nobody knows whether the others can spare it"
    );
}

#[test]
fn a_founder_is_not_wiped_while_others_are_members() {
    let inventory = basement(5);
    let observation = converged(&inventory);
    let (plan, report) = planned(&inventory, &observation, &reinstall(&["control-01"]));
    assert!(plan.is_empty());
    insta::assert_snapshot!(
        reasons(&report, "control-01"),
        @"it founds the cluster, and control-02 is a member of one already: it would found a second; name control-02 as `kubernetes.founder` first, so that it joins"
    );
    let mut inventory = inventory;
    inventory.kubernetes.founder = Some(name("control-02"));
    let (plan, _) = planned(&inventory, &observation, &reinstall(&["control-01"]));
    assert_eq!(verbs(&plan, "control-01"), format!("{MACHINE} join ready"));
}

/// A founder that is no member isn't wiped along with those that are, and they aren't for it.
#[test]
fn a_new_founder_founds_none_although_all_members_are_to_be_wiped() {
    let inventory = basement(5);
    let mut observation = converged(&inventory);
    let fresh = name("control-01");
    observation.installed.remove(&fresh);
    observation.nodes.remove(&fresh);
    observation.cluster.as_mut().unwrap().nodes.remove(&fresh);
    let named = reinstall(&["control-02", "control-03"]);
    let (plan, report) = planned(&inventory, &observation, &named);
    assert!(!plan.steps.iter().any(|s| s.action == Action::FoundCluster));
    insta::assert_snapshot!(
        reasons(&report, "control-01"),
        @"it founds the cluster, and control-02 is a member of one already: it would found a second; name control-02 as `kubernetes.founder` first, so that it joins"
    );
}

/// The journal's word of a machine that was installed with the disks that the inventory has now.
fn installed_with_its_disks(inventory: &Inventory, observation: &mut Observation, node: &str) {
    let mut fresh = prepared(inventory);
    fresh.host_keys.clone_from(&observation.host_keys);
    let (plan, _) = all(inventory, &fresh);
    let partition = step(&plan, node, "partition");
    let Action::Partition { disks, .. } = &partition.action else {
        panic!("{partition:?}");
    };
    let installed = observation.installed.entry(name(node)).or_default();
    installed.disks.clone_from(disks);
}

/// An installer runs on a machine that was a member: it may have been told to, or have lost its disk.
fn in_its_installer(inventory: &Inventory, observation: &mut Observation, node: &str) {
    let planned = &inventory.nodes[&name(node)];
    let report = undercroft_model::InstallerReport {
        version: undercroft_model::INSTALLER_REPORT_VERSION,
        nonce: "0".repeat(32),
        uuid: planned.uuid,
        macs: planned.macs.clone(),
        address: planned.address,
        boot_id: "boot-of-an-installer".to_owned(),
        host_key: "ssh-ed25519 AAAA".to_owned(),
        fingerprint: "SHA256:installer".to_owned(),
        system: planned.system,
        firmware: undercroft_model::ReportedFirmware::Uefi,
        memory_mb: 1 << 20,
        installer: "test".to_owned(),
        token: None,
        disks: planned
            .disks
            .iter()
            .enumerate()
            .map(|(n, disk)| undercroft_model::ReportedDisk {
                path: format!("/dev/nvme{n}n1"),
                serial: disk.serial.clone(),
                wwn: disk.wwn.clone(),
                size_bytes: 1 << 42,
                model: None,
                transport: None,
            })
            .collect(),
    };
    let found = Found::Installer {
        report: Box::new(report),
    };
    let age_ms = Some(0);
    let seen = NodeObservation { found, age_ms };
    observation.nodes.insert(name(node), seen);
}

fn replaces(plan: &Plan, node: &str) -> bool {
    matches!(
        step(plan, node, "join").action,
        Action::JoinCluster { replaces: true, .. }
    )
}

/// Two members are two votes: without one of them nobody could even remove it.
#[test]
fn of_two_members_none_is_wiped() {
    let inventory = basement(5);
    let mut observation = converged(&inventory);
    // The third server never came.
    let third = name("control-03");
    observation.nodes.remove(&third);
    observation.installed.remove(&third);
    observation.cluster.as_mut().unwrap().nodes.remove(&third);
    let (_, report) = planned(&inventory, &observation, &reinstall(&["control-02"]));
    insta::assert_snapshot!(
        reasons(&report, "control-02"),
        @"without it 1 of etcd's 2 members would vote, which is no majority: the cluster would stand still"
    );
}

/// A controller that died between the installation and the join has a successor that doesn't know
/// of `--reinstall` any more.
#[test]
fn a_reinstallation_that_was_cut_off_still_replaces() {
    let inventory = basement(5);
    let mut observation = converged(&inventory);
    for node in ["control-02", "gpu-01"] {
        let installed = observation.installed.get_mut(&name(node)).unwrap();
        installed.generation = 1;
        installed.joined = false;
        let cluster = observation.cluster.as_mut().unwrap();
        let known = cluster.nodes.get_mut(&name(node)).unwrap();
        (known.ready, known.etcd_voter) = (false, false);
    }
    let (plan, _) = all(&inventory, &observation);
    for node in ["control-02", "gpu-01"] {
        assert_eq!(verbs(&plan, node), "prove join ready");
        assert!(replaces(&plan, node), "{node}");
    }
    observation.cluster = None;
    let (plan, _) = all(&inventory, &observation);
    assert!(replaces(&plan, "control-02") && !replaces(&plan, "control-03"));
}

#[test]
fn a_member_in_its_installer_comes_back_as_what_it_was_unless_its_disk_is_another() {
    let mut inventory = basement(5);
    let mut observation = converged(&inventory);
    installed_with_its_disks(&inventory, &mut observation, "control-02");
    in_its_installer(&inventory, &mut observation, "control-02");
    // The cluster can't be asked, and needn't be.
    observation.cluster = None;
    let (plan, _) = all(&inventory, &observation);
    assert!(verbs(&plan, "control-02").starts_with(MACHINE));
    assert!(!replaces(&plan, "control-02"));

    // Of an agent whatever was there before is removed: it may have lost its disk unseen.
    installed_with_its_disks(&inventory, &mut observation, "gpu-01");
    in_its_installer(&inventory, &mut observation, "gpu-01");
    assert!(replaces(&all(&inventory, &observation).0, "gpu-01"));

    // Its disk has died, and the inventory names another.
    let node = inventory.nodes.get_mut(&name("control-02")).unwrap();
    node.disks[0].serial = Some("A-NEW-DISK".to_owned());
    in_its_installer(&inventory, &mut observation, "control-02");
    let (_, report) = all(&inventory, &observation);
    assert!(reasons(&report, "control-02").contains("nobody knows"));
    observation.cluster = converged(&inventory).cluster;
    let (plan, _) = all(&inventory, &observation);
    assert!(replaces(&plan, "control-02"));
}

#[test]
fn a_fleet_that_is_wiped_whole_founds_a_new_cluster() {
    let inventory = basement(5);
    let observation = converged(&inventory);
    let everybody = ["control-01", "control-02", "control-03", "gpu-01", "gpu-02"];
    let (plan, _) = planned(&inventory, &observation, &reinstall(&everybody));
    let founds = step(&plan, "control-01", "found");
    assert_eq!(founds.after_settled.len(), 2);
    for node in ["control-02", "control-03", "gpu-01"] {
        assert!(!replaces(&plan, node), "{node}");
    }
}

/// A machine that runs already is named as the founder of a fleet that has a cluster.
#[test]
fn a_new_founder_founds_no_second_cluster() {
    let mut inventory = basement(5);
    let mut observation = converged(&inventory);
    let fresh = name("control-03");
    observation.installed.insert(
        fresh.clone(),
        Installed {
            proved_up: true,
            ..Installed::default()
        },
    );
    observation.cluster.as_mut().unwrap().nodes.remove(&fresh);
    inventory.kubernetes.founder = Some(fresh);
    let (plan, report) = all(&inventory, &observation);
    insta::assert_snapshot!(
        reasons(&report, "control-03"),
        @"it founds the cluster, and control-01 is a member of one already: it would found a second; name control-01 as `kubernetes.founder` first, so that it joins"
    );
    assert!(plan.is_empty());
    // Whether the others answer makes no difference.
    observation.cluster = None;
    let (plan, _) = all(&inventory, &observation);
    assert!(!plan.steps.iter().any(|s| s.action == Action::FoundCluster));
}

/// Five servers, of which the first so many are members, and of the others of these so many vote.
fn members_that_vote(members: usize, voting: usize) -> (Inventory, Observation) {
    let servers = ["control-02", "control-01", "control-03", "gpu-01", "gpu-02"];
    let mut inventory = basement(28);
    for node in &servers {
        let node = inventory.nodes.get_mut(&name(node)).unwrap();
        node.role = undercroft_model::inventory::Role::Server;
    }
    let mut observation = converged(&inventory);
    for (n, node) in servers.iter().map(|node| name(node)).enumerate() {
        let cluster = observation.cluster.as_mut().unwrap();
        cluster.nodes.get_mut(&node).unwrap().etcd_voter = n <= voting;
        if n >= members {
            cluster.nodes.remove(&node);
            observation.installed.remove(&node);
            observation.nodes.remove(&node);
        }
    }
    (inventory, observation)
}

#[test]
fn a_member_is_wiped_only_where_more_than_half_of_them_all_vote_without_it() {
    for (members, voting, spared) in [
        (2, 1, false),
        (3, 2, true),
        (3, 1, false),
        (3, 0, false),
        (4, 3, true),
        (4, 2, false),
        (5, 4, true),
        (5, 3, true),
        (5, 2, false),
    ] {
        let (inventory, observation) = members_that_vote(members, voting);
        let (_, report) = planned(&inventory, &observation, &reinstall(&["control-02"]));
        let case = format!("{voting} of {members}");
        if spared {
            let status = &report.nodes[&name("control-02")].status;
            assert_eq!(*status, NodeStatus::Reinstall, "{case}");
        } else {
            let why = reasons(&report, "control-02");
            let said = format!("without it {voting} of etcd's {members} members would vote");
            assert!(why.contains(&said), "{case}: {why}");
        }
    }
}

#[test]
fn a_machine_takes_the_place_of_its_former_self_where_the_cluster_may_know_that() {
    for (generation, member, seen, replaced) in [
        (0, false, false, false),
        (1, false, false, true),
        (2, false, false, true),
        (0, true, false, true),
        (0, false, true, true),
    ] {
        let inventory = basement(5);
        let mut observation = converged(&inventory);
        for node in ["control-02", "gpu-01"].map(name) {
            let installed = observation.installed.get_mut(&node).unwrap();
            (installed.generation, installed.joined) = (generation, false);
            installed.member = member;
            let cluster = observation.cluster.as_mut().unwrap();
            cluster.nodes.get_mut(&node).unwrap().ready = false;
            if !seen {
                cluster.nodes.remove(&node);
            }
        }
        let (plan, _) = all(&inventory, &observation);
        for node in ["control-02", "gpu-01"] {
            let case = format!("{node} {generation} {member} {seen}");
            assert_eq!(replaces(&plan, node), replaced, "{case}");
        }
    }
}

#[test]
fn a_machine_is_in_the_cluster_as_it_should_be_when_all_of_it_is_so() {
    let inventory = basement(5);
    for (node, server) in [("control-02", true), ("gpu-01", false)] {
        for case in 0..16_u8 {
            let [ready, as_planned, this_boot, votes] = [1, 2, 4, 8].map(|bit| case & bit != 0);
            let mut observation = converged(&inventory);
            let cluster = observation.cluster.as_mut().unwrap();
            let seen = cluster.nodes.get_mut(&name(node)).unwrap();
            (seen.ready, seen.as_planned) = (ready, as_planned);
            seen.etcd_voter = votes;
            if !this_boot {
                seen.boot_id = "the boot before".to_owned();
            }
            let (plan, _) = all(&inventory, &observation);
            let as_it_should_be = ready && as_planned && this_boot && (votes || !server);
            assert_eq!(plan.is_empty(), as_it_should_be, "{node} {case:04b}");
        }
    }
}
