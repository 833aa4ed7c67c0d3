//! Whatever a job leaves behind is gone, or isn't taken.

use std::{fs, process::Stdio, time::Duration};

use undercroft_sandbox::{JobEnd, SandboxError, Yard, sweep};

use crate::support::{Site, text, tools, total};

#[tokio::test]
async fn what_survives_its_job_is_killed_with_it() {
    let Some(site) = Site::open().await else {
        return;
    };
    // By itself: the job ends, and leaves twenty behind.
    let running = site
        .yard
        .start(site.spec("by-itself", &["survive", "20"]))
        .await
        .unwrap();
    assert_eq!(running.wait().await, JobEnd::Exited { code: 0 });
    assert_eq!(running.log_tail().trim(), "20 survive");
    // By a kill, frozen before.
    let running = site
        .yard
        .start(site.spec("killed", &["survive", "20", "wait"]))
        .await
        .unwrap();
    let early = running.take_output().await.unwrap_err().to_string();
    assert!(early.contains("still runs"), "{early}");
    while running.log_tail().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let frozen = running.freeze().await.unwrap();
    let gone = running.kill().await.unwrap();
    println!("frozen after {frozen:?}, gone after {:?}", gone.after);
    assert!(gone.after < Duration::from_secs(2));
    running.wait().await;
    let group = fs::read_to_string(site.folder.path().join("yard/groups.json")).unwrap();
    let control = group
        .split('"')
        .find(|part| part.contains("undercroft-jobs-"))
        .unwrap();
    let events = fs::read_to_string(format!("{control}/cgroup.events")).unwrap();
    assert!(events.contains("populated 0"), "{events}");
}

#[tokio::test]
async fn only_a_file_is_taken_as_output() {
    let Some(site) = Site::open().await else {
        return;
    };
    for (how, verdict) in [
        ("link", "a symbolic link"),
        ("folder", "a folder"),
        ("socket", "a socket"),
        ("pipe", "none"),
        (
            "sparse",
            "has 33554432 bytes, and at most 1048576 are taken",
        ),
    ] {
        let running = site
            .yard
            .start(site.spec(how, &["output", how]))
            .await
            .unwrap();
        running.wait().await;
        let said = match running.take_output().await {
            Ok(None) => "none".to_owned(),
            Ok(Some(output)) => format!("{} bytes", output.bytes),
            Err(error) => error.to_string(),
        };
        println!("{how}: {said}");
        assert!(said.contains(verdict), "{how}: {said}");
        running.wipe().await.unwrap();
    }
}

#[tokio::test]
async fn nobody_swaps_an_output_while_it_is_taken() {
    let Some(site) = Site::open().await else {
        return;
    };
    for round in 0..5 {
        let name = format!("swap-{round}");
        let running = site
            .yard
            .start(site.spec(&name, &["output", "swap"]))
            .await
            .unwrap();
        running.wait().await;
        match running.take_output().await {
            Ok(Some(output)) => assert!(["good", ""].contains(&text(output.file).as_str())),
            Ok(None) => {}
            Err(error) => assert!(error.to_string().contains("a symbolic link"), "{error}"),
        }
        running.wipe().await.unwrap();
    }
}

#[tokio::test]
async fn a_tree_that_is_hard_to_wipe_is_wiped() {
    let Some(site) = Site::open().await else {
        return;
    };
    let mut spec = site.spec("tree", &["hard-to-wipe"]);
    // So that nobody kills it for its depth before it is done.
    spec.bounds.disk = undercroft_sandbox::DiskBound::Watched {
        bytes: u64::from(u32::MAX),
        files: 100_000,
        free_bytes_min: 0,
    };
    let running = site.yard.start(spec).await.unwrap();
    let end = running.wait().await;
    println!("{end:?}");
    let folder = site.job_folder("tree");
    running.wipe().await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test]
async fn what_an_earlier_daemon_left_is_swept() {
    let Some(site) = Site::open().await else {
        return;
    };
    let yard = site.folder.path().join("yard");
    // Two can't have the same folder, and it can't be swept beneath who has it.
    let taken = Yard::open(&yard, tools().await, &total())
        .await
        .unwrap_err();
    assert!(matches!(taken, SandboxError::Taken { .. }), "{taken}");
    assert!(matches!(
        sweep(&yard).await,
        Err(SandboxError::Taken { .. })
    ));

    let record = fs::read_to_string(yard.join("groups.json")).unwrap();
    let control = record
        .split('"')
        .find(|part| part.contains("undercroft-jobs-"))
        .unwrap();
    let group = format!("{control}/left.0");
    fs::create_dir(&group).unwrap();
    let mut sleeper = tokio::process::Command::new("sleep")
        .arg("300")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    fs::write(
        format!("{group}/cgroup.procs"),
        sleeper.id().unwrap().to_string(),
    )
    .unwrap();
    fs::create_dir_all(yard.join("jobs/left/scratch/deep")).unwrap();
    drop(site.yard);

    let swept = sweep(&yard).await.unwrap();
    assert_eq!((swept.jobs, swept.processes), (1, 1), "{swept:?}");
    assert!(!sleeper.wait().await.unwrap().success());
    assert!(!fs::exists(&group).unwrap() && !yard.join("jobs").exists());
    // A second time there is nothing, and the folder can be had.
    assert_eq!(sweep(&yard).await.unwrap().jobs, 0);
    let (_yard, swept) = Yard::open(&yard, tools().await, &total()).await.unwrap();
    assert_eq!(swept.jobs, 0);
}
