//! From submission to record: small jobs, one after the other.

use std::{
    fs::File,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use undercroft_lend::{
    JobId,
    job::{Limits, Runtime},
};
use undercroft_lending::submit::{JobFile, Made};
use undercroft_sandbox::{
    Bounds, DiskBound, FileDigest, JobSpec, JobWork, Program, ProgramKind, Tools, TotalBounds, Yard,
};

use crate::{
    Outcome, Times,
    site::{Site, WITHIN},
    tell,
};

/// How long an answer of NATS is waited for, in milliseconds.
const ANSWER_MS_MAX: u64 = 5_000;

/// A moment of the clock that all processes share, in nanoseconds.
fn ns(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64() * 1e9)
}

/// Milliseconds from one moment to another.
fn ms(from: f64, to: f64) -> f64 {
    (to - from) / 1e6
}

/// Measures all of it, and prints a line each.
pub(crate) async fn measure(site: &mut Site, jobs: usize) -> Outcome<()> {
    bare(site, jobs).await?;
    // The first brings the program to the PC, which keeps it.
    ours(site, "first", 1).await?;
    let (started, recorded) = ours(site, "small", jobs).await?;
    line("ours", &Times::new(started), &Times::new(recorded));
    if site.node.is_some() {
        node(site, "first", 1).await?;
        let (started, recorded) = node(site, "small", jobs).await?;
        line("node", &Times::new(started), &Times::new(recorded));
    }
    start(site, jobs).await
}

fn line(what: &str, started: &Times, recorded: &Times) {
    tell(json!({
        "name": "dispatch", "what": what,
        "started_p50_ms": started.at(50), "started_p99_ms": started.at(99),
        "recorded_p50_ms": recorded.at(50), "recorded_p99_ms": recorded.at(99),
    }));
}

/// A request over NATS, and its answer from another connection.
async fn bare(site: &Site, count: usize) -> Outcome<()> {
    let mut took = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let asked = site
            .bus
            .request("bench.echo".to_owned(), "{}".into(), ANSWER_MS_MAX);
        asked.await?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let took = Times::new(took);
    tell(
        json!({ "name": "dispatch", "what": "bare", "recorded_p50_ms": took.at(50), "recorded_p99_ms": took.at(99) }),
    );
    Ok(())
}

type Taken = (Vec<f64>, Vec<f64>);

/// A job for the PC.
pub(crate) fn job(site: &Site, id: &str, arguments: &[&str]) -> Outcome<JobFile> {
    Ok(JobFile {
        id: id.parse::<JobId>()?,
        tenant: "research".parse()?,
        runtime: Runtime::Process,
        artefact: site.job.clone(),
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        inputs: Default::default(),
        limits: Limits {
            cpu_percent: 100,
            memory_mb: 256,
            disk_mb: 16,
            wall_s: 300,
        },
        sensitivity: Some("public".to_owned()),
        class: None,
        needs: Default::default(),
        attempts: None,
        loss_s: None,
        rerun_percent: None,
    })
}

async fn ours(site: &mut Site, name: &str, count: usize) -> Outcome<Taken> {
    let (mut started, mut recorded) = (Vec::new(), Vec::new());
    for n in 0..count {
        let id = format!("{name}-{n}");
        let file = job(site, &id, &["now", "out"])?;
        let begun = ns(SystemTime::now());
        site.submitting
            .submit(&file, Path::new("/"), |_| None, &mut |_| ())
            .await?;
        let is_done = |line: &serde_json::Value| {
            let done = line.get("event").and_then(|event| event.get("done"));
            done.and_then(|done| done.get("job"))
                .is_some_and(|job| *job == *id)
        };
        let done = async {
            while let Some((at, line)) = site.said.recv().await {
                if is_done(&line) {
                    return Some(at);
                }
            }
            None
        };
        let done = tokio::time::timeout(WITHIN, done).await;
        let at = done.map_err(|_| format!("{id} wasn't done in time"))?;
        let at = at.ok_or("the server has ended")?;
        let mut output = Vec::new();
        site.submitting
            .fetch(&file.id, Made::Output, &mut output, Path::new("-"))
            .await?;
        let ran: f64 = String::from_utf8(output)?.trim().parse()?;
        started.push(ms(begun, ran));
        recorded.push(ms(begun, ns(at)));
    }
    Ok((started, recorded))
}

async fn node(site: &mut Site, name: &str, count: usize) -> Outcome<Taken> {
    let (mut started, mut recorded) = (Vec::new(), Vec::new());
    for n in 0..count {
        let id = format!("{name}-{n}");
        let submission = json!({ "job": id, "limits": { "wall_s": 300 }, "tenant": "research" });
        let begun = ns(SystemTime::now());
        let asked = site.bus.request(
            "bench.submit".to_owned(),
            submission.to_string().into(),
            ANSWER_MS_MAX,
        );
        asked.await?;
        let done = tokio::time::timeout(WITHIN, site.recorded.recv()).await;
        let done = done.map_err(|_| format!("{id} wasn't done in time"))?;
        let done = done.ok_or("the coordinator has ended")?;
        if done.job != id {
            return Err(format!("{} was done in place of {id}", done.job).into());
        }
        let ran: f64 = done.output.trim().parse()?;
        started.push(ms(begun, ran));
        recorded.push(ms(begun, ns(done.at)));
    }
    Ok((started, recorded))
}

/// What the sandbox alone takes, from the wish to start a program to its first instruction; beside a bare start.
async fn start(site: &Site, count: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let tools = Tools::find(
        None,
        Some(&site.undercroft.with_file_name("undercroft-job")),
    )
    .await?;
    let total = TotalBounds {
        cpu_percent: 100,
        memory_mb: 512,
        pids: 512,
    };
    let (yard, _) = Yard::open(&folder.path().join("yard"), tools, &total).await?;
    let (digest, _) = FileDigest::of(File::open(&site.job)?, u64::MAX)?;
    let (mut confined, mut bare) = (Vec::new(), Vec::new());
    for n in 0..count {
        let spec = JobSpec {
            name: format!("start-{n}"),
            work: JobWork::Program(Program {
                file: site.job.clone(),
                digest,
                kind: ProgramKind::Native,
            }),
            arguments: vec!["now".to_owned(), "out".to_owned()],
            inputs: Vec::new(),
            bounds: bounds(),
            landlock_abi_min: 1,
        };
        let begun = ns(SystemTime::now());
        let running = yard.start(spec).await?;
        running.wait().await;
        let taken = running.take_output().await?.ok_or("it has said nothing")?;
        let ran: f64 = std::io::read_to_string(taken.file)?.trim().parse()?;
        confined.push(ms(begun, ran));
        running.wipe().await?;
        let begun = ns(SystemTime::now());
        let output = Command::new(&site.job).arg("now").output()?;
        let ran: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        bare.push(ms(begun, ran));
    }
    for (what, times) in [("sandbox", confined), ("bare", bare)] {
        let times = Times::new(times);
        tell(
            json!({ "name": "start", "what": what, "p50_ms": times.at(50), "p99_ms": times.at(99) }),
        );
    }
    Ok(())
}

fn bounds() -> Bounds {
    Bounds {
        cpu_percent: 100,
        memory_mb: 256,
        pids: 512,
        open_files: 1024,
        log_bytes: 1 << 20,
        output_bytes: 1 << 20,
        wall: Duration::from_secs(60),
        disk: DiskBound::Watched {
            bytes: 16 << 20,
            files: 1000,
            free_bytes_min: 0,
        },
    }
}
