//! Any lines of JSON are entries of a journal or none; whatever entries there are can be folded,
//! and an engine goes on with them or says why not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_engine::{Engine, Event};
use undercroft_model::{Entry, Now, view::FleetView};

fuzz_target!(|bytes: &[u8]| {
    let entries: Vec<Entry> = bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let view = FleetView::fold(&entries);
    assert!(view.nodes.values().all(|node| node.steps_done <= node.steps));
    if let Ok(mut engine) = Engine::resume(&entries) {
        engine.step(Now::default(), Event::Begin);
        assert_eq!(engine.faults(), []);
    }
});
