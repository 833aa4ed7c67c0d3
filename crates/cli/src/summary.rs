//! What a run has come to, for people: which machines are up and what proves it, how long each
//! phase took, and why the others aren't up.

use crate::{style::HINT, text::plain};
use undercroft_model::{
    Action, NodeName, NodeState, Plan,
    view::{FleetView, NodeStatus, NodeView},
};

use crate::{
    style::{BAD, BOLD, DIM, GOOD, WARN, paint},
    text::{Table, count, duration},
};

/// The most machines that are described in full; beyond, each has a row of a table.
const DESCRIBED_MAX: usize = 8;

/// The summary as text.
pub(crate) fn text(view: &FleetView) -> String {
    let counts = view.counts();
    let mut out = String::new();
    if view.nodes.len() <= DESCRIBED_MAX {
        for (name, node) in &view.nodes {
            out.push_str(&described(view.plan(), name, node));
        }
    } else {
        out.push_str(&table(view));
    }
    for (name, node) in &view.nodes {
        out.push_str(&failure_words(name, node));
    }
    out.push('\n');
    let all = view.nodes.len();
    let took = duration(view.took_ms());
    let line = match cluster(view) {
        None => format!(
            "{} of {} {} after {took}",
            counts.done,
            count(all, "machine"),
            last_word(view)
        ),
        Some(cluster) => format!("{cluster} after {took}"),
    };
    let style = if counts.done == all { GOOD } else { WARN };
    out.push_str(&paint(style, &line));
    let failed = counts.failed + counts.quarantined;
    if failed > 0 {
        out.push_str(&paint(BAD, &format!(", {failed} failed")));
    }
    out.push('\n');
    if let Some(line) = ours(view) {
        out.push_str(&paint(DIM, &line));
        out.push('\n');
    }
    out
}

/// What a machine is when its part of the plan is done.
fn last_word(view: &FleetView) -> &'static str {
    let only_looks = |plan: &Plan| {
        let mut steps = plan.steps.iter();
        !plan.steps.is_empty() && steps.all(|step| step.reaches < NodeState::Up)
    };
    if view.plan().is_some_and(only_looks) {
        "looked at"
    } else {
        "up"
    }
}

/// How far the machines and their cluster have come, where the plan is about one.
fn cluster(view: &FleetView) -> Option<String> {
    let plan = view.plan()?;
    let cluster = plan.cluster.as_ref()?;
    let reach = |state: NodeState| {
        let all = view.nodes.values();
        all.filter(|node| node.state >= state).count()
    };
    let aims_at = |name: &NodeName, state: NodeState| {
        let steps = plan.nodes.get(name).map(|node| node.steps.as_slice());
        let mut steps = steps.unwrap_or_default().iter();
        steps.any(|id| plan.step(*id).is_some_and(|step| step.reaches == state))
    };
    let members = view.nodes.keys();
    let members = members
        .filter(|name| aims_at(name, NodeState::Ready))
        .count();
    let synced = match view.nodes.get(&cluster.founder) {
        Some(founder) if founder.state == NodeState::Synced => ", and Argo CD is synced,",
        Some(_) if aims_at(&cluster.founder, NodeState::Synced) => ", and Argo CD isn't synced,",
        _ => "",
    };
    Some(format!(
        "{} of {} up and {} of {members} Ready{synced}",
        reach(NodeState::Up),
        count(view.nodes.len(), "machine"),
        reach(NodeState::Ready),
    ))
}

fn described(plan: Option<&Plan>, name: &NodeName, node: &NodeView) -> String {
    let mut out = format!("\n{}  ", paint(BOLD, name.as_str()));
    out.push_str(&match (node.status, node.total_ms()) {
        (NodeStatus::Done, Some(ms)) => {
            paint(GOOD, &format!("{} after {}", node.state, duration(ms)))
        }
        (NodeStatus::Done, None) => paint(GOOD, node.state.as_str()),
        (NodeStatus::Failed | NodeStatus::Quarantined, _) => {
            paint(BAD, &format!("{}, not up", node.state))
        }
        _ => paint(WARN, &format!("{}, not done", node.state)),
    });
    out.push('\n');
    let mut table = Table::plain(2);
    if let Some(boot_id) = &node.facts.boot_id {
        table.row(["boot id", boot_id.as_str()]);
    }
    if let Some(system) = &node.booted_system {
        let same = built(plan, name) == Some(system.as_str());
        let proof = if same {
            "as it was built"
        } else {
            "not what was built"
        };
        table.row(["system".to_owned(), format!("{system} ({proof})")]);
    }
    if let Some(key) = &node.host_key_fingerprint {
        table.row(["host key", key.as_str()]);
    }
    let phases = phases(plan, name, node);
    if !phases.is_empty() {
        table.row(["phases".to_owned(), phases.join(", ")]);
    }
    out.push_str(&table.render());
    out
}

/// The system that was built for a machine.
fn built<'a>(plan: Option<&'a Plan>, name: &NodeName) -> Option<&'a str> {
    let target = plan?.nodes.get(name)?.target.as_ref()?;
    Some(target.toplevel.as_str())
}

/// What each phase took, in the plan's order.
fn phases(plan: Option<&Plan>, name: &NodeName, node: &NodeView) -> Vec<String> {
    let steps = plan.and_then(|plan| plan.nodes.get(name).map(|node| (plan, &node.steps)));
    let verbs: Vec<&str> = match steps {
        Some((plan, steps)) => steps
            .iter()
            .filter_map(|id| plan.step(*id))
            .map(|step| Action::verb(&step.action))
            .collect(),
        None => node.phases.keys().map(AsRef::as_ref).collect(),
    };
    verbs
        .into_iter()
        .filter_map(|verb| Some((verb, node.phases.get(verb)?)))
        .map(|(verb, phase)| {
            let tries = match phase.operations {
                0 | 1 => String::new(),
                n => format!(" in {n} operations"),
            };
            format!("{verb} {}{tries}", duration(phase.busy_ms))
        })
        .collect()
}

fn table(view: &FleetView) -> String {
    let mut table = Table::new(&["NODE", "STATE", "TIME", "BOOT ID", "SYSTEM"]);
    for (name, node) in &view.nodes {
        let system = node
            .booted_system
            .as_deref()
            .map_or_else(String::new, |system| {
                let same = built(view.plan(), name) == Some(system);
                if same {
                    "as it was built"
                } else {
                    "not what was built"
                }
                .to_owned()
            });
        let state = match node.status {
            NodeStatus::Done => paint(GOOD, node.state.as_str()),
            NodeStatus::Failed | NodeStatus::Quarantined => paint(BAD, node.state.as_str()),
            _ => node.state.to_string(),
        };
        table.row([
            name.to_string(),
            state,
            node.total_ms().map_or_else(String::new, duration),
            node.facts.boot_id.clone().unwrap_or_default(),
            system,
        ]);
    }
    format!("\n{}", table.render())
}

/// How much of the machines' time passed between their operations: deciding, writing the journal,
/// and waiting for a turn. The rest is firmware, kernels, disks, copies, and people.
///
/// Over several runs it can't be told, since nobody knows what passed between them.
fn ours(view: &FleetView) -> Option<String> {
    if view.run.as_ref().is_none_or(|run| run.number != 1) {
        return None;
    }
    let mut total = 0u64;
    let mut busy = 0u64;
    for node in view.nodes.values().filter(|n| n.status == NodeStatus::Done) {
        total = total.saturating_add(node.total_ms()?);
        let of_node: u64 = node.phases.values().map(|phase| phase.busy_ms).sum();
        busy = busy.saturating_add(of_node);
    }
    if total == 0 {
        return None;
    }
    let between = total.saturating_sub(busy);
    let tenths = between.saturating_mul(1000) / total;
    Some(format!(
        "Between operations, for turns and for the journal, {} passed: {}.{} % of the machines' time.",
        duration(between),
        tenths / 10,
        tenths % 10
    ))
}

/// Why a machine failed, in full, for the end of a report; empty where it didn't.
pub(crate) fn failure_words(name: &NodeName, node: &NodeView) -> String {
    let Some(failed) = &node.failed else {
        return String::new();
    };
    let mut out = format!(
        "\n{} {} at {}: {}\n",
        paint(BOLD, name.as_str()),
        paint(BAD, "failed"),
        failed.action.as_deref().unwrap_or("a step"),
        plain(&failed.failure.message)
    );
    if let Some(command) = &failed.failure.command {
        let exit = command.exit_code.map_or_else(
            || "was ended".to_owned(),
            |code| format!("exit code {code}"),
        );
        out.push_str(&format!(
            "  command: {} ({exit})\n",
            plain(&command.command)
        ));
        for line in plain(&command.output_tail).lines() {
            out.push_str(&format!("  {} {line}\n", paint(DIM, "|")));
        }
    }
    if let Some(hint) = &failed.failure.hint {
        out.push_str(&format!("  {} {}\n", paint(HINT, "hint:"), plain(hint)));
    }
    out
}
