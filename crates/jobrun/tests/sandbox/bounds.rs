//! Bombs, each held by its bound.

use std::time::{Duration, Instant};

use undercroft_sandbox::{DiskBound, JobEnd, JobSpec, KillReason, SandboxError};

use crate::support::Site;

const MIB: u64 = 1024 * 1024;

/// Runs a job to its end; how, and what it wrote.
async fn run(site: &Site, spec: JobSpec) -> (JobEnd, String) {
    let running = site.yard.start(spec).await.unwrap();
    let end = running.wait().await;
    let log = running.log_tail();
    println!("{}: {end:?} {:?}", running.name(), running.usage());
    running.wipe().await.unwrap();
    (end, log)
}

fn killed(reason: KillReason) -> JobEnd {
    JobEnd::Killed { reason }
}

#[tokio::test]
async fn processes_are_bounded() {
    let Some(site) = Site::open().await else {
        return;
    };
    let (end, log) = run(&site, site.spec("fork", &["fork"])).await;
    assert_eq!(end, JobEnd::Exited { code: 0 });
    let made: u32 = log.split_once(' ').unwrap().0.parse().unwrap();
    assert!((40..64).contains(&made), "{log}");
    assert!(log.contains("Resource temporarily unavailable"), "{log}");
}

#[tokio::test]
async fn memory_is_bounded() {
    let Some(site) = Site::open().await else {
        return;
    };
    let mut spec = site.spec("memory", &["memory"]);
    spec.bounds.memory_mb = 64;
    let running = site.yard.start(spec).await.unwrap();
    assert_eq!(
        running.wait().await,
        JobEnd::OutOfMemory,
        "{}",
        running.log_tail()
    );
    let peak = running.usage().memory_peak_bytes;
    assert!(peak.is_none_or(|peak| peak <= 64 * MIB), "{peak:?}");
}

#[tokio::test]
async fn open_files_are_bounded() {
    let Some(site) = Site::open().await else {
        return;
    };
    let (_, log) = run(&site, site.spec("files", &["files"])).await;
    assert_eq!(log.trim(), "64 files, then: Too many open files");
}

#[tokio::test]
async fn a_log_without_end_is_cut() {
    let Some(site) = Site::open().await else {
        return;
    };
    let spec = site.spec("log", &["log"]);
    let bound = spec.bounds.log_bytes;
    let running = site.yard.start(spec).await.unwrap();
    assert_eq!(running.wait().await, killed(KillReason::Log));
    // What was read before the bound was seen to be passed is one read more at most.
    assert!(
        running.usage().log_bytes <= bound + 64 * 1024,
        "{:?}",
        running.usage()
    );
    assert!(running.log_tail().len() <= 64 * 1024);
}

#[tokio::test]
async fn time_is_bounded_and_frozen_time_is_not_counted() {
    let Some(site) = Site::open().await else {
        return;
    };
    let mut spec = site.spec("spin", &["spin"]);
    spec.bounds.wall = Duration::from_millis(700);
    let start = Instant::now();
    let running = site.yard.start(spec).await.unwrap();
    running.freeze().await.unwrap();
    let frozen = running.usage();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let later = running.usage();
    assert_eq!(
        (later.cpu_ms, later.wall_ms),
        (frozen.cpu_ms, frozen.wall_ms)
    );
    assert_eq!(running.end(), None);
    running.thaw().unwrap();
    assert_eq!(running.wait().await, killed(KillReason::Wall));
    assert!(start.elapsed() >= Duration::from_millis(2200));
    assert!(running.usage().cpu_ms > 0);
}

#[tokio::test]
async fn a_watched_disk_is_bounded() {
    let Some(site) = Site::open().await else {
        return;
    };
    let disk = |bytes, files| DiskBound::Watched {
        bytes,
        files,
        free_bytes_min: 0,
    };
    for (how, words) in [
        ("bytes", "its files have"),
        ("unnamed", "its files have"),
        ("inodes", "more than 500 files"),
        ("headless", "its files have"),
        // Root looks into anything.
        (
            "closed",
            if rustix::process::geteuid().is_root() {
                "its files have"
            } else {
                "can't be looked at"
            },
        ),
        ("hidden", "can't be looked into"),
    ] {
        if how == "hidden" && rustix::process::geteuid().is_root() {
            continue;
        }
        let mut spec = site.spec(how, &["disk", how]);
        spec.bounds.disk = disk(16 * MIB, 500);
        let (end, log) = run(&site, spec).await;
        let JobEnd::Killed {
            reason: KillReason::Disk { why },
        } = end
        else {
            panic!("{how}: {end:?} {log}");
        };
        assert!(why.contains(words), "{why}");
    }
    let mut spec = site.spec("file", &["disk", "file"]);
    spec.bounds.disk = disk(4 * MIB, 500);
    // No file grows beyond the bound, looked at or not: the signal for that is SIGXFSZ.
    assert_eq!(run(&site, spec).await.0, JobEnd::Exited { code: 128 + 25 });
}

#[tokio::test]
async fn a_job_that_is_not_to_begin_any_more_is_gone_at_once() {
    let Some(site) = Site::open().await else {
        return;
    };
    // More than can be read in the time that follows: whoever submits chooses how much, and how slowly.
    let mut input = site.input("text", "");
    let file = std::fs::File::options()
        .write(true)
        .open(&input.file)
        .unwrap();
    file.set_len(1 << 40).unwrap();
    input.digest = Some(site.input("other", "other").digest.unwrap());
    let mut spec = site.spec("late", &["spin"]);
    spec.inputs = vec![input];
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let folder = site.job_folder("late");
    let starting = site.yard.start_until(spec, async { drop(stopped.await) });
    let stopping = async {
        while !folder.exists() {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        stop.send(()).unwrap();
        start
    };
    let (started, start) = tokio::join!(starting, stopping);
    let why = started.unwrap_err();
    assert!(matches!(why, SandboxError::Stopped), "{why}");
    println!("gone after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_frozen_job_s_disk_is_its_owner_s() {
    let Some(site) = Site::open().await else {
        return;
    };
    let mut spec = site.spec("frozen", &["spin"]);
    spec.bounds.disk = DiskBound::Watched {
        bytes: MIB,
        files: 10,
        free_bytes_min: 0,
    };
    let running = site.yard.start(spec).await.unwrap();
    running.freeze().await.unwrap();
    // A look that had begun before is over by then.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let large = site.job_folder("frozen").join("scratch/large");
    std::fs::write(&large, vec![1; 4 * MIB as usize]).unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(running.end(), None);
    running.thaw().unwrap();
    let end = running.wait().await;
    let is_disk = |end: &JobEnd| {
        matches!(
            end,
            JobEnd::Killed {
                reason: KillReason::Disk { .. }
            }
        )
    };
    assert!(is_disk(&end), "{end:?}");
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_stays_so() {
    let Some(site) = Site::open().await else {
        return;
    };
    let mut spec = site.spec("free", &["spin"]);
    spec.bounds.disk = DiskBound::Watched {
        bytes: MIB,
        files: 10,
        free_bytes_min: u64::MAX,
    };
    let why = site.yard.start(spec).await.unwrap_err().to_string();
    assert!(why.contains("to stay free"), "{why}");
}

#[tokio::test]
async fn a_disk_in_memory_is_held_by_the_kernel() {
    let Some(site) = Site::open().await else {
        return;
    };
    let mut spec = site.spec("tmpfs", &["disk", "memory"]);
    spec.bounds.disk = DiskBound::InMemory { bytes: 8 * MIB };
    let (end, log) = run(&site, spec).await;
    assert_eq!(end, JobEnd::Exited { code: 5 });
    assert!(log.contains("No space left on device"), "{log}");
    // And the one file of output is taken from there, too.
    let mut spec = site.spec("copy", &["copy"]);
    spec.inputs = vec![site.input("text", "kept")];
    spec.bounds.disk = DiskBound::InMemory { bytes: 8 * MIB };
    let running = site.yard.start(spec).await.unwrap();
    running.wait().await;
    assert_eq!(
        running.take_output().await.unwrap().unwrap().bytes,
        4,
        "{}",
        running.log_tail()
    );
}
