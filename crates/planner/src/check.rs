//! What every plan must be, whoever made it.

mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use crate::{dependents::Dependents, plan::Decided};
use serde::{Deserialize, Serialize};
use undercroft_model::{
    Action, DiskIdentity, MachineUuid, NodeName, NodePlan, NodeState, PLAN_VERSION, Plan, Severity,
    Step, StepId,
};

/// Something that is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlanFinding {
    /// How bad it is.
    pub severity: Severity,
    /// The machine, where it is about one.
    pub node: Option<NodeName>,
    /// The step, where it is about one.
    pub step: Option<StepId>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for PlanFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.node {
            write!(f, "{node}: ")?;
        }
        if let Some(step) = self.step {
            write!(f, "step {}: ", step.0)?;
        }
        f.write_str(&self.message)
    }
}

/// Lints a plan. A plan without errors can be carried out without looking twice at its shape.
pub fn check(plan: &Plan) -> Vec<PlanFinding> {
    let mut findings = Vec::new();
    let content = plan.content_id();
    if plan.id != content {
        findings.push(PlanFinding {
            severity: Severity::Error,
            node: None,
            step: None,
            message: format!("its id is {}, and its content's is {content}", plan.id),
        });
    }
    findings.extend(shape(plan));
    findings
}

/// The same of a plan whose id needn't be worked out again.
pub fn check_decided(plan: &Decided) -> Vec<PlanFinding> {
    shape(plan)
}

fn shape(plan: &Plan) -> Vec<PlanFinding> {
    let mut linter = Linter {
        plan,
        listed: listed(plan),
        findings: Vec::new(),
    };
    linter.whole();
    for (name, node) in &plan.nodes {
        linter.chain(name, node);
    }
    for (place, step) in plan.steps.iter().enumerate() {
        linter.step(place, step);
    }
    linter.cycles();
    linter.disks();
    linter.addresses();
    linter.cluster();
    linter.findings
}

/// How often each step is listed by its machine.
fn listed(plan: &Plan) -> Vec<u32> {
    let mut listed = vec![0; plan.steps.len()];
    for (name, node) in &plan.nodes {
        for id in &node.steps {
            let own = plan.step(*id).is_some_and(|step| step.node == *name);
            if let (true, Some(times)) = (own, listed.get_mut(id.index())) {
                *times += 1;
            }
        }
    }
    listed
}

struct Linter<'a> {
    plan: &'a Plan,
    /// How often each step is listed by its machine.
    listed: Vec<u32>,
    findings: Vec<PlanFinding>,
}

impl<'a> Linter<'a> {
    fn add(&mut self, severity: Severity, message: impl Into<String>) {
        self.findings.push(PlanFinding {
            severity,
            node: None,
            step: None,
            message: message.into(),
        });
    }

    fn at(&mut self, step: &Step, message: impl Into<String>) {
        self.findings.push(PlanFinding {
            severity: Severity::Error,
            node: Some(step.node.clone()),
            step: Some(step.id),
            message: message.into(),
        });
    }

    fn of(&mut self, severity: Severity, node: &NodeName, message: impl Into<String>) {
        self.findings.push(PlanFinding {
            severity,
            node: Some(node.clone()),
            step: None,
            message: message.into(),
        });
    }

    fn whole(&mut self) {
        let plan = self.plan;
        if plan.version != PLAN_VERSION {
            let message = format!(
                "it has version {}, and this program knows {PLAN_VERSION}",
                plan.version
            );
            self.add(Severity::Error, message);
        }
        if plan.parent.as_ref() == Some(&plan.id) {
            self.add(Severity::Error, "it is its own parent");
        }
        if plan.fleet.is_empty() {
            self.add(Severity::Error, "it names no fleet");
        }
        for (resource, limit) in &plan.limits.concurrency {
            if *limit == 0 {
                let message = format!("no step may ever hold {resource:?}: its limit is 0");
                self.add(Severity::Error, message);
            }
        }
    }

    /// One machine's steps: each exists, is the machine's, begins where the one before it ends.
    fn chain(&mut self, name: &NodeName, node: &'a NodePlan) {
        if node.steps.is_empty() {
            self.of(Severity::Warning, name, "it is in the plan without steps");
        }
        if node.target.as_ref().is_some_and(|t| t.toplevel.is_empty()) {
            self.of(Severity::Error, name, "it has no system to run");
        }
        let mut before: Option<&Step> = None;
        let mut approved = false;
        let mut proved = false;
        let mut inspected: Option<&Step> = None;
        for id in &node.steps {
            let Some(step) = self.plan.step(*id) else {
                let message = format!("its step {} doesn't exist", id.0);
                self.of(Severity::Error, name, message);
                continue;
            };
            if step.node != *name {
                self.at(step, format!("it is listed under {name}"));
            }
            let reached = before.map_or(NodeState::Unknown, |before| before.reaches);
            if step.requires != reached {
                let message = format!(
                    "it requires {}, and the step before it reaches {reached}",
                    step.requires
                );
                self.at(step, message);
            }
            if let Some(before) = before {
                if !step.after.contains(&before.id) {
                    let message = format!("it doesn't come after step {}", before.id.0);
                    self.at(step, message);
                }
                if before.id >= step.id {
                    self.at(step, "its machine's steps aren't in order");
                }
            }
            if !step.destroys.is_empty() {
                self.destroys(step, approved, inspected);
            }
            if step.delivers_secrets && !approved && !proved {
                self.at(step, "it delivers secrets before an approval or a proof");
            }
            self.restart(step, node);
            self.target(step, node);
            match &step.action {
                Action::Approve { .. } => approved = true,
                Action::Prove { .. } => proved = true,
                Action::Inspect { .. } => inspected = Some(step),
                _ => {}
            }
            before = Some(step);
        }
        for state in node.not_applicable.keys() {
            let reached = before.map_or(NodeState::Unknown, |before| before.reaches);
            if *state <= reached {
                let message = format!("{state} is called not applicable, and a step reaches it");
                self.of(Severity::Error, name, message);
            }
        }
    }

    fn destroys(&mut self, step: &Step, approved: bool, inspected: Option<&Step>) {
        if !approved {
            self.at(step, "it destroys before an approval");
        }
        let inspects = inspected.map(|step| disks_of(&step.action));
        if inspects.is_none() {
            self.at(step, "it destroys before an inspection");
        }
        let own = disks_of(&step.action);
        for identity in &step.destroys {
            if identity.serial.is_none() && identity.wwn.is_none() {
                self.at(step, "it destroys a disk without identity");
            }
            if !own.iter().any(|disk| disk.identity == *identity) {
                let message = format!("it destroys a disk that it doesn't name: {identity}");
                self.at(step, message);
            }
            if let Some(inspects) = inspects
                && !inspects.iter().any(|disk| disk.identity == *identity)
            {
                let message = format!("it destroys a disk that isn't inspected: {identity}");
                self.at(step, message);
            }
        }
    }

    /// A machine that lost its state has lost the installer in whose memory it stood.
    fn restart(&mut self, step: &Step, node: &NodePlan) {
        let Some(from) = step.restart_from else {
            return;
        };
        if from >= step.id || !node.steps.contains(&from) {
            let message = format!(
                "it restarts from step {}, which isn't an earlier one of its machine",
                from.0
            );
            self.at(step, message);
            return;
        }
        let from = self.plan.step(from);
        if step.action.is_of_cluster() {
            if !from.is_some_and(|from| from.action.makes_member()) {
                let message = "a step of the cluster takes its machine back behind its membership";
                self.at(step, message);
            }
            return;
        }
        // A machine that is updated has no installer to go back to.
        let is_installed = node.steps.iter().any(|id| {
            let step = self.plan.step(*id);
            step.is_some_and(|step| matches!(step.action, Action::Approve { .. }))
        });
        if is_installed
            && step.requires >= NodeState::Seen
            && from.is_none_or(|s| s.reaches > NodeState::Seen)
        {
            self.at(step, "it restarts after the report that its approval is of");
        }
    }

    fn target(&mut self, step: &Step, node: &NodePlan) {
        let toplevel = match &step.action {
            Action::CopyClosure { toplevel, .. }
            | Action::Install { toplevel, .. }
            | Action::Fetch { toplevel, .. }
            | Action::Stage { toplevel, .. }
            | Action::Confirm { toplevel, .. }
            | Action::Prove { toplevel, .. } => toplevel,
            Action::NetworkBoot
            | Action::Approve { .. }
            | Action::Inspect { .. }
            | Action::Partition { .. }
            | Action::Reboot { .. }
            | Action::Drain
            | Action::Restart { .. }
            | Action::Release
            | Action::FoundCluster
            | Action::JoinCluster { .. }
            | Action::AwaitReady { .. }
            | Action::Bootstrap { .. } => return,
        };
        let planned = node.target.as_ref().map(|target| &target.toplevel);
        if Some(toplevel) != planned {
            let message = format!(
                "it is about {toplevel}, and the machine is to run {}",
                planned.map_or("nothing", String::as_str)
            );
            self.at(step, message);
        }
    }

    fn step(&mut self, place: usize, step: &Step) {
        if usize::try_from(step.id.0) != Ok(place) {
            self.at(step, format!("it stands at place {place}"));
        }
        let times = self.listed.get(step.id.index()).copied().unwrap_or(0);
        if times != 1 {
            self.at(step, format!("its machine lists it {times} times"));
        }
        if step.reaches <= step.requires {
            let message = format!(
                "it reaches {}, which isn't beyond {}",
                step.reaches, step.requires
            );
            self.at(step, message);
        }
        if step.timeout_ms == 0 {
            self.at(step, "it has no time limit");
        }
        if step.retry.attempts_max == 0 {
            self.at(step, "it is never tried");
        }
        if step.retry.backoff_ms > step.retry.backoff_ms_max {
            self.at(step, "its first wait is longer than its longest");
        }
        if let Some(resource) = step.resource
            && !self.plan.limits.concurrency.contains_key(&resource)
        {
            self.at(step, format!("{resource:?} has no limit"));
        }
        for before in step.after.iter().chain(&step.after_settled) {
            if self.plan.step(*before).is_none() {
                self.at(
                    step,
                    format!("it comes after step {}, which doesn't exist", before.0),
                );
            }
        }
        let destroys = !step.destroys.is_empty();
        match &step.action {
            Action::Partition { disks, .. } if disks.is_empty() => {
                self.at(step, "it partitions no disk");
            }
            Action::Partition { .. } => {}
            _ if destroys => self.at(step, "only partitioning destroys"),
            _ => {}
        }
    }

    fn cycles(&mut self) {
        let steps = &self.plan.steps;
        let places = || (0u32..).map(StepId).zip(steps);
        let before = |step: &'a Step| step.after.iter().chain(&step.after_settled).copied();
        // Where each comes after those that it waits for there is no circle, and most plans are so.
        if places().all(|(place, step)| before(step).all(|before| before < place)) {
            return;
        }
        let dependents = Dependents::new(steps.len(), || {
            places().flat_map(|(place, step)| before(step).map(move |before| (before, place)))
        });
        let mut open: Vec<usize> = vec![0; steps.len()];
        for (place, _) in places() {
            for dependent in dependents.of(place) {
                if let Some(open) = open.get_mut(dependent.index()) {
                    *open += 1;
                }
            }
        }
        let mut ready: VecDeque<StepId> = places()
            .zip(&open)
            .filter(|(_, open)| **open == 0)
            .map(|((place, _), _)| place)
            .collect();
        let mut sorted = 0;
        while let Some(place) = ready.pop_front() {
            sorted += 1;
            for dependent in dependents.of(place) {
                if let Some(open) = open.get_mut(dependent.index()) {
                    *open -= 1;
                    if *open == 0 {
                        ready.push_back(*dependent);
                    }
                }
            }
        }
        if sorted < steps.len() {
            let message = format!("{} steps wait for one another", steps.len() - sorted);
            self.add(Severity::Error, message);
        }
    }

    /// No disk is wiped twice, and no two disks get the same partition table.
    fn disks(&mut self) {
        let mut wiped: BTreeMap<&DiskIdentity, &Step> = BTreeMap::new();
        let mut tables = BTreeMap::new();
        for step in &self.plan.steps {
            for identity in &step.destroys {
                if let Some(other) = wiped.insert(identity, step) {
                    let message = format!(
                        "it wipes the disk with {identity}, and so does step {} of {}",
                        other.id.0, other.node
                    );
                    self.at(step, message);
                }
            }
            if !matches!(step.action, Action::Partition { .. }) {
                continue;
            }
            for disk in disks_of(&step.action) {
                if tables.insert(disk.table_guid, step.id).is_some() {
                    let message = format!("the table GUID {} is given twice", disk.table_guid);
                    self.at(step, message);
                }
            }
        }
    }

    fn addresses(&mut self) {
        let mut addresses = BTreeSet::new();
        let mut macs = BTreeSet::new();
        let mut uuids = BTreeSet::new();
        for (name, node) in &self.plan.nodes {
            if !addresses.insert(node.address) {
                let message = format!("another machine has its address {}", node.address);
                self.of(Severity::Error, name, message);
            }
            for mac in &node.macs {
                if !macs.insert(*mac) {
                    let message = format!("another machine has its Ethernet address {mac}");
                    self.of(Severity::Error, name, message);
                }
            }
            if let Some(uuid) = node.uuid
                && !uuids.insert(uuid)
            {
                let message = format!("another machine has its UUID {uuid}");
                self.of(Severity::Error, name, message);
            }
            if node.macs.is_empty() && !node.uuid.is_some_and(MachineUuid::is_unique) {
                let message = "it has neither an Ethernet address nor a UUID that is its own";
                self.of(Severity::Error, name, message);
            }
        }
    }
}

fn disks_of(action: &Action) -> &[undercroft_model::PlannedDisk] {
    match action {
        Action::Inspect { disks, .. } | Action::Partition { disks, .. } => disks,
        _ => &[],
    }
}
