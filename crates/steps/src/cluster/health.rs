//! Whether what runs in the cluster is as it should be, by what its controllers say of it.

/// How far something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It is as it should be; in a few words.
    Good(String),
    /// It isn't yet; what is missing.
    Missing(String),
}

/// A kind of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadKind {
    /// A pod on each machine.
    DaemonSet,
    /// A number of pods alike.
    Deployment,
    /// A number of pods with names of their own.
    StatefulSet,
}

impl WorkloadKind {
    /// Its name in Kubernetes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }
}

/// A workload's status, as its controller writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// What it is.
    pub kind: WorkloadKind,
    /// The generation of what is asked for.
    pub generation: i64,
    /// The generation that its controller has seen.
    pub observed_generation: i64,
    /// How many pods it should have.
    pub wanted: i64,
    /// How many are of its newest generation.
    pub updated: i64,
    /// How many are available, of whichever generation.
    pub available: i64,
    /// Why it gets no further, where its controller says so.
    pub stalled: Option<String>,
}

impl Rollout {
    /// Whether it is rolled out: all pods are of the newest generation and available.
    pub fn health(&self) -> Health {
        if self.observed_generation < self.generation {
            return Health::Missing("its controller has not seen it yet".to_owned());
        }
        if self.kind == WorkloadKind::DaemonSet && self.wanted == 0 {
            return Health::Missing("it has been given no machine yet".to_owned());
        }
        let shown = format!("{} of {} available", self.available, self.wanted);
        if self.updated < self.wanted || self.available < self.wanted {
            let stalled = self.stalled.as_ref().map(|why| format!(" ({why})"));
            return Health::Missing(shown + &stalled.unwrap_or_default());
        }
        Health::Good(shown)
    }
}

/// What Argo CD says of an Application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplicationSeen {
    /// Whether what is there is what the repository says: `Synced`, `OutOfSync`, `Unknown`; empty before it was compared.
    pub sync: String,
    /// `Healthy`, `Progressing`, `Degraded` and so on; empty before it was looked at.
    pub health: String,
    /// The phase of its latest operation: `Running`, `Succeeded` and so on; empty where there was none.
    pub phase: String,
    /// What that operation says.
    pub phase_message: String,
    /// The revision that it is synced to.
    pub revision: String,
    /// What its conditions say that are errors.
    pub errors: Vec<String>,
}

impl ApplicationSeen {
    /// Whether it is synced, healthy, and has no operation under way.
    pub fn health(&self) -> Health {
        let under_way = matches!(self.phase.as_str(), "Running" | "Terminating");
        if self.sync == "Synced" && self.health == "Healthy" && !under_way {
            let short: String = self.revision.chars().take(7).collect();
            return Health::Good(match short.as_str() {
                "" => "synced and healthy".to_owned(),
                short => format!("synced to {short}, healthy"),
            });
        }
        let or_unknown = |text: &str| match text {
            "" => "unknown".to_owned(),
            text => text.to_owned(),
        };
        let mut said = format!("{}, {}", or_unknown(&self.sync), or_unknown(&self.health));
        if matches!(self.phase.as_str(), "Running" | "Failed" | "Error") {
            let (phase, message) = (self.phase.to_lowercase(), &self.phase_message);
            said.push_str(&format!("; the sync is {phase}: {message}"));
        }
        for error in &self.errors {
            said.push_str("; ");
            said.push_str(error);
        }
        Health::Missing(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(health: &Health) -> bool {
        matches!(health, Health::Missing(_))
    }

    #[test]
    fn a_rollout_counts_only_when_its_controller_has_seen_the_newest() {
        let mut set = Rollout {
            kind: WorkloadKind::DaemonSet,
            generation: 2,
            observed_generation: 1,
            wanted: 3,
            updated: 3,
            available: 3,
            stalled: None,
        };
        assert!(missing(&set.health()));
        set.observed_generation = 2;
        assert_eq!(set.health(), Health::Good("3 of 3 available".into()));
        set.available = 2;
        set.stalled = Some("no room".into());
        let said = Health::Missing("2 of 3 available (no room)".into());
        assert_eq!(set.health(), said);
        (set.wanted, set.updated, set.available) = (0, 0, 0);
        assert!(missing(&set.health()), "it has been given no machine");
        // A Deployment that is being replaced has old replicas available.
        let half = Rollout {
            kind: WorkloadKind::Deployment,
            wanted: 2,
            updated: 1,
            available: 2,
            stalled: None,
            ..set
        };
        assert!(missing(&half.health()));
    }

    #[test]
    fn an_application_that_still_syncs_is_not_done() {
        let mut app = ApplicationSeen {
            sync: "Synced".into(),
            health: "Healthy".into(),
            phase: "Running".into(),
            phase_message: "waiting for healthy state".into(),
            revision: "3f2a91c8d0".into(),
            errors: Vec::new(),
        };
        let said = "Synced, Healthy; the sync is running: waiting for healthy state";
        assert_eq!(app.health(), Health::Missing(said.into()));
        app.phase = "Succeeded".into();
        let said = Health::Good("synced to 3f2a91c, healthy".into());
        assert_eq!(app.health(), said);
        for (sync, health) in [("OutOfSync", "Healthy"), ("Synced", "Degraded")] {
            let app = ApplicationSeen {
                sync: sync.into(),
                health: health.into(),
                ..app.clone()
            };
            assert!(missing(&app.health()), "{sync}, {health}");
        }
        app.sync = "Unknown".into();
        app.errors = vec!["no such branch".into()];
        let said = "Unknown, Healthy; no such branch";
        assert_eq!(app.health(), Health::Missing(said.into()));
        let none = ApplicationSeen::default();
        let said = Health::Missing("unknown, unknown".into());
        assert_eq!(none.health(), said);
    }
}
