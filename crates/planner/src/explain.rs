//! A plan as text, for people who are about to say yes to it.

use std::fmt::Write;

use undercroft_model::{Action, ApprovalMode, NodeName, NodePlan, Plan, Resource};

use crate::{NodeReport, NodeStatus, PlanReport};

/// How many characters of a plan's id are enough to tell it from others.
const ID_CHARS: usize = 12;

/// What a plan does, by machine: the disks that are wiped first of all, then the steps, what is
/// waited for, and the machines that are left alone and why. Plain text, without colour.
pub fn explain(plan: &Plan, report: &PlanReport) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = write(&mut text, plan, report);
    text
}

fn write(out: &mut String, plan: &Plan, report: &PlanReport) -> std::fmt::Result {
    let id: String = plan.id.0.chars().take(ID_CHARS).collect();
    writeln!(out, "Plan {id} for {}: {}", plan.fleet, headline(report))?;
    for (name, node) in &report.nodes {
        if let (true, Some(planned)) = (node.status.is_planned(), plan.nodes.get(name)) {
            install(out, plan, name, planned, node)?;
        }
    }
    // What holds for several machines, such as a flake that can't be read, is said once.
    let mut alone: Vec<(String, &[String], Vec<&str>)> = Vec::new();
    for (name, node) in report.nodes.iter().filter(|(_, n)| !n.status.is_planned()) {
        if let Some(why) = left_alone(&node.status) {
            let known = |(known, next, _): &&mut (String, &[String], Vec<&str>)| {
                *known == why && *next == node.next
            };
            match alone.iter_mut().find(known) {
                Some((_, _, names)) => names.push(name.as_str()),
                None => alone.push((why, &node.next, vec![name.as_str()])),
            }
        }
    }
    if !alone.is_empty() {
        writeln!(out, "\nLeft alone:")?;
    }
    for (why, next, names) in &alone {
        writeln!(out, "  {}: {why}", names.join(", "))?;
        for next in *next {
            writeln!(out, "    next: {next}")?;
        }
    }
    for name in &report.unknown {
        writeln!(out, "\nThe inventory has no node {name}.")?;
    }
    if !plan.is_empty() {
        closing(out, plan, report)?;
    }
    Ok(())
}

/// What holds for the plan as a whole.
fn closing(out: &mut String, plan: &Plan, report: &PlanReport) -> std::fmt::Result {
    let limit = |resource| plan.limits.concurrency.get(&resource).copied().unwrap_or(0);
    if let Some(wave) = &plan.wave {
        writeln!(
            out,
            "\nThis is wave {} of the update. Whatever goes wrong in it ends it, and no other begins before it is well.",
            wave.number
        )?;
        return writeln!(
            out,
            "Without trouble it takes about {}.",
            duration(report.estimate_ms)
        );
    }
    writeln!(
        out,
        "\nAt most {} network boots, {} copies and {} reboots at a time. Once more than {} failed, \
             no further machine is begun.",
        limit(Resource::NetworkBoot),
        limit(Resource::ClosureCopy),
        limit(Resource::Reboot),
        machines(plan.limits.failure_budget),
    )?;
    if let Some(cluster) = &plan.cluster {
        writeln!(
            out,
            "Servers join the cluster of {} one by one, and then agents, {} at a time.",
            cluster.founder,
            limit(Resource::AgentJoin),
        )?;
    }
    writeln!(
        out,
        "Without trouble it takes about {}, and as long as approvals take.",
        duration(report.estimate_ms)
    )?;
    Ok(())
}

fn headline(report: &PlanReport) -> String {
    let s = &report.summary;
    let parts: Vec<String> = [
        (s.install, "to install"),
        (s.reinstall, "to wipe and install anew"),
        (s.join, "to take their part in the cluster"),
        (s.adopt, "to prove, which run what they should"),
        (s.update, "to update"),
        (s.update_later, "to update later"),
        (s.release, "to open for pods again"),
        (s.converged, "up to date"),
        (s.differs, "running another system"),
        (s.unreachable, "not answering"),
        (s.quarantined, "quarantined"),
        (s.blocked, "blocked"),
        (s.left_out, "not asked for"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if parts.is_empty() {
        "no machines".to_owned()
    } else {
        parts.join(", ")
    }
}

fn install(
    out: &mut String,
    plan: &Plan,
    name: &NodeName,
    planned: &NodePlan,
    report: &NodeReport,
) -> std::fmt::Result {
    let how = match report.status {
        NodeStatus::Reinstall => "  (wiped although it was installed)",
        NodeStatus::Join => "  (runs what it should, and takes its part in the cluster)",
        NodeStatus::Adopt => "  (runs what it should, which no run has proved yet)",
        NodeStatus::Update { .. } => "  (updated)",
        NodeStatus::Release => "  (an update has closed it for further pods, and came to no end)",
        _ => "",
    };
    writeln!(out, "\n{name}  {}{how}", planned.address)?;
    match &planned.target {
        Some(target) => writeln!(out, "  system    {}", target.toplevel)?,
        None if report.status == NodeStatus::Release => {}
        None => writeln!(out, "  system    none: it is only looked at")?,
    }
    if let NodeStatus::Update {
        booted, current, ..
    } = &report.status
    {
        match booted == current {
            true => writeln!(out, "  runs      {booted}")?,
            false => writeln!(out, "  runs      {current}, and has booted {booted}")?,
        }
    }
    for disk in &report.destroys {
        writeln!(out, "  wipes     {} ({})", disk.identity, disk.role)?;
    }
    let steps: Vec<String> = planned
        .steps
        .iter()
        .filter_map(|id| plan.step(*id))
        .map(|step| phrase(&step.action))
        .collect();
    writeln!(out, "  steps     {}", steps.join(", "))?;
    for what in &report.waits_on {
        writeln!(out, "  waits on  {what}")?;
    }
    for note in &report.notes {
        writeln!(out, "  note      {note}")?;
    }
    Ok(())
}

fn phrase(action: &Action) -> String {
    match action {
        Action::Approve { mode, .. } => match mode {
            ApprovalMode::Operator => "approve (operator)".to_owned(),
            ApprovalMode::Console => "approve (console)".to_owned(),
        },
        Action::Partition { layout, .. } => format!("partition ({layout})"),
        Action::Fetch {
            closure_bytes: Some(bytes),
            ..
        } => format!("fetch (what it lacks of {})", size(*bytes)),
        Action::CopyClosure {
            closure_bytes: Some(bytes),
            ..
        } => format!("copy ({})", size(*bytes)),
        Action::JoinCluster {
            role,
            replaces: true,
        } => format!("join ({role}, in place of its former self)"),
        Action::JoinCluster { role, .. } => format!("join ({role})"),
        other => other.verb().to_owned(),
    }
}

fn left_alone(status: &NodeStatus) -> Option<String> {
    match status {
        NodeStatus::Install
        | NodeStatus::Reinstall
        | NodeStatus::Join
        | NodeStatus::Adopt
        | NodeStatus::Update { .. }
        | NodeStatus::Release
        | NodeStatus::Converged => None,
        NodeStatus::UpdateLater { reason, .. } => Some(format!("to update later: {reason}")),
        NodeStatus::Differs {
            booted,
            current,
            target,
        } => Some(if booted == current {
            format!("it runs {booted}, and {target} was built")
        } else {
            format!("it booted {booted} and runs {current}, and {target} was built")
        }),
        NodeStatus::Unreachable { reason } => Some(format!("it doesn't answer: {reason}")),
        NodeStatus::Quarantined { reason } => Some(format!("quarantined: {reason}")),
        NodeStatus::Blocked { reasons } => Some(reasons.join("; ")),
    }
}

fn machines(count: u32) -> String {
    match count {
        1 => "1 machine has".to_owned(),
        n => format!("{n} machines have"),
    }
}

fn size(bytes: u64) -> String {
    if bytes < 1_000_000_000 {
        format!("{} MB", bytes.div_ceil(1_000_000))
    } else {
        let tenths = bytes / 100_000_000;
        format!("{}.{} GB", tenths / 10, tenths % 10)
    }
}

fn duration(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    if seconds < 120 {
        format!("{seconds} s")
    } else if seconds < 7200 {
        format!("{} min", seconds.div_ceil(60))
    } else {
        format!("{} h {} min", seconds / 3600, seconds % 3600 / 60)
    }
}

#[cfg(test)]
mod tests;
