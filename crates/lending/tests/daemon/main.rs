//! The daemon with a real NATS and real sandboxes: jobs that run and jobs that stay, an owner who takes the PC back, and
//! daemons that are killed wherever they are. The server of lending is played here, so that it can be away or silent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "in a test a panic is the finding"
)]

mod played;
mod site;

use std::time::{Duration, Instant};

use undercroft_lend::{consent::Said, wire::Ended};
use undercroft_lending::owner::{OwnerAnswer, OwnerAsk, Status};

use site::{PATIENCE, Site};

/// Runs a daemon, when the tests start themselves once more to have a process that can be killed.
#[tokio::test]
async fn a_daemon_of_its_own() {
    site::be_a_daemon().await;
}

#[tokio::test]
async fn a_job_is_fetched_and_run_and_its_result_is_at_the_server() {
    let Some(mut site) = Site::open().await else {
        return;
    };
    site.grant().await;
    site.start();
    let began = Instant::now();
    site.played.submit("copy-1", &["copy"]);
    let ended = site.ended("copy-1").await;
    let Ended::Done { bytes: 18, output } = ended else {
        panic!("{ended:?}");
    };
    println!("submitted and recorded within {:?}", began.elapsed());
    assert_eq!(
        site.played.brought("copy-1"),
        Some((output, b"four words of text".to_vec()))
    );
    site.until("its receipt", |status| status.jobs.is_empty())
        .await;
    site.played.submit("fails-1", &["exit", "41"]);
    let ended = site.ended("fails-1").await;
    assert!(
        matches!(&ended, Ended::Failed { why } if why.starts_with("exit code 41")),
        "{ended:?}"
    );
    let OwnerAnswer::Log(log) = site.ask(OwnerAsk::Log { since_ms: 0 }).await else {
        panic!("no log");
    };
    let how: Vec<&str> = log.jobs.iter().map(|job| job.how.as_str()).collect();
    assert_eq!(how, ["done", "failed"]);
    assert!(log.bytes_in > 0 && log.bytes_out == 18 && log.tenants[0].tenant == "batch");
}

#[tokio::test]
async fn an_owner_has_their_pc_back_at_once_and_gets_a_receipt() {
    let Some(mut site) = Site::open().await else {
        return;
    };
    site.grant().await;
    site.start();
    site.played.submit("stay-1", &["stay"]);
    site.runs("stay-1").await;
    let OwnerAnswer::Status(status) = site.ask(OwnerAsk::Pause { for_s: None }).await else {
        panic!("no status");
    };
    assert_eq!(status.jobs[0].phase, "is frozen");
    site.ask(OwnerAsk::Resume).await;
    site.runs("stay-1").await;
    let began = Instant::now();
    let OwnerAnswer::Revoked(revoked) = site.ask(OwnerAsk::Revoke).await else {
        panic!("nothing was revoked");
    };
    println!(
        "revoked within {:?}, of which the daemon says {} ms",
        began.elapsed(),
        revoked.after_ms
    );
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(revoked.ended, ["stay-1"]);
    assert_eq!(site.processes(), 0);
    assert!(site.is_wiped());
    let said = site.said_last(2);
    assert!(said.contains(&Said::Revoked), "{said:?}");
    assert!(
        said.iter().any(|said| matches!(said, Said::Receipt { .. })),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_daemon_that_is_killed_leaves_nothing_and_lends_again() {
    let Some(mut site) = Site::open().await else {
        return;
    };
    site.grant().await;
    // As it begins, while a job runs, while one is frozen, and as it is revoked.
    for (n, at) in ["begins", "runs", "frozen", "revoked"].iter().enumerate() {
        let job = format!("stay-{n}");
        site.start();
        if *at != "begins" {
            site.played.submit(&job, &["stay"]);
            site.runs(&job).await;
        }
        match *at {
            "frozen" => drop(site.ask(OwnerAsk::Pause { for_s: None }).await),
            "revoked" => site.begin_to_revoke(),
            _ => {}
        }
        site.kill();
        // Without a daemon the owner's commands do it, and first end what was left.
        let OwnerAnswer::Status(status) = site.ask_alone(OwnerAsk::Status).await else {
            panic!("no status");
        };
        assert_eq!(site.processes(), 0, "{at}");
        assert_eq!(status.paused.is_some(), *at == "frozen", "{at}");
        site.ask_alone(OwnerAsk::Resume).await;
        if status.consent.is_none() {
            assert_eq!(*at, "revoked");
        }
        site.played.forget(&job);
    }
    site.grant().await;
    site.start();
    site.played.submit("copy-1", &["copy"]);
    assert!(matches!(site.ended("copy-1").await, Ended::Done { .. }));
}

#[tokio::test]
async fn a_revocation_needs_no_daemon() {
    let Some(mut site) = Site::open().await else {
        return;
    };
    site.grant().await;
    site.start();
    site.played.submit("stay-1", &["stay"]);
    site.runs("stay-1").await;
    site.kill();
    let OwnerAnswer::Revoked(_) = site.ask_alone(OwnerAsk::Revoke).await else {
        panic!("nothing was revoked");
    };
    assert_eq!(site.processes(), 0);
    assert!(site.is_wiped());
    assert!(site.said_last(2).contains(&Said::Revoked));
}

#[tokio::test]
async fn a_pc_that_hears_nothing_ends_its_job_within_its_lease() {
    let Some(mut site) = Site::open().await else {
        return;
    };
    site.grant().await;
    site.start();
    site.played.submit("stay-1", &["stay"]);
    site.runs("stay-1").await;
    site.nats.kill();
    let began = Instant::now();
    site.until("rid of its job", |status| {
        status.jobs.iter().all(|job| job.phase == "is reported")
    })
    .await;
    println!("it ended its job {:?} after NATS was gone", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(site.processes(), 0);
    site.nats.begin();
    let reports = |status: &Status| status.server.connected && status.jobs.is_empty();
    site.played.reconnect(&site.nats).await;
    site.until("connected, and rid of its report", reports)
        .await;
    site.played.submit("copy-1", &["copy"]);
    assert!(matches!(site.ended("copy-1").await, Ended::Done { .. }));
}

#[tokio::test]
async fn what_makes_way_is_said_and_nothing_runs_beside_it() {
    let Some(mut site) = Site::open().await else {
        return;
    };
    site.grant().await;
    site.on_battery();
    site.start();
    site.played.submit("copy-1", &["copy"]);
    site.until("on its battery", |status| {
        status
            .why_not
            .iter()
            .any(|why| why == "it runs on its battery")
    })
    .await;
    assert!(site.played.leased().is_empty());
    site.on_mains();
    assert!(
        tokio::time::timeout(PATIENCE, site.ended("copy-1"))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_within_seconds() {
    let Some(mut site) = Site::open().await else {
        return;
    };
    site.grant().await;
    site.played.leave().await;
    site.start();
    // NATS is there, and says that nobody listens.
    site.until("without a server", |status| {
        let mut why_not = status.why_not.iter();
        why_not.any(|why| why.contains("nobody listens on lend.want"))
    })
    .await;
    site.played.reconnect(&site.nats).await;
    let began = Instant::now();
    site.played.submit("copy-1", &["copy"]);
    assert!(matches!(site.ended("copy-1").await, Ended::Done { .. }));
    println!(
        "a job was done {:?} after the server was back",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}
