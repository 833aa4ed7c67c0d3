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
    }
}
