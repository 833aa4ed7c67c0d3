//! How a run is shown while it goes on: bars on a terminal, lines elsewhere, JSON on request.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use undercroft_metal::world;
use undercroft_model::{
    Entry, NodeName, Plan, Record, Work,
    view::{FleetView, NodeStatus},
};

use undercroft_fleet::{
    documents::{EventLine, ProgressLine},
    narrate::{Narrator, Tone},
};
use undercroft_model::document::Version;

use crate::{style, ui::Ui};

/// How often a bar is painted anew although nothing came, in milliseconds: its clock moves.
const TICK_MS: u64 = 250;
/// The most machines with a line of their own; beyond, a machine has one while it is worked on.
const LINES_MAX: usize = 24;

/// What a run is shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Bars for a person at a terminal.
    Bars,
    /// A line an event.
    Lines,
    /// A line an event, on standard error beside a report.
    Notes,
    /// A JSON object an event, each on a line.
    Json,
    /// Nothing.
    Silent,
}

impl Form {
    /// The form that fits the user's wishes and terminal.
    pub(crate) fn of(ui: Ui, json: bool) -> Self {
        match (json, ui.quiet, ui.live) {
            (true, _, _) => Self::Json,
            (false, true, _) => Self::Silent,
            (false, false, true) => Self::Bars,
            (false, false, false) => Self::Lines,
        }
    }
}

/// Shows a run. Clones show the same run; calls never fail, since a reader that went away is no
/// reason to stop installing.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    ui: Ui,
    form: Form,
    narrator: Narrator,
    all: Option<MultiProgress>,
    total: Option<ProgressBar>,
    bars: BTreeMap<NodeName, ProgressBar>,
    /// The last quarter of a copy that was told, by machine.
    quarters: BTreeMap<NodeName, u64>,
    every_machine_has_a_line: bool,
    muted: bool,
    name_width: usize,
    view: FleetView,
}

impl Progress {
    /// A run that is shown in this form.
    pub(crate) fn new(ui: Ui, form: Form) -> Self {
        let all = (form == Form::Bars)
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));
        Self(Arc::new(Mutex::new(State {
            ui,
            form,
            narrator: Narrator::default(),
            all,
            total: None,
            bars: BTreeMap::new(),
            quarters: BTreeMap::new(),
            every_machine_has_a_line: true,
            muted: false,
            name_width: 0,
            view: FleetView::default(),
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A panic ends the program, so a poisoned lock can't be seen; were it, the state is good.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of what was there before this run, without showing it.
    pub(crate) fn past(&self, view: &FleetView) {
        self.with(|state| {
            state.narrator.past(view);
            state.view = view.clone();
            if let Some(plan) = view.plan() {
                state.planned(plan);
            }
        });
    }

    /// Shows a record.
    pub(crate) fn entry(&self, entry: &Entry) {
        self.with(|state| {
            let sentence = state.narrator.tell(entry);
            state.fold(entry);
            match state.form {
                Form::Silent => {}
                Form::Json => {
                    let entry = entry.clone();
                    drop(state.ui.json_line(&EventLine { entry }));
                }
                Form::Lines => drop(state.ui.line(&style::sentence(&sentence))),
                Form::Notes => state.ui.stderr(&style::sentence(&sentence)),
                Form::Bars => {
                    if !matches!(sentence.tone, Tone::Begin | Tone::Note) {
                        state.above(&style::sentence(&sentence));
                    }
                    state.paint(entry);
                }
            }
        });
    }

    /// Shows what the world tells while it works.
    pub(crate) fn told(&self, told: &world::RunProgress) {
        self.with(|state| {
            if state.muted {
                return;
            }
            if state.form == Form::Json {
                let line = ProgressLine {
                    version: Version,
                    progress: told.clone(),
                };
                drop(state.ui.json_line(&line));
                return;
            }
            match told {
                world::RunProgress::Bytes {
                    node,
                    phase,
                    done_bytes,
                    total_bytes,
                    bytes_per_s,
                    left_s,
                } => {
                    let text = transfer(phase, *done_bytes, *total_bytes, *bytes_per_s, *left_s);
                    state.transfer(node, *done_bytes, *total_bytes, &text);
                }
                world::RunProgress::Line { node, text } => state.line(node.as_ref(), text),
                world::RunProgress::WaitsForApproval { node, fingerprint } => {
                    let text = format!(
                        "waits for approval. Is {fingerprint} what its screen shows? Then: \
                         undercroft approve {node}"
                    );
                    state.important(node, &text);
                }
            }
        });
    }

    /// Keeps still for a while about what the world tells.
    pub(crate) fn mute(&self, mute: bool) {
        self.with(|state| state.muted = mute);
    }

    /// Says something that doesn't belong to a machine, such as what is being built.
    pub(crate) fn say(&self, text: &str) {
        self.with(|state| match state.form {
            Form::Silent | Form::Json => {}
            Form::Lines => drop(state.ui.line(text)),
            Form::Notes => state.ui.stderr(text),
            Form::Bars => state.above(text),
        });
    }

    /// Takes the bars away.
    pub(crate) fn end(&self) {
        self.with(|state| {
            for bar in state.bars.values().chain(&state.total) {
                bar.finish_and_clear();
            }
            state.bars.clear();
            state.total = None;
            if let Some(all) = &state.all {
                drop(all.clear());
            }
        });
    }
}

impl State {
    /// A line about a machine or about none; on a terminal it becomes what the machine is at.
    fn line(&mut self, node: Option<&NodeName>, text: &str) {
        let text = crate::text::plain(text);
        match (self.form, node) {
            (Form::Silent | Form::Json, _) => {}
            (Form::Lines, Some(node)) => drop(self.ui.line(&format!("{node}: {text}"))),
            (Form::Lines, None) => drop(self.ui.line(&text)),
            (Form::Notes, Some(node)) => self.ui.stderr(&format!("{node}: {text}")),
            (Form::Notes, None) => self.ui.stderr(&text),
            (Form::Bars, Some(node)) => match self.bars.get(node) {
                Some(bar) => bar.set_message(text.replace('\n', " ")),
                None => self.above(&format!("{node}: {text}")),
            },
            (Form::Bars, None) => self.above(&text),
        }
    }

    /// A line that somebody has to act upon.
    fn important(&self, node: &NodeName, text: &str) {
        use crate::style::{BOLD, WARN, paint};
        let text = crate::text::plain(text);
        let line = format!("{}: {}", paint(BOLD, node.as_str()), paint(WARN, &text));
        match self.form {
            Form::Json => {}
            // Whoever asked for quiet must still learn that the run waits for them.
            Form::Silent | Form::Notes => self.ui.stderr(&line),
            Form::Lines => drop(self.ui.line(&line)),
            Form::Bars => self.above(&line),
        }
    }

    fn transfer(&mut self, node: &NodeName, done_bytes: u64, total_bytes: Option<u64>, text: &str) {
        if self.form == Form::Lines {
            let quarter = total_bytes
                .filter(|total| *total > 0)
                .map_or(0, |total| done_bytes.saturating_mul(4) / total);
            let told = self.quarters.get(node).copied().unwrap_or(0);
            if quarter > told && quarter < 4 {
                drop(self.ui.line(&format!("{node}: {text}")));
            }
            self.quarters.insert(node.clone(), quarter);
        }
        let Some(bar) = self.bars.get(node) else {
            return;
        };
        if let Some(total) = total_bytes.filter(|total| *total > 0) {
            if bar.length() != Some(total) {
                bar.set_style(copy_style());
                bar.set_length(total);
            }
            bar.set_position(done_bytes.min(total));
        }
        bar.set_message(text.to_owned());
    }

    fn above(&self, line: &str) {
        match &self.all {
            // The line goes through the bars' own terminal, which doesn't take colours out.
            Some(all) => drop(all.println(self.ui.for_stderr(line))),
            None => self.ui.stderr(line),
        }
    }

    fn fold(&mut self, entry: &Entry) {
        self.view.apply(entry);
        if let Record::PlanAccepted { plan } = &entry.record {
            self.planned(plan);
        }
    }

    fn planned(&mut self, plan: &Plan) {
        let names = plan.nodes.keys().map(|n| n.as_str().len());
        self.name_width = names.max().unwrap_or(0);
        self.every_machine_has_a_line = plan.nodes.len() <= LINES_MAX;
    }

    /// What a machine that nothing is done to now is at, in words.
    fn resting(&self, node: &NodeName) -> String {
        let Some(view) = self.view.nodes.get(node) else {
            return String::new();
        };
        match view.status {
            NodeStatus::Failed => format!("{}, failed", view.state),
            NodeStatus::Quarantined => format!("{}, refused", view.state),
            _ => view.state.to_string(),
        }
    }

    fn paint(&mut self, entry: &Entry) {
        match &entry.record {
            Record::RunStarted { .. } => self.begin(),
            Record::OpStarted {
                step,
                work,
                attempt,
                ..
            } => {
                let Some(step) = self.view.plan().and_then(|p| p.step(*step)) else {
                    return;
                };
                let what = match work {
                    Work::Act => step.action.verb().to_owned(),
                    Work::Probe => format!("{} (looking)", step.action.verb()),
                };
                let what = match attempt {
                    0 | 1 => what,
                    n => format!("{what}, try {n}"),
                };
                let node = step.node.clone();
                let bar = self.bar(&node);
                bar.set_style(phase_style());
                bar.unset_length();
                bar.set_message(what);
                bar.reset_elapsed();
                bar.enable_steady_tick(Duration::from_millis(TICK_MS));
            }
            Record::OpEnded { step, .. } => {
                let Some(step) = self.view.plan().and_then(|p| p.step(*step)) else {
                    return;
                };
                let node = step.node.clone();
                self.rest(&node);
            }
            Record::NodeFailed { node, .. } => self.rest(node),
            _ => {}
        }
    }

    fn begin(&mut self) {
        let Some(all) = &self.all else { return };
        let total = all.add(ProgressBar::new_spinner().with_style(rest_style()));
        total.enable_steady_tick(Duration::from_millis(TICK_MS));
        self.total = Some(total);
        if self.every_machine_has_a_line {
            let nodes: Vec<NodeName> = self.view.nodes.keys().cloned().collect();
            for node in nodes {
                self.rest(&node);
            }
        }
        self.count();
    }

    /// Shows that nothing is done to a machine now.
    fn rest(&mut self, node: &NodeName) {
        if self.every_machine_has_a_line {
            let text = self.resting(node);
            let bar = self.bar(node);
            bar.disable_steady_tick();
            bar.set_style(rest_style());
            bar.set_message(text);
        } else if let Some(bar) = self.bars.remove(node) {
            bar.finish_and_clear();
        }
        self.count();
    }

    fn count(&self) {
        let Some(total) = &self.total else { return };
        let counts = self.view.counts();
        let mut text = format!("{} of {} done", counts.done, self.view.nodes.len());
        let failed = counts.failed + counts.quarantined;
        if failed > 0 {
            text.push_str(&format!(", {failed} failed"));
        }
        total.set_style(total_style());
        total.set_message(text);
    }

    fn bar(&mut self, node: &NodeName) -> ProgressBar {
        if let Some(bar) = self.bars.get(node) {
            return bar.clone();
        }
        let bar = ProgressBar::new_spinner();
        let bar = match (&self.all, &self.total) {
            (Some(all), Some(total)) => all.insert_before(total, bar),
            (Some(all), None) => all.add(bar),
            (None, _) => ProgressBar::hidden(),
        };
        bar.set_prefix(format!("{:width$}", node.as_str(), width = self.name_width));
        self.bars.insert(node.clone(), bar.clone());
        bar
    }
}

/// How far something on its way to a machine has come.
fn transfer(
    phase: &str,
    done_bytes: u64,
    total_bytes: Option<u64>,
    bytes_per_s: u64,
    left_s: Option<u64>,
) -> String {
    use crate::text::{bytes, duration};
    let mut text = match total_bytes {
        Some(total) => format!("{phase}: {} of {}", bytes(done_bytes), bytes(total)),
        None => format!("{phase}: {}", bytes(done_bytes)),
    };
    if bytes_per_s > 0 {
        text.push_str(&format!(", {}/s", bytes(bytes_per_s)));
    }
    if let Some(left_s) = left_s {
        text.push_str(&format!(", {} left", duration(left_s.saturating_mul(1000))));
    }
    text
}

/// A machine that is worked on.
fn phase_style() -> ProgressStyle {
    style("{prefix}  {spinner} {msg}  {took}")
}

/// A machine that is sent its system.
fn copy_style() -> ProgressStyle {
    style("{prefix}  {spinner} {bar:20} {msg}")
}

/// A machine that nothing is done to now.
fn rest_style() -> ProgressStyle {
    style("{prefix}    {msg}")
}

/// The line for all machines together.
fn total_style() -> ProgressStyle {
    style("{msg}, {took}")
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; a test builds each. A bar in the default style is no harm.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key("took", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let ms = u64::try_from(state.elapsed().as_millis()).unwrap_or(u64::MAX);
            // The writer is the bar's own text, which takes everything.
            let _ = out.write_str(&crate::text::duration(ms));
        })
        .progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_templates_are_good() {
        assert_eq!(
            transfer("copy", 50 << 20, Some(97 << 20), 12 << 20, Some(4)),
            "copy: 50.0 MiB of 97.0 MiB, 12.0 MiB/s, 4.0 s left"
        );
        assert_eq!(transfer("copy", 1024, None, 0, None), "copy: 1.0 KiB");
        for template in [
            "{prefix}  {spinner} {msg}  {took}",
            "{prefix}  {spinner} {bar:20} {msg}",
            "{prefix}    {msg}",
            "{msg}, {took}",
        ] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
