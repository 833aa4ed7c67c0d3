//! Prometheus' text format, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use std::fmt::{Display, Write as _};

/// What a family of numbers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberKind {
    /// It goes up and down.
    Gauge,
    /// It only goes up while the program runs.
    Counter,
    /// A sum and a count, under the family's name with `_sum` and `_count`.
    Summary,
}

impl NumberKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Summary => "summary",
        }
    }
}

/// Numbers as they are being written.
#[derive(Debug)]
pub struct Text {
    prefix: &'static str,
    out: String,
}

impl Text {
    /// Nothing yet. All names will begin with the prefix and an underscore.
    pub fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            out: String::new(),
        }
    }

    /// A family begins: its name, what it is, and what it says in a sentence.
    pub fn family(&mut self, name: &str, kind: NumberKind, help: &str) {
        let (prefix, kind) = (self.prefix, kind.as_str());
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String can't fail.
        let _ = writeln!(
            self.out,
            "# HELP {prefix}_{name} {help}\n# TYPE {prefix}_{name} {kind}"
        );
    }

    /// A number of the family that has begun last.
    pub fn number(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.out, "{}_{name}", self.prefix);
        for (n, (label, text)) in labels.iter().enumerate() {
            let _ = write!(
                self.out,
                "{}{label}=\"{}\"",
                if n == 0 { '{' } else { ',' },
                escaped(text)
            );
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// A family of one number.
    pub fn one(&mut self, name: &str, kind: NumberKind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.number(name, &[], value);
    }

    /// All that was written.
    pub fn finish(self) -> String {
        self.out
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Milliseconds as seconds.
pub fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut text = Text::new("cellar");
        text.one("up", NumberKind::Gauge, "Whether it\nis \\ there.", 1);
        text.family("bottles_total", NumberKind::Counter, "Bottles, by shelf.");
        for shelf in ["left", "the \"good\" one\\\n"] {
            text.number("bottles_total", &[("shelf", shelf), ("of", "wine")], 2);
        }
        text.family("wait_seconds", NumberKind::Summary, "How long.");
        text.number("wait_seconds_sum", &[], seconds(61_007));
        text.number("wait_seconds_count", &[], 3);
        assert_eq!(
            text.finish(),
            "# HELP cellar_up Whether it\\nis \\\\ there.\n\
             # TYPE cellar_up gauge\n\
             cellar_up 1\n\
             # HELP cellar_bottles_total Bottles, by shelf.\n\
             # TYPE cellar_bottles_total counter\n\
             cellar_bottles_total{shelf=\"left\",of=\"wine\"} 2\n\
             cellar_bottles_total{shelf=\"the \\\"good\\\" one\\\\\\n\",of=\"wine\"} 2\n\
             # HELP cellar_wait_seconds How long.\n\
             # TYPE cellar_wait_seconds summary\n\
             cellar_wait_seconds_sum 61.007\n\
             cellar_wait_seconds_count 3\n"
        );
    }
}
