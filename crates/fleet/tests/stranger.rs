//! A stranger's program, which has nothing of Undercroft but `fleet` and `model`.

#[cfg(test)]
#[path = "../examples/status.rs"]
#[allow(dead_code, reason = "its main isn't called here")]
mod status;

#[cfg(test)]
mod stranger {
    use std::{fs, path::Path, sync::Arc};

    use tempfile::TempDir;
    use undercroft_fleet::{Fleet, OpenError, ProjectError};
    use undercroft_journal::FleetJournal;
    use undercroft_model::{
        Entry, NodeState, Observation, OpId, Outcome, Record, RunEnd, SystemTarget, Work,
        advice::Advice as _,
    };

    use super::status::tell;

    const SOURCES: [&str; 2] = [
        include_str!("../examples/status.rs"),
        include_str!("../examples/first_steps.rs"),
    ];
    const RACK: &str = include_str!("../../../examples/rack/undercroft.toml");

    fn fleet() -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("undercroft.toml"), RACK).unwrap();
        dir
    }

    #[test]
    fn they_are_short_and_stand_on_fleet_and_model_alone() {
        assert!(SOURCES.iter().all(|source| source.lines().count() < 60));
        let words = SOURCES
            .iter()
            .flat_map(|source| source.split(|c: char| !(c.is_alphanumeric() || c == '_')));
        for word in words {
            if word.starts_with("undercroft_") {
                assert!(
                    ["undercroft_fleet", "undercroft_model"].contains(&word),
                    "{word}"
                );
            }
        }
    }

    #[test]
    fn it_tells_of_a_fleet_that_was_never_touched() {
        let dir = fleet();
        let told = tell(dir.path()).unwrap();
        insta::assert_snapshot!(told);
        // By the file's path as by the folder's, and nothing is made on the way.
        assert_eq!(tell(&dir.path().join("undercroft.toml")).unwrap(), told);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    /// A plan of the rack, as if its systems had been built.
    fn plan(dir: &Path) -> Arc<undercroft_model::Plan> {
        let fleet = Fleet::open(dir).unwrap();
        let target: SystemTarget = serde_json::from_value(serde_json::json!({
            "toplevel": "/nix/store/00000000000000000000000000000000-system",
            "system": "x86_64-linux",
        }))
        .unwrap();
        let names = || fleet.inventory().nodes.keys().cloned();
        let observation = Observation {
            targets: names().map(|name| (name, Ok(target.clone()))).collect(),
            host_keys: names()
                .map(|name| (name, "SHA256:key".to_owned()))
                .collect(),
            ..Observation::default()
        };
        Arc::new(undercroft_planner::plan(fleet.inventory(), &observation, None).0)
    }

    #[test]
    fn it_tells_of_a_run_that_was_interrupted() {
        let dir = fleet();
        let plan = plan(dir.path());
        let state = dir.path().join(".undercroft");
        let mut journal = FleetJournal::open(&state, &plan.fleet, "undercroft up").unwrap();
        let first = plan.steps.first().unwrap().id;
        let records = vec![
            Record::PlanAccepted {
                plan: Arc::clone(&plan),
            },
            Record::RunStarted {
                plan: plan.id.clone(),
                undercroft: "0.1.0".to_owned(),
            },
            Record::OpStarted {
                op: OpId(0),
                step: first,
                work: Work::Act,
                attempt: 1,
            },
            Record::OpEnded {
                op: OpId(0),
                step: first,
                outcome: Outcome::Orphaned,
            },
            Record::RunEnded {
                end: RunEnd::Interrupted,
            },
        ];
        journal.append_records(1_767_225_600_000, records).unwrap();
        // Beside the controller, and after it.
        let beside = tell(dir.path()).unwrap();
        drop(journal);
        let told = tell(dir.path()).unwrap();
        assert_eq!(beside, told);
        assert!(
            told.contains(&format!("next: go on with plan {:.10}", plan.id)),
            "{told}"
        );
        let fleet = Fleet::open(dir.path()).unwrap();
        let view = fleet.view().unwrap();
        let state_dir = &fleet.settings().state_dir;
        let store = undercroft_journal::Store::open(state_dir, None).unwrap();
        let entries: Vec<Entry> = store.entries(0, usize::MAX).unwrap();
        assert_eq!(undercroft_model::view::FleetView::fold(&entries), view);
        assert!(fleet.status().unwrap().controller.is_none());
        let states = view.nodes.values().map(|node| node.state);
        assert!(states.into_iter().all(|state| state == NodeState::Unknown));
    }

    #[test]
    fn what_is_no_fleet_is_refused_with_what_to_do() {
        let dir = TempDir::new().unwrap();
        let refused = |path: &Path| Fleet::open(path).unwrap_err();
        let error = refused(dir.path());
        assert!(error.to_string().contains("there is no undercroft.toml in"));
        assert!(error.hint().unwrap().contains("undercroft init"));
        refused(&dir.path().join("nowhere"));
        fs::write(dir.path().join("undercroft.toml"), "[fleet]\nnam = 1\n").unwrap();
        match refused(dir.path()) {
            OpenError::Project(ProjectError::Inventory { diagnostics, .. }) => {
                assert!(diagnostics.iter().any(|finding| finding.place.line == 2));
            }
            other => panic!("{other}"),
        }
        // Whoever can change the repository can't bring a journal along.
        let dir = fleet();
        fs::create_dir(dir.path().join("elsewhere")).unwrap();
        let state = dir.path().join(".undercroft");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), state).unwrap();
        assert!(matches!(
            refused(dir.path()),
            OpenError::Project(ProjectError::State(_))
        ));
    }
}
