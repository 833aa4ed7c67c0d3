//! Documents of rehearsals' journals: each is written, fits its schema, and is read as it was.

#[cfg(test)]
mod documents {
    use undercroft_fleet::documents::{
        EventLine, PlanDocument, ProgressLine, Status, SummaryLine, UpLine,
    };
    use undercroft_fleet::{RunProgress, Scope};
    use undercroft_model::{
        Entry, NodeName, Observation,
        document::{Document, DocumentError, Version, read, schema},
        inventory::{Inventory, parse},
        view::FleetView,
    };
    use undercroft_sim::{Faults, RehearseOptions, rehearse};

    const EXAMPLES: [&str; 3] = [
        include_str!("../../../examples/basement/undercroft.toml"),
        include_str!("../../../examples/rack/undercroft.toml"),
        include_str!("../../../examples/kubeadm/undercroft.toml"),
    ];

    fn inventory(text: &str) -> Inventory {
        parse("undercroft.toml", text.as_bytes()).inventory.unwrap()
    }

    fn journal(inventory: &Inventory, seed: u64) -> Vec<Entry> {
        let options = RehearseOptions {
            seed,
            faults: Faults::Many,
            keep_journal: true,
            ..RehearseOptions::default()
        };
        let journal = rehearse(inventory, &options).unwrap().journal.unwrap();
        // Each line has its checksum and a mark behind the entry.
        let lines = std::str::from_utf8(&journal).unwrap().lines();
        let lines = lines.map(|line| line.split_at(line.len() - 9).0);
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Looks at documents by their schema, reads them again, and sees them refused under another version.
    struct Looks(jsonschema::Validator);

    impl Looks {
        fn new<T: Document>() -> Self {
            let schema = schema::<T>();
            Self(jsonschema::draft202012::new(schema.as_value()).unwrap())
        }

        fn look<T: Document + PartialEq + std::fmt::Debug>(&self, document: &T) {
            let text = serde_json::to_string(document).unwrap();
            let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
            if let Err(error) = self.0.validate(&value) {
                panic!(
                    "{}: {error} at {}: {value:#}",
                    T::NAME,
                    error.instance_path()
                );
            }
            assert_eq!(&read::<T>(&text).unwrap(), document);
            value["version"] = 7_u32.into();
            assert!(!self.0.is_valid(&value), "{} of another version", T::NAME);
            match read::<T>(&value.to_string()).unwrap_err() {
                DocumentError::UnknownVersion { found, known, .. } => {
                    assert_eq!((found, known), (7, T::VERSION));
                }
                other => panic!("{other}"),
            }
            assert!(serde_json::from_value::<T>(value).is_err());
        }
    }

    #[test]
    fn what_a_journal_says_is_read_as_it_was_written() {
        let events = Looks::new::<EventLine>();
        let lines = Looks::new::<UpLine>();
        let summaries = Looks::new::<SummaryLine>();
        let statuses = Looks::new::<Status>();
        for text in EXAMPLES {
            let inventory = inventory(text);
            for seed in 1..=3 {
                let mut view = FleetView::default();
                let entries = journal(&inventory, seed);
                assert!(entries.len() > 20);
                for (at, entry) in entries.into_iter().enumerate() {
                    view.apply(&entry);
                    let line = EventLine { entry };
                    events.look(&line);
                    if at % 101 == 0 {
                        lines.look(&UpLine::Event(line));
                        let status = Status::of(Some(&inventory), &view, None, None, Vec::new());
                        statuses.look(&status);
                        let summary = SummaryLine::of(view.clone(), None);
                        summaries.look(&summary);
                        lines.look(&UpLine::Summary(Box::new(summary)));
                    }
                }
                statuses.look(&Status::of(None, &view, None, None, Vec::new()));
                let end = view.run.as_ref().and_then(|run| run.end);
                summaries.look(&SummaryLine::of(view, end));
            }
        }
    }

    #[test]
    fn plans_are_read_as_they_were_written() {
        let looks = Looks::new::<PlanDocument>();
        for text in EXAMPLES {
            let inventory = inventory(text);
            let entries = journal(&inventory, 1);
            let view = FleetView::fold(&entries);
            let scope = Scope {
                replan: true,
                ..Scope::default()
            };
            let mut known = Observation::default();
            for built in [false, true] {
                if built {
                    // As the rehearsal's plan had it.
                    for (name, node) in view.plan().into_iter().flat_map(|plan| &plan.nodes) {
                        known
                            .targets
                            .extend(node.target.clone().map(|t| (name.clone(), Ok(t))));
                        known
                            .host_keys
                            .insert(name.clone(), "SHA256:key".to_owned());
                    }
                }
                let next =
                    undercroft_planner::next(&FleetView::default(), &known, &inventory, &scope);
                looks.look(&PlanDocument::of(next.unwrap()).unwrap());
            }
        }
    }

    #[test]
    fn what_a_run_tells_is_read_as_it_was_written() {
        let looks = Looks::new::<ProgressLine>();
        let lines = Looks::new::<UpLine>();
        let node = NodeName::new("gpu-01").unwrap();
        for progress in [
            RunProgress::Bytes {
                node: node.clone(),
                phase: "copy".into(),
                done_bytes: 1,
                total_bytes: None,
                bytes_per_s: 3,
                left_s: Some(4),
            },
            RunProgress::Line {
                node: None,
                text: "a \"line\"".to_owned(),
            },
            RunProgress::WaitsForApproval {
                node,
                fingerprint: "SHA256:key".to_owned(),
            },
        ] {
            let version = Version;
            let line = ProgressLine { version, progress };
            looks.look(&line);
            lines.look(&UpLine::Progress(line));
        }
    }
}
