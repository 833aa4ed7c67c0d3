//! The report as text.

use std::fmt::{self, Display, Formatter};

use undercroft_model::{Resource, RunEnd};
use undercroft_simkit::Faults;

use super::{ClassTimeline, RehearsalReport, timeline::TIMELINE_COLUMNS};

/// Columns that the text keeps within.
const COLUMNS_MAX: usize = 92;
/// Parts of the critical path that are shown, the last ones.
const SEGMENTS_MAX: usize = 12;
/// Machines that a list names before it only counts.
const NAMED_MAX: usize = 40;

/// A duration for people: `45 s`, `12 min 5 s`, `3 h 20 min`.
pub(crate) fn duration(ms: u64) -> String {
    let s = ms.div_ceil(1000);
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, s) => format!("{min} min {s} s"),
        (h, min, _) => format!("{h} h {min} min"),
    }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {many}")
    }
}

fn resource(resource: Resource) -> &'static str {
    match resource {
        Resource::NetworkBoot => "network boots",
        Resource::ClosureCopy => "closure copies",
        Resource::Reboot => "reboots",
        Resource::ServerJoin => "server joins",
        Resource::AgentJoin => "agent joins",
    }
}

impl Display for RehearsalReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.when(f)?;
        self.what_it_waits_for(f)?;
        self.people(f)?;
        self.wipes(f)?;
        self.went_wrong(f)
    }
}

impl RehearsalReport {
    fn head(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nodes = plural(self.nodes, "machine", "machines");
        writeln!(
            f,
            "Rehearsal of {}: {nodes}, times of profile {}, faults {}, seed {}",
            self.fleet, self.profile, self.faults, self.seed
        )?;
        writeln!(f)?;
        let took = duration(self.total_ms);
        let up = if self.up == self.nodes {
            format!("All {} are up", self.nodes)
        } else {
            format!("{} of {} are up", self.up, self.nodes)
        };
        match &self.cluster {
            None => writeln!(f, "{up} after {took}.")?,
            Some(cluster) => {
                let ready = if cluster.ready == cluster.members {
                    format!("the cluster's {} are Ready", cluster.members)
                } else {
                    format!(
                        "{} of the cluster's {} are Ready",
                        cluster.ready, cluster.members
                    )
                };
                let synced = match cluster.synced {
                    Some(true) => ", with Argo CD synced,",
                    Some(false) => ", and Argo CD isn't synced,",
                    None => "",
                };
                writeln!(f, "{up} and {ready}{synced} after {took}.")?;
            }
        }
        if self.runs.len() > 1 {
            for (number, run) in (1..).zip(&self.runs) {
                let end = match run.end {
                    Some(RunEnd::Complete) => "complete",
                    Some(RunEnd::Incomplete) => "incomplete",
                    Some(RunEnd::Interrupted) => "interrupted",
                    None => "cut short by a broken rule",
                };
                let how = match (number, run.resumed) {
                    (1, _) => "",
                    (_, true) => ", going on with the plan",
                    (_, false) => ", planned anew",
                };
                writeln!(
                    f,
                    "  run {number}: {end} after {}{how}",
                    duration(run.took_ms)
                )?;
            }
        }
        Ok(())
    }

    fn when(&self, f: &mut Formatter<'_>) -> fmt::Result {
        heading(f, "How long each phase takes")?;
        writeln!(
            f,
            "  {:<14}{:>6}{:>14}{:>14}{:>14}{:>9}",
            "phase", "times", "median", "nine in ten", "longest", "failed"
        )?;
        for phase in &self.phases {
            let failed = match phase.not_done {
                0 => String::new(),
                n => n.to_string(),
            };
            let line = format!(
                "  {:<14}{:>6}{:>14}{:>14}{:>14}{:>9}",
                phase.phase,
                phase.done,
                duration(phase.p50_ms),
                duration(phase.p90_ms),
                duration(phase.ms_max),
                failed
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        if let Some(cluster) = &self.cluster {
            heading(f, "When the cluster is what")?;
            for milestone in &cluster.milestones {
                let at = duration(milestone.at_ms);
                writeln!(f, "  {:<31}{at:>14}", milestone.what)?;
            }
        }
        heading(f, "What happens when")?;
        let width = self
            .timeline
            .iter()
            .map(|row| label(row).chars().count())
            .max()
            .unwrap_or(0);
        for row in &self.timeline {
            let end = duration(row.end_ms);
            writeln!(f, "  {:<width$} |{}| {end}", label(row), row.cells)?;
        }
        let columns = usize::try_from(TIMELINE_COLUMNS).unwrap_or(0);
        let end = duration(self.total_ms);
        writeln!(f, "  {:<width$}  0{end:>rest$}", "", rest = columns - 1)?;
        writeln!(
            f,
            "  Each row shows the machine in the middle of its class: . waits, n network boot,"
        )?;
        writeln!(
            f,
            "  a approval and inspection, p partition, c copy, i install, r reboot and proof,"
        )?;
        if self.cluster.is_some() {
            writeln!(
                f,
                "  u up and waits, j joins and gets Ready, b brings something in, # at its end."
            )
        } else {
            writeln!(f, "  # up.")
        }
    }

    fn what_it_waits_for(&self, f: &mut Formatter<'_>) -> fmt::Result {
        heading(f, "What the end waits for")?;
        let mut line = Wrapped::new(f, "  ");
        let hidden = self.critical_path.len().saturating_sub(SEGMENTS_MAX);
        if hidden > 0 {
            line.word(&format!("({hidden} earlier)"))?;
        }
        for (place, segment) in self.critical_path.iter().enumerate().skip(hidden) {
            let times = match segment.times {
                1 => String::new(),
                n => format!("{n} × "),
            };
            let arrow = if place == 0 { "" } else { "→ " };
            line.word(&format!(
                "{arrow}{times}{} {}",
                segment.what,
                duration(segment.took_ms)
            ))?;
        }
        line.end()?;
        if let Some(node) = &self.last_node {
            writeln!(f, "  The last machine is {node}.")?;
        }
        for limit in &self.limits {
            let name = resource(limit.resource);
            write!(
                f,
                "  {:<15} {} of {} at once",
                name, limit.peak, limit.limit
            )?;
            if limit.waited_nodes > 0 {
                let nodes = u64::try_from(limit.waited_nodes).unwrap_or(1).max(1);
                write!(
                    f,
                    "; {} waited, {} on average",
                    plural(limit.waited_nodes, "machine", "machines"),
                    duration(limit.waited_ms / nodes)
                )?;
            }
            writeln!(f)?;
        }
        let binding = self.limits.iter().max_by_key(|limit| limit.waited_ms);
        if let Some(limit) = binding.filter(|limit| limit.waited_ms > 0) {
            writeln!(f, "  The limit of {} binds most.", resource(limit.resource))?;
        }
        if self.uplink_busy_ms > 0 {
            writeln!(
                f,
                "  The uplink sends for {}; for {} % of that it, not the machines, sets the pace.",
                duration(self.uplink_busy_ms),
                self.uplink_shared_ms * 100 / self.uplink_busy_ms
            )?;
        }
        Ok(())
    }

    fn people(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let people = &self.people;
        if people.approvals == 0 && people.buttons == 0 && self.site_visits.is_empty() {
            return Ok(());
        }
        heading(f, "What people have to do")?;
        if people.buttons > 0 {
            let times = usize::try_from(people.buttons).unwrap_or(0);
            writeln!(
                f,
                "  Switch machines on by hand, {}.",
                plural(times, "time", "times")
            )?;
        }
        if people.approvals > 0 {
            let times = usize::try_from(people.approvals).unwrap_or(0);
            writeln!(
                f,
                "  Read {} from screens and approve {}.",
                plural(times, "fingerprint", "fingerprints"),
                if times == 1 { "it" } else { "them" }
            )?;
        }
        if people.took_ms > 0 {
            writeln!(
                f,
                "  That is {} of work, reckoned with {}.",
                duration(people.took_ms),
                plural(people.people, "person", "people")
            )?;
        }
        for visit in self.site_visits.iter().take(NAMED_MAX) {
            writeln!(
                f,
                "  Go to {} when the run has ended: {}.",
                visit.node, visit.why
            )?;
        }
        more(f, self.site_visits.len())
    }

    fn wipes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let disks: usize = self.wipes.values().map(Vec::len).sum();
        if disks == 0 {
            return Ok(());
        }
        heading(f, &format!("Disks that are wiped: {disks}"))?;
        let mut line = Wrapped::new(f, "  ");
        for (node, disks) in self.wipes.iter().take(NAMED_MAX) {
            line.word(&format!("{node}: {};", disks.join(", ")))?;
        }
        line.end()?;
        more(f, self.wipes.len())
    }

    fn went_wrong(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.faults == Faults::None {
            heading(f, "What could go wrong")?;
            for failed in self.failures.iter().take(NAMED_MAX) {
                let text = format!("{} at {}: {}", failed.node, failed.phase, failed.reason);
                paragraph(f, &text)?;
            }
            return writeln!(
                f,
                "  No faults were asked for. Try --faults some, and other seeds."
            );
        }
        heading(f, "What went wrong, and what came of it")?;
        for fault in &self.fault_counts {
            let mut line = format!("  {:>4} × {}", fault.times, fault.kind.words());
            let mut opened = false;
            for name in &fault.nodes {
                if line.chars().count() + name.len() + 3 > COLUMNS_MAX {
                    break;
                }
                line.push_str(if opened { ", " } else { " (" });
                line.push_str(name);
                opened = true;
            }
            writeln!(f, "{line}{}", if opened { ")" } else { "" })?;
        }
        if self.fault_counts.is_empty() {
            writeln!(f, "  Nothing, this time. Try other seeds.")?;
        }
        let counts = [
            (self.restarts, "a machine's steps began again"),
            (
                usize::try_from(self.controller_restarts).unwrap_or(0),
                "the controller was started again and went on from its journal",
            ),
            (self.quarantined, "an installer's report was not trusted"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "  {}: {what}", plural(count, "time", "times"))?;
        }
        for failed in self.failures.iter().take(NAMED_MAX) {
            let after = if failed.up_later {
                "; it came up later"
            } else {
                "; it needs hands"
            };
            let text = format!(
                "{} failed at {}: {}{after}",
                failed.node, failed.phase, failed.reason
            );
            paragraph(f, &text)?;
        }
        more(f, self.failures.len())
    }
}

fn label(row: &ClassTimeline) -> String {
    format!("{} {}", row.nodes, row.class)
}

fn heading(f: &mut Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(f, "\n{title}")
}

fn more(f: &mut Formatter<'_>, count: usize) -> fmt::Result {
    match count.saturating_sub(NAMED_MAX) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more"),
    }
}

/// A text, broken into lines of which the later ones are indented further.
fn paragraph(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    let mut line = Wrapped::new(f, "  ");
    line.hanging = "      ";
    for word in text.split_whitespace() {
        line.word(word)?;
    }
    line.end()
}

/// Words that are broken into lines.
struct Wrapped<'a, 'b> {
    f: &'a mut Formatter<'b>,
    indent: &'static str,
    /// What later lines are indented by.
    hanging: &'static str,
    column: usize,
}

impl<'a, 'b> Wrapped<'a, 'b> {
    fn new(f: &'a mut Formatter<'b>, indent: &'static str) -> Self {
        Self {
            f,
            indent,
            hanging: indent,
            column: 0,
        }
    }

    fn word(&mut self, word: &str) -> fmt::Result {
        let width = word.chars().count();
        if self.column > 0 && self.column + 1 + width > COLUMNS_MAX {
            writeln!(self.f)?;
            self.column = 0;
            self.indent = self.hanging;
        }
        let before = if self.column == 0 { self.indent } else { " " };
        write!(self.f, "{before}{word}")?;
        self.column += before.len() + width;
        Ok(())
    }

    fn end(self) -> fmt::Result {
        if self.column > 0 {
            writeln!(self.f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let all: Vec<String> = [0, 999, 60_000, 725_000, 3_600_000, 12_000_000]
            .into_iter()
            .map(duration)
            .collect();
        assert_eq!(
            all,
            [
                "0 s",
                "1 s",
                "1 min 0 s",
                "12 min 5 s",
                "1 h 0 min",
                "3 h 20 min"
            ]
        );
    }
}
