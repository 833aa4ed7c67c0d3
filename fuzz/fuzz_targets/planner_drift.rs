//! Any bytes as a machine's answer to a look at what has drifted: read or refused, bounded, and nothing of it steers
//! a terminal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_model::text::is_unseen;
use undercroft_planner::drift::machine_answer;

fuzz_target!(|text: &str| {
    // Half of all answers have the frame, so that what is within is read.
    let framed = format!("drift\t1\n{text}\nend\t\n");
    for answer in [text, &framed] {
        let Ok(look) = machine_answer(answer) else {
            continue;
        };
        let mut texts = vec![look.boot_id];
        texts.extend(look.current);
        texts.extend(look.failed_units.unwrap_or_default());
        let keys = look.keys.unwrap_or_default();
        for key in keys.authorized {
            texts.extend([key.user, key.file, key.fingerprint, key.comment]);
        }
        if let Some(Ok(report)) = look.health {
            texts.extend(report.checks.into_iter().flat_map(|c| [c.name, c.output]));
        }
        for text in texts {
            assert!(text.len() < 400 && !text.chars().any(is_unseen), "{text:?}");
        }
    }
});
