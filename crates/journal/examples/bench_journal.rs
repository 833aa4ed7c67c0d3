//! Measures opening a real journal of at least that many entries, and folding it into all that a controller
//! knows when it begins, once, in this process, beside SQLite reading the same rows and doing nothing with
//! them; prints a line of JSON: `bench_journal INVENTORY ENTRIES`.
//!
//! The entries are those of rehearsed bring-ups of 1,000 machines, one after the other. What is told is the time on
//! the clock, as two threads understand what a third reads and folds; beside it, the time of all processors.

use std::{error::Error, ops::ControlFlow, time::Instant};

use serde_json::json;
use undercroft_engine::Resumption;
use undercroft_journal::{FleetJournal, JOURNAL_FILE};
use undercroft_model::{
    Entry, Record,
    inventory::{parse, scale_to},
    view::FleetView,
};
use undercroft_sim::{RehearseOptions, rehearse};

/// The machines of each bring-up.
const MACHINES: usize = 1_000;
/// The bytes behind a line's JSON in the simulated journal: a checksum and a mark.
const END_BYTES: usize = 9;

/// The command's own allocator: what is measured is what people run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, wanted] = arguments.as_slice() else {
        return Err("usage: bench_journal INVENTORY ENTRIES".into());
    };
    let wanted: u64 = wanted.parse()?;
    let inventory = parse(file, &std::fs::read(file)?);
    let inventory = scale_to(
        &inventory.inventory.ok_or("the inventory has errors")?,
        MACHINES,
    )?;
    let fleet = inventory.fleet.name.clone();
    let options = RehearseOptions {
        keep_journal: true,
        ..RehearseOptions::default()
    };
    let bytes = rehearse(&inventory, &options)?
        .journal
        .ok_or("no journal was kept")?;
    let mut records: Vec<(u64, Record)> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some((json, _)) = line.split_last_chunk::<END_BYTES>() {
            let entry: Entry = serde_json::from_slice(json)?;
            records.push((entry.wall_ms, entry.record));
        }
    }
    drop(bytes);
    let dir = tempfile::tempdir()?;
    let mut journal = FleetJournal::open(dir.path(), &fleet, "bench_journal")?;
    let mut entries = 1;
    while entries < wanted {
        let repeated = records.iter().skip(1).cloned();
        let (times, repeated): (Vec<u64>, Vec<Record>) = repeated.unzip();
        let wall_ms = times.last().copied().unwrap_or(0);
        entries += u64::try_from(journal.append_records(wall_ms, repeated)?.len())?;
    }
    drop((journal, records));
    let database = dir.path().join(JOURNAL_FILE);
    let megabytes = std::fs::metadata(&database)?.len() / 1_000_000;
    // So that neither is the first to read the file.
    let begun = Instant::now();
    plain(&database)?;
    let first_ms = ms_since(begun);
    let begun = Instant::now();
    plain(&database)?;
    let peer_ms = first_ms.min(ms_since(begun));
    let (begun, cpu_before_ms) = (Instant::now(), cpu_ms()?);
    let journal = FleetJournal::open(dir.path(), &fleet, "bench_journal")?;
    let mut view = FleetView::default();
    let mut resumption = Resumption::default();
    let mut folded = Ok(());
    journal.store().for_each_entry(0, |entry| {
        view.apply(&entry);
        folded = resumption.apply(&entry);
        if folded.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    folded?;
    let milliseconds = ms_since(begun);
    let cpu_ms = cpu_ms()? - cpu_before_ms;
    if journal.store().entries_read() != entries || view.unplaced != 0 {
        return Err("not every entry was read, or not each once".into());
    }
    let line = json!({
        "name": "open and fold",
        "entries": entries,
        "megabytes": megabytes,
        "ours_ms": milliseconds,
        "ours_cpu_ms": cpu_ms,
        "peer_ms": peer_ms,
        "ratio": milliseconds / peer_ms,
    });
    println!("{line}");
    Ok(())
}

/// SQLite alone: every column of every row.
fn plain(database: &std::path::Path) -> Result<usize, Box<dyn Error>> {
    let connection = rusqlite::Connection::open(database)?;
    let mut statement =
        connection.prepare("SELECT seq, wall_ms, record, chain FROM entries ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        row.get_ref(0)?.as_i64()?;
        row.get_ref(1)?.as_i64()?;
        bytes += row.get_ref(2)?.as_str()?.len() + row.get_ref(3)?.as_blob()?.len();
    }
    Ok(bytes)
}

fn ms_since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// The time that all threads of this process have had a processor, those that have ended too, in milliseconds:
/// `utime` and `stime` of `/proc/self/stat`, in hundredths of a second (proc(5)).
fn cpu_ms() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name, in parentheses; these are the 14th and the 15th.
    let (_, rest) = stat.rsplit_once(") ").ok_or("no stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let ticks = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    Ok(ticks.ok_or("no times")? * 10.0)
}
