//! What happened last, for a person who looks into a seed.

use std::collections::VecDeque;

/// Lines that a trace keeps; older ones go.
pub const TRACE_LINES_MAX: usize = 400;

/// The last events of a run, one line each. It costs nothing while it is off: a seed that fails
/// is run again with it on.
#[derive(Debug, Default)]
pub struct Trace {
    on: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// An empty trace, which is kept or isn't.
    pub fn new(on: bool) -> Self {
        Self {
            on,
            lines: VecDeque::new(),
        }
    }

    /// Adds a line.
    pub fn note(&mut self, at_ms: u64, who: &str, what: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        if self.lines.len() == TRACE_LINES_MAX {
            self.lines.pop_front();
        }
        let (s, ms) = (at_ms / 1000, at_ms % 1000);
        self.lines
            .push_back(format!("{s:>7}.{ms:03}  {who:<12} {}", what()));
    }

    /// The lines, oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
