//! The rounds of a service: look, decide, carry out, rest, and again.
//!
//! What is decided stands in the planner ([`undercroft_planner::next`], [`undercroft_planner::Rounds`]); what is
//! done is behind [`Hands`]; this is the order of it. Nothing that fails ends the service but a journal that
//! can't be believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use undercroft_engine::{Engine, ResumeError};
use undercroft_model::{
    NodeName, Observation, Plan, RunEnd, SystemTarget,
    advice::{Advice, ErrorKind, FileFailure},
    inventory::Inventory,
    view::{FleetView, NodeStatus},
};
use undercroft_planner::{
    MachineEnd, Next, PlanReport, Replaced, Rounds, Scope, Waits, drift::DriftReport, next, resumes,
};

use crate::{
    fleet::FleetError,
    known::Known,
    pulse::Part,
    run::Finished,
    service::Refused,
    standing::{Board, Course},
};
use undercroft_journal::{FleetJournal, StoreError};

/// Why a service has ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The journal can't be believed, or is another's: a person has to look at it.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The journal contradicts itself.
    #[error(transparent)]
    Resume(#[from] ResumeError),
}

/// What a service has seen by the time that it was told to end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Served {
    /// How many rounds it did.
    pub rounds: u64,
    /// The engine's own faults, the first of them. Empty, or there is a bug.
    pub faults: Vec<String>,
}

impl Advice for ServeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Fleet(error) => error.kind(),
            Self::Resume(_) => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fleet(error) => error.hint(),
            Self::Resume(_) => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Fleet(error) => error.file(),
            Self::Resume(_) => None,
        }
    }
}

/// Why a round was left.
pub(crate) enum Left {
    /// It was told to end.
    Interrupted,
    /// Something could not be done; it is tried again later.
    Refused(Refused),
    /// Nothing more may be done.
    Ended(ServeError),
}

impl From<Refused> for Left {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<StoreError> for Left {
    fn from(error: StoreError) -> Self {
        match error {
            // Nothing may be done on its word, and no waiting mends it.
            StoreError::NotAJournal { .. }
            | StoreError::ForeignFleet { .. }
            | StoreError::NewerVersion { .. }
            | StoreError::Damaged { .. }
            | StoreError::Rewound { .. } => Self::Ended(ServeError::Fleet(error.into())),
            other => Self::Refused((&other).into()),
        }
    }
}

/// What follows a round that was done.
enum After {
    /// A rest.
    Rest,
    /// The next round: something else was wanted before its run was done.
    AtOnce,
}

/// Whether what is wanted by now, an inventory and the machines that are asked for, is another than what a run was
/// planned for.
pub(crate) fn is_another(
    (inventory, only): (&Inventory, &Option<BTreeSet<NodeName>>),
    (inventory_now, only_now): (&Inventory, &Option<BTreeSet<NodeName>>),
) -> bool {
    inventory.digest() != inventory_now.digest() || only != only_now
}

/// What a round works with.
pub(crate) trait Hands {
    /// Keys and systems.
    type Prepared;

    /// Milliseconds of a clock that never goes back.
    fn now_ms(&self) -> u64;
    /// Reads the inventory anew; gives it, and the machines that are asked for.
    fn read(&mut self) -> Result<(Arc<Inventory>, Option<BTreeSet<NodeName>>), Left>;
    /// Opens the journal, which a run that could not be begun has closed.
    fn journal(&mut self) -> Result<FleetJournal, Left>;
    /// Has the boot servers serve that inventory. `changed`: it is another than before.
    async fn boot_servers(&mut self, journal: &FleetJournal, changed: bool) -> Result<(), Left>;
    /// Makes keys, and builds what has to be built.
    async fn prepare(
        &mut self,
        journal: &FleetJournal,
        rounds: &mut Rounds,
    ) -> Result<Self::Prepared, Left>;
    /// The systems of what was prepared.
    fn targets(prepared: &Self::Prepared) -> &BTreeMap<NodeName, Result<SystemTarget, String>>;
    /// Looks at the machines.
    async fn observe(
        &mut self,
        journal: &FleetJournal,
        prepared: &Self::Prepared,
        view: &FleetView,
    ) -> Result<Observation, Left>;
    /// Looks at what has drifted, and says what has by now; `None` where nobody looks.
    async fn drift(
        &mut self,
        _journal: &FleetJournal,
        _prepared: &Self::Prepared,
        _view: &FleetView,
    ) -> Option<Result<DriftReport, Refused>> {
        None
    }
    /// Carries a plan out.
    async fn run(
        &mut self,
        prepared: Self::Prepared,
        engine: Engine,
        journal: FleetJournal,
        view: &FleetView,
    ) -> Result<Finished, Left>;
    /// Keeps what the machines showed of themselves.
    fn keep(&mut self, view: &FleetView) -> Result<(), Left>;
    /// Rests; whether it may go on after that.
    async fn rest(&mut self, journal: Option<&FleetJournal>, rest_ms: u64) -> bool;
    /// Says a line, of a machine or of none.
    fn say(&self, node: Option<&NodeName>, text: &str);
}

/// A service at work.
pub(crate) struct Serving<H> {
    pub(crate) hands: H,
    pub(crate) rounds: Rounds,
    scope: Scope,
    journal: Option<FleetJournal>,
    /// The fold of the journal, extended by what is new.
    known: Known,
    served: Served,
    /// Where others see how it stands.
    board: Arc<Board>,
}

impl<H: Hands> Serving<H> {
    pub(crate) fn new(
        hands: H,
        interval_ms: u64,
        scope: Scope,
        journal: FleetJournal,
        board: Arc<Board>,
    ) -> Self {
        Self {
            board,
            hands,
            rounds: Rounds::new(interval_ms),
            scope,
            journal: Some(journal),
            known: Known::default(),
            served: Served::default(),
        }
    }

    /// Rounds until it is told to end.
    pub(crate) async fn go(&mut self) -> Result<Served, ServeError> {
        loop {
            let done = self.round().await;
            self.served.rounds += 1;
            let now_ms = self.hands.now_ms();
            let rest_ms = match done {
                Ok(after) => {
                    self.rounds.settled("failure");
                    let rest_ms = self.rounds.over(now_ms, None);
                    self.board.over(&self.rounds, None);
                    match after {
                        After::Rest => rest_ms,
                        After::AtOnce => 0,
                    }
                }
                Err(Left::Interrupted) => break,
                Err(Left::Ended(error)) => return Err(error),
                Err(Left::Refused(refused)) => {
                    let rest_ms = self.rounds.over(now_ms, Some(&refused.message));
                    let text = refused.sentence();
                    self.board.over(&self.rounds, Some(&text));
                    if self.rounds.says("failure", &text, now_ms) {
                        let again = rest_ms / 1000;
                        let text = format!(
                            "{text}; it is tried again in {again} s, and then after longer rests"
                        );
                        self.hands.say(None, &text);
                    }
                    rest_ms
                }
            };
            self.board.pulse.begin(Part::Rest(rest_ms));
            if !self.hands.rest(self.journal.as_ref(), rest_ms).await {
                break;
            }
        }
        Ok(self.served.clone())
    }

    async fn round(&mut self) -> Result<After, Left> {
        self.board.pulse.begin(Part::Read);
        let (inventory, only) = self.hands.read()?;
        self.board
            .change(|standing| standing.inventory = Some(Arc::clone(&inventory)));
        let nodes: BTreeSet<NodeName> = inventory.nodes.keys().cloned().collect();
        let changed = self.rounds.inventory(&inventory.digest(), &nodes);
        if changed {
            let text = "the inventory has changed: what follows is decided by the new one";
            self.hands.say(None, text);
        }
        if self.journal.is_none() {
            self.journal = Some(self.hands.journal()?);
        }
        self.extend()?;
        let Some(journal) = &self.journal else {
            return Ok(After::Rest);
        };
        self.board.pulse.begin(Part::BootServers);
        self.hands.boot_servers(journal, changed).await?;
        self.board.pulse.begin(Part::Build);
        let prepared = self.hands.prepare(journal, &mut self.rounds).await?;
        self.scope.options.only = only;
        self.scope.held = self.rounds.held(self.hands.now_ms());
        let targets = H::targets(&prepared);
        let observation = if resumes(self.known.view(), targets, &inventory, &self.scope).is_ok() {
            // The engine looks at what was begun before it goes on.
            Observation {
                targets: targets.clone(),
                ..Observation::default()
            }
        } else {
            self.board.pulse.begin(Part::Look);
            self.hands
                .observe(journal, &prepared, self.known.view())
                .await?
        };
        self.board.pulse.begin(Part::Decide);
        let next = next(self.known.view(), &observation, &inventory, &self.scope);
        let next = next.map_err(|fault| Refused {
            message: fault.to_string(),
            hint: Some("nothing was done; this is a bug of Undercroft's".to_owned()),
        })?;
        self.show(&next, &inventory);
        self.decided(&next, &inventory);
        let engine = match next {
            Next::Nothing { .. } | Next::Wait { .. } => {
                self.look_for_drift(&prepared).await;
                return Ok(After::Rest);
            }
            Next::Resume { .. } => self.resumed()?,
            Next::CarryOut { plan, .. } => self.begun(*plan)?,
        };
        self.carry(prepared, engine).await
    }

    /// Looks at what has drifted, says what is news of it, and writes it down. That it can't be looked at fails no
    /// round: the machines are kept all the same.
    async fn look_for_drift(&mut self, prepared: &H::Prepared) {
        let Some(journal) = &self.journal else {
            return;
        };
        self.board.pulse.begin(Part::Look);
        let looked = self.hands.drift(journal, prepared, self.known.view());
        let lines = match looked.await {
            None => return,
            Some(Ok(report)) => {
                self.board.drifted(&report);
                drift_lines(&report)
            }
            Some(Err(refused)) => {
                let text = format!("what has drifted can't be told: {}", refused.sentence());
                vec![text]
            }
        };
        let now_ms = self.hands.now_ms();
        if lines.is_empty() {
            self.rounds.settled("drift");
        } else if self.rounds.says("drift", &lines.join("\n"), now_ms) {
            for line in &lines {
                self.hands.say(None, line);
            }
        }
    }

    fn begun(&self, plan: Plan) -> Result<Engine, Left> {
        let engine = Engine::new(plan).map_err(|error| Refused {
            message: error.to_string(),
            hint: None,
        })?;
        Ok(engine.numbered_from(self.known.view().next_op()))
    }

    /// The engine of the accepted plan.
    fn resumed(&self) -> Result<Engine, Left> {
        self.known.engine().map_err(|e| Left::Ended(e.into()))
    }

    /// Takes into the view what the journal has gained.
    fn extend(&mut self) -> Result<(), Left> {
        if let Some(journal) = &self.journal {
            self.known.extend(journal.store())?;
            self.board.saw(self.known.view());
            self.board
                .looked_up(journal.store(), undercroft_process::clock::wall_ms_now());
        }
        Ok(())
    }

    /// Writes down what is decided.
    fn decided(&self, next: &Next, inventory: &Inventory) {
        self.board.change(|standing| {
            standing.waits = next.waits().cloned().unwrap_or_default();
            standing.course = match next {
                Next::Resume { .. } | Next::CarryOut { .. } => Course::Working,
                Next::Wait { .. } => Course::Waiting,
                Next::Nothing { report, .. } => {
                    standing.sentence = well(report, inventory);
                    Course::Well
                }
            };
        });
    }

    async fn carry(&mut self, prepared: H::Prepared, engine: Engine) -> Result<After, Left> {
        let Some(journal) = self.journal.take() else {
            return Ok(After::Rest);
        };
        self.board.pulse.begin(Part::Run);
        let planned: BTreeSet<NodeName> = engine.plan().nodes.keys().cloned().collect();
        let ran = self
            .hands
            .run(prepared, engine, journal, self.known.view())
            .await;
        let Finished {
            end,
            faults,
            journal,
            superseded,
        } = ran.map_err(|left| self.not_run(left, &planned))?;
        self.journal = Some(journal);
        self.extend()?;
        for fault in &faults {
            let fault = fault.to_string();
            self.rounds.fault(&fault);
            let text = format!(
                "the engine broke a promise of its own, which is a bug; please report it, with `undercroft events --json`: {fault}"
            );
            self.hands.say(None, &text);
        }
        self.served.faults = self.rounds.faults().0.iter().cloned().collect();
        let now_ms = self.hands.now_ms();
        let nodes = self.known.view().nodes.iter();
        let ends: Vec<_> = nodes
            .filter_map(|(name, node)| match (&node.status, &node.failed) {
                (NodeStatus::Done, _) => Some((name.clone(), MachineEnd::Done)),
                (_, Some(failed)) => {
                    let why = failed.failure.message.clone();
                    Some((name.clone(), MachineEnd::Failed(why)))
                }
                _ => None,
            })
            .collect();
        self.rounds.ran(now_ms, ends);
        if end == RunEnd::Interrupted && !superseded {
            return Err(Left::Interrupted);
        }
        self.hands.keep(self.known.view())?;
        Ok(match superseded {
            true => After::AtOnce,
            false => After::Rest,
        })
    }

    /// A run that could not be begun: its machines are no worse than before, and the next round says so.
    fn not_run(&mut self, left: Left, planned: &BTreeSet<NodeName>) -> Left {
        match left {
            Left::Refused(mut refused) => {
                let count = planned.len();
                refused.message = format!(
                    "the plan of {count} machines could not be carried out: {}",
                    refused.message
                );
                Left::Refused(refused)
            }
            other => other,
        }
    }

    /// Says what is decided, as often as it is news.
    fn show(&mut self, next: &Next, inventory: &Inventory) {
        let now_ms = self.hands.now_ms();
        match next {
            Next::Resume { plan } => {
                let text = format!("going on with plan {plan:.12}");
                self.hands.say(None, &text);
            }
            Next::CarryOut { replaces, .. } => {
                if let Some(why) = replaced(*replaces) {
                    let text = format!("the plan that isn't done is replaced: {why}");
                    if self.rounds.says("replaced", &text, now_ms) {
                        self.hands.say(None, &text);
                    }
                }
            }
            Next::Wait { .. } => {}
            Next::Nothing { report, .. } => {
                let text = well(report, inventory);
                if self.rounds.says("decision", &text, now_ms) {
                    self.hands.say(None, &text);
                }
            }
        }
        if let (Some(waits), Next::CarryOut { report, .. } | Next::Wait { report, .. }) =
            (next.waits(), next)
        {
            self.show_waits(waits, report, inventory, now_ms);
        }
    }

    fn show_waits(
        &mut self,
        waits: &Waits,
        report: &PlanReport,
        inventory: &Inventory,
        now_ms: u64,
    ) {
        let mut lines = Vec::new();
        for (name, waiting) in waits {
            lines.push((name, format!("left alone: {}", waiting.sentence())));
            let next = report
                .nodes
                .get(name)
                .into_iter()
                .flat_map(|node| &node.next);
            lines.extend(next.map(|next| (name, format!("next: {next}"))));
        }
        if lines.is_empty() {
            return;
        }
        let well = report.summary.converged;
        let mut head = format!(
            "{well} machines run what they should; {} are left alone for the reasons that follow",
            waits.len()
        );
        let rest = others(report, waits, inventory);
        if rest > 0 {
            head.push_str(&format!("; {rest} others were not looked at"));
        }
        let whole: Vec<String> = lines.iter().map(|(n, l)| format!("{n}: {l}")).collect();
        if self
            .rounds
            .says("decision", &format!("{head}\n{}", whole.join("\n")), now_ms)
        {
            self.hands.say(None, &head);
            for (name, line) in lines {
                self.hands.say(Some(name), &line);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn view(&self) -> &FleetView {
        self.known.view()
    }
}

/// Findings that a service says one by one; of the others it says how many they are.
const DRIFT_SAID_MAX: usize = 20;

/// What is said of what has drifted; nothing where nothing has.
fn drift_lines(report: &DriftReport) -> Vec<String> {
    let drifted: Vec<_> = report.findings.iter().filter(|f| f.is_drift()).collect();
    if drifted.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "{} drifted: `undercroft drift` says what to try",
        match drifted.len() {
            1 => "one thing has".to_owned(),
            n => format!("{n} things have"),
        }
    )];
    for finding in drifted.iter().take(DRIFT_SAID_MAX) {
        let on = finding
            .node
            .as_ref()
            .map_or("the cluster", NodeName::as_str);
        lines.push(format!("{on}: {}", finding.sentence));
    }
    let more = drifted.len().saturating_sub(DRIFT_SAID_MAX);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

fn replaced(why: Option<Replaced>) -> Option<&'static str> {
    match why? {
        Replaced::Asked => Some("that was asked for"),
        // What failed is planned anew: nothing to wonder about.
        Replaced::RunEnded => None,
        Replaced::InventoryChanged => Some("the inventory has changed"),
        Replaced::SystemsChanged => Some("a machine is to run another system by now"),
        Replaced::BeyondScope => Some("it goes beyond what is asked for"),
    }
}

/// How many machines weren't asked for.
fn others(report: &PlanReport, waits: &Waits, inventory: &Inventory) -> usize {
    let asked = |name: &&NodeName| report.nodes.contains_key(*name) || waits.contains_key(*name);
    inventory.nodes.keys().filter(|name| !asked(name)).count()
}

/// That all is well, and of what.
fn well(report: &PlanReport, inventory: &Inventory) -> String {
    let looked_at = report.nodes.len();
    let rest = others(report, &Waits::new(), inventory);
    match (looked_at, rest) {
        (0, _) => "no machine is asked for, and none was looked at".to_owned(),
        (1, 0) => "everything is as it should be: the one machine runs what it should".to_owned(),
        (n, 0) => format!("everything is as it should be: all {n} machines run what they should"),
        (n, rest) => format!(
            "what was asked for is as it should be: {n} of the machines; {rest} others were not looked at"
        ),
    }
}

#[cfg(test)]
mod tests;
