//! How figures and tables are written for people.

use jiff::Timestamp;
use unicode_width::UnicodeWidthStr;

pub(crate) use undercroft_model::words::{bytes, count, duration, list};

/// How long ago something was: `just now`, `12 s ago`, `3 days ago`.
pub(crate) fn ago(ms: u64) -> String {
    const DAY_MS: u64 = 24 * 3_600_000;
    match ms {
        0..2_000 => "just now".to_owned(),
        2_000..60_000 => format!("{} s ago", ms / 1000),
        60_000..3_600_000 => format!("{} min ago", ms / 60_000),
        3_600_000..DAY_MS => format!("{} h ago", ms / 3_600_000),
        _ => format!(
            "{} ago",
            count(usize::try_from(ms / DAY_MS).unwrap_or(usize::MAX), "day")
        ),
    }
}

/// A moment as date and time in UTC: `2026-01-31 23:59:59`. What lies after the year 9999, which only a journal that is
/// damaged has, stays a number.
pub(crate) fn clock(wall_ms: u64) -> String {
    let moment = i64::try_from(wall_ms).map(Timestamp::from_millisecond);
    match moment {
        Ok(Ok(moment)) => moment.strftime("%F %T").to_string(),
        _ => format!("{wall_ms} ms since 1970"),
    }
}

/// Text that came from outside, made fit for a terminal: see [`undercroft_model::text`].
pub(crate) fn plain(text: &str) -> String {
    undercroft_model::text::visible(text).replace('\t', " ")
}

/// [`plain`], in one line.
pub(crate) fn plain_line(text: &str) -> String {
    undercroft_model::text::visible_line(text)
}

/// All that the command's own styles write (`crate::style`).
const OURS: [&str; 7] = [
    "\u{1b}[0m",
    "\u{1b}[1m",
    "\u{1b}[2m",
    "\u{1b}[31m",
    "\u{1b}[32m",
    "\u{1b}[33m",
    "\u{1b}[36m",
];

/// What goes to a screen: a last gate behind all that is said, which lets through nothing that isn't seen
/// but line breaks and the command's own colours.
pub(crate) fn screen(text: &str) -> String {
    gate(text, plain)
}

fn gate(text: &str, between: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        let (before, from) = rest.split_at(at);
        out.push_str(&between(before));
        match OURS
            .iter()
            .find_map(|ours| from.strip_prefix(*ours).map(|after| (*ours, after)))
        {
            Some((ours, after)) => {
                out.push_str(ours);
                rest = after;
            }
            None => {
                out.push_str("\\u{1b}");
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(&between(rest));
    out
}

/// Rows in columns that line up. The last column isn't padded.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    /// A table with a head.
    pub(crate) fn new(head: &[&str]) -> Self {
        let head = head
            .iter()
            .map(|h| crate::style::paint(crate::style::BOLD, h))
            .collect();
        Self {
            rows: vec![head],
            indent: 0,
        }
    }

    /// A table without a head, set in by some blanks.
    pub(crate) fn plain(indent: usize) -> Self {
        Self {
            rows: Vec::new(),
            indent,
        }
    }

    /// Adds a row; cells may carry colours.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells = cells.into_iter().map(Into::<String>::into);
        self.rows
            .push(cells.map(|cell| gate(&cell, plain_line)).collect());
    }

    /// The table, each row ending with a line break.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (cell, width) in row.iter().zip(&mut widths) {
                *width = visible_width(cell).max(*width);
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line.push_str(cell);
                if i + 1 < row.len() {
                    line.push_str(&" ".repeat(width.saturating_sub(visible_width(cell)) + 2));
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// The columns of a terminal that a text with colours takes.
fn visible_width(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_in_utc() {
        assert_eq!(clock(0), "1970-01-01 00:00:00");
        assert_eq!(clock(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(clock(1_767_225_599_999), "2025-12-31 23:59:59");
        assert_eq!(clock(4_107_542_399_999), "2100-02-28 23:59:59");
        assert_eq!(clock(4_107_542_400_000), "2100-03-01 00:00:00");
        assert_eq!(clock(253_402_207_200_000), "9999-12-30 22:00:00");
        assert_eq!(clock(u64::MAX), "18446744073709551615 ms since 1970");
        assert_eq!(
            [0, 5_000, 120_000, 7_200_000, 90_000_000]
                .map(ago)
                .join(" | "),
            "just now | 5 s ago | 2 min ago | 2 h ago | 1 day ago"
        );
    }

    #[test]
    fn a_machine_cannot_steer_the_terminal() {
        assert_eq!(
            plain("a\u{1b}[2Jb\u{202e}c\nd"),
            "a\\u{1b}[2Jb\\u{202e}c\nd"
        );
    }

    #[test]
    fn the_last_gate_lets_through_our_colours_and_nothing_else() {
        use crate::style::{BAD, BOLD, DIM, GOOD, HINT, WARN, paint};
        let ours: String = [BAD, BOLD, DIM, GOOD, HINT, WARN]
            .into_iter()
            .map(|style| paint(style, "text\n"))
            .collect();
        assert_eq!(screen(&ours), ours);
        for (theirs, shown) in [
            ("\u{1b}[8mhidden", "\\u{1b}[8mhidden"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{1b}", "\\u{1b}"),
            ("\u{9b}2J\u{2066}", "\\u{9b}2J\\u{2066}"),
            ("é\u{1b}é", "é\\u{1b}é"),
        ] {
            assert_eq!(screen(theirs), shown);
        }
        let mut table = Table::plain(0);
        table.row(["a\nb", "c\u{1b}[1A"]);
        assert_eq!(table.render(), "a\\u{a}b  c\\u{1b}[1A\n");
    }

    #[test]
    fn columns_line_up_whatever_the_colours() {
        let mut table = Table::new(&["NODE", "STATE"]);
        table.row([
            crate::style::paint(crate::style::GOOD, "gpu-01"),
            "up".to_owned(),
        ]);
        table.row(["é", "unknown"]);
        let text = anstream::adapter::strip_str(&table.render()).to_string();
        insta::assert_snapshot!(text, @r"
        NODE    STATE
        gpu-01  up
        é       unknown
        ");
    }
}
