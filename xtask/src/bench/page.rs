//! docs/performance.md: the tables between their marks are written here, the prose around them by
//! people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::run::{Failed, repo_root};

/// Puts a table between the marks of that name.
pub(crate) fn replace(name: &str, table: &str) -> Result<(), Failed> {
    let path = repo_root().join("docs/performance.md");
    let failed = |why: String| Failed::new("bench", format!("{}: {why}", path.display()));
    let page = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
    let page = replaced(&page, name, table)
        .ok_or_else(|| failed(format!("the marks of {name:?} are missing")))?;
    std::fs::write(&path, page).map_err(|e| failed(e.to_string()))
}

/// What a row is marked with that was measured in an earlier run, in its first cell.
const EARLIER: &str = " †";
/// What the mark means, below such a table.
const EARLIER_MEANS: &str =
    "\n† measured in an earlier run: what it compares with wasn't there in the latest.\n";

/// Puts a table between the marks of that name, and keeps what it has no figures for from the one that is
/// there. Gives the rows that were kept.
pub(crate) fn update(name: &str, table: &str, key_cells: usize) -> Result<Vec<String>, Failed> {
    let path = repo_root().join("docs/performance.md");
    let page = std::fs::read_to_string(&path)
        .map_err(|e| Failed::new("bench", format!("{}: {e}", path.display())))?;
    let old = between(&page, name).unwrap_or_default();
    let (merged, kept) = merge(old, table, key_cells);
    replace(name, &merged)?;
    Ok(kept)
}

fn between<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let begin = format!("<!-- begin {name} -->\n");
    let (_, rest) = page.split_once(&begin)?;
    Some(rest.split_once(&format!("<!-- end {name} -->"))?.0)
}

/// The cells of a row, without the mark.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_matches('|');
    let mut cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
    if let Some(first) = cells.first_mut()
        && let Some(bare) = first.strip_suffix(EARLIER)
    {
        *first = bare.to_owned();
    }
    cells
}

/// The new table, with the old one's rows where it has none, and where it has a dash for a figure. Rows
/// stand in the old one's order, new ones at the end.
fn merge(old: &str, new: &str, key_cells: usize) -> (String, Vec<String>) {
    let rows = |table: &str| -> Vec<Vec<String>> {
        let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
        rows.map(cells).collect()
    };
    let key = |row: &[String]| -> Vec<String> { row.iter().take(key_cells).cloned().collect() };
    let (old_rows, mut new_rows) = (rows(old), rows(new));
    let mut out: String = new
        .lines()
        .filter(|line| line.starts_with('|'))
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    let mut kept = Vec::new();
    for mut row in old_rows {
        let here = new_rows.iter().position(|new| key(new) == key(&row));
        let measured = here.map(|at| new_rows.remove(at));
        let lacks = |new: &Vec<String>| {
            let pairs = new.iter().zip(&row);
            pairs.into_iter().any(|(is, was)| is == "–" && was != "–")
        };
        match measured {
            Some(new) if !lacks(&new) => out.push_str(&format!("| {} |\n", new.join(" | "))),
            _ => {
                kept.push(key(&row).join(", "));
                if let Some(first) = row.first_mut() {
                    first.push_str(EARLIER);
                }
                out.push_str(&format!("| {} |\n", row.join(" | ")));
            }
        }
    }
    for row in new_rows {
        out.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    if !kept.is_empty() {
        out.push_str(EARLIER_MEANS);
    }
    (out, kept)
}

fn replaced(page: &str, name: &str, table: &str) -> Option<String> {
    let begin = format!("<!-- begin {name} -->\n");
    let end = format!("<!-- end {name} -->");
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{table}{end}{after}"))
}

fn number(line: &Value, key: &str) -> f64 {
    line.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The table of scale: time, and time and memory for each machine.
pub(crate) fn scale(lines: &[Value]) -> String {
    let mut table = String::from(
        "| what | machines | time | time a machine | memory a machine |\n\
         | --- | ---: | ---: | ---: | ---: |\n",
    );
    for line in lines {
        let nodes = number(line, "nodes").max(1.0);
        let ms = number(line, "milliseconds");
        let _ = writeln!(
            table,
            "| {} | {} | {} | {:.1} µs | {:.1} KiB |",
            text(line, "name"),
            nodes,
            milliseconds(ms),
            ms * 1e3 / nodes,
            number(line, "added_kib") / nodes,
        );
    }
    table
}

/// The table of seeds.
pub(crate) fn seeds(lines: &[Value]) -> String {
    let mut table = String::from(
        "| seeds | machines | time | time a seed | records a seed |\n\
         | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for line in lines {
        let seeds = number(line, "count").max(1.0);
        let ms = number(line, "milliseconds");
        let records = line
            .get("detail")
            .map_or(0.0, |detail| number(detail, "records"));
        let _ = writeln!(
            table,
            "| {seeds} | {} | {} | {:.1} ms | {:.0} |",
            number(line, "nodes"),
            milliseconds(ms),
            ms / seeds,
            records / seeds,
        );
    }
    table
}

/// The table of the journal, beside SQLite.
pub(crate) fn journal(lines: &[Value]) -> String {
    let mut table = String::from(
        "| what | entries | size | ours | all processors | SQLite alone | ratio |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for line in lines {
        let _ = writeln!(
            table,
            "| {} | {} | {} MB | {} | {} | {} | {:.1} |",
            text(line, "name"),
            number(line, "entries"),
            number(line, "megabytes"),
            milliseconds(number(line, "ours_ms")),
            milliseconds(number(line, "ours_cpu_ms")),
            milliseconds(number(line, "peer_ms")),
            number(line, "ratio"),
        );
    }
    table
}

fn milliseconds(ms: f64) -> String {
    if ms < 1000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

/// The table of ratios against peers.
pub(crate) fn netboot(lines: &[Value]) -> String {
    let mut table = String::from("| what | ours | peer | ratio |\n| --- | ---: | ---: | ---: |\n");
    for line in lines {
        let unit = text(line, "unit");
        let ratio = line
            .get("ratio")
            .and_then(Value::as_f64)
            .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        let peer = line
            .get("peer")
            .and_then(Value::as_f64)
            .map_or_else(|| "–".to_owned(), |peer| format!("{peer:.0} {unit}"));
        let _ = writeln!(
            table,
            "| {} | {:.0} {unit} | {peer} | {ratio} |",
            text(line, "name"),
            number(line, "ours"),
        );
    }
    table
}

/// The table of rendering.
pub(crate) fn render(lines: &[Value]) -> String {
    let mut table = String::from(
        "| machines | apps | files | ours | kubectl kustomize | times faster |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for line in lines {
        let optional = |key: &str, show: fn(f64) -> String| {
            let value = line.get(key).and_then(Value::as_f64);
            value.map_or_else(|| "–".to_owned(), show)
        };
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} |",
            number(line, "nodes"),
            number(line, "apps"),
            number(line, "files"),
            milliseconds(number(line, "ours_ms")),
            optional("peer_ms", milliseconds),
            optional("ratio", |ratio| format!("{ratio:.0}")),
        );
    }
    table
}

/// The table of the rack's times.
pub(crate) fn rack(lines: &[Value]) -> String {
    let mut table = String::from(
        "| machines | power-on to proved up | network boot | copy | install | reboot to proof | \
         ours |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for line in lines {
        let seconds = |key: &str| format!("{:.1} s", number(line, key));
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {:.1} % |",
            number(line, "machines"),
            seconds("total_s"),
            seconds("network_boot_s"),
            seconds("copy_s"),
            seconds("install_s"),
            seconds("return_s"),
            number(line, "ours_percent"),
        );
    }
    table
}

/// What this machine is.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |content: &str, key: &str| {
        content
            .lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split_once(':'))
            .map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cpu = value(&read("/proc/cpuinfo"), "model name");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let gib = memory.trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / f64::from(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    format!("{cpu}, {cores} cores, {gib:.0} GiB of memory, Linux {kernel}.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_replaces_the_one_before_and_nothing_else() {
        let page =
            "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n<!-- begin y -->\n<!-- end y -->\n";
        let once = replaced(page, "x", "| new |\n").unwrap();
        assert_eq!(
            once,
            "a\n<!-- begin x -->\n| new |\n<!-- end x -->\nb\n<!-- begin y -->\n<!-- end y -->\n"
        );
        assert_eq!(replaced(&once, "x", "| new |\n").unwrap(), once);
        assert_eq!(replaced(page, "z", ""), None);
        assert_eq!(between(page, "x"), Some("old\n"));
        assert_eq!(between(page, "z"), None);
    }

    const OLD: &str = "| what | ours | peer |\n| --- | ---: | ---: |\n| http | 8 | 5 |\n| tftp | 2 | 1 |\n| own | 1 | – |\n";

    #[test]
    fn a_peer_that_cannot_be_had_leaves_its_old_row_and_it_is_said() {
        let new = "| what | ours | peer |\n| --- | ---: | ---: |\n| tftp | 3 | 1 |\n| own | 2 | – |\n| more | 1 | 1 |\n";
        let (merged, kept) = merge(OLD, new, 1);
        assert_eq!(
            merged,
            format!(
                "| what | ours | peer |\n| --- | ---: | ---: |\n| http † | 8 | 5 |\n| tftp | 3 | 1 |\n| own | 2 | – |\n| more | 1 | 1 |\n{EARLIER_MEANS}"
            )
        );
        assert_eq!(kept, ["http"]);
        // Again without it: marked once.
        assert_eq!(merge(&merged, new, 1), (merged.clone(), kept));
        // And with it again: nothing is left of the mark.
        let with = OLD.replace("| http | 8 | 5 |", "| http | 9 | 6 |");
        let (merged, kept) = merge(&merged, &with, 1);
        assert!(merged.contains("| http | 9 | 6 |") && merged.contains("| more † | 1 | 1 |"));
        assert_eq!(kept, ["more"]);
    }

    #[test]
    fn a_row_whose_peer_is_missing_is_the_old_one() {
        let old = "| machines | apps | ours | peer |\n| ---: | ---: | ---: | ---: |\n| 9 | 0 | 1 ms | 90 ms |\n| 9 | 5 | 2 ms | – |\n";
        let new = "| machines | apps | ours | peer |\n| ---: | ---: | ---: | ---: |\n| 9 | 0 | 3 ms | – |\n| 9 | 5 | 4 ms | – |\n";
        let (merged, kept) = merge(old, new, 2);
        assert!(merged.contains("| 9 † | 0 | 1 ms | 90 ms |"), "{merged}");
        assert!(merged.contains("| 9 | 5 | 4 ms | – |"), "{merged}");
        assert_eq!(kept, ["9, 0"]);
    }

    #[test]
    fn the_first_table_is_taken_as_it_is() {
        assert_eq!(merge("", OLD, 1), (OLD.to_owned(), Vec::new()));
        assert_eq!(merge(OLD, OLD, 1), (OLD.to_owned(), Vec::new()));
    }
}
