//! Whatever is killed, and whenever: each job has one result, and none is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{ConnectOptions, Subscriber};
use futures_util::StreamExt as _;
use secrecy::ExposeSecret as _;
use undercroft_lend::{
    JobId, SubmitterName,
    wire::{Holding, Made, submit::Stands},
};
use undercroft_lending::{
    bus::{Bus, BusSettings, Inbox},
    keys::UserKey,
    submit::{JobFile, Submitting},
};

use crate::site::{Process, Site};

/// How long all of it may take; it takes some 20 s.
const ALL_WITHIN: Duration = Duration::from_secs(180);
/// How long nothing may happen before a server is killed all the same.
const QUIET: Duration = Duration::from_millis(250);

async fn submitting(site: &Site) -> Submitting {
    let name: SubmitterName = "ci".parse().unwrap();
    let settings = BusSettings {
        url: site.nats.url(),
        ca_file: Some(site.nats.ca()),
        key: Arc::new(UserKey::read(&site.file("ci.nk")).unwrap()),
        name: "a test".to_owned(),
        inbox: Inbox::Submitter(name.to_string()),
    };
    Submitting::new(Bus::connect(&settings).await.unwrap(), &name)
}

/// Hears each change that is asked of the store, at the moment when it is.
async fn store_effects(site: &Site) -> Subscriber {
    let key = UserKey::read(&site.file("server.nk")).unwrap();
    let client = ConnectOptions::with_nkey(key.seed().expose_secret().to_owned())
        .add_root_certificates(site.nats.ca())
        .require_tls(true)
        .connect(site.nats.url())
        .await
        .unwrap();
    client.subscribe("$KV.lend-state.>").await.unwrap()
}

/// Brings jobs, each until it is taken in.
async fn bring(
    site: &Site,
    server: Submitting,
    count: usize,
) -> tokio::task::JoinHandle<Submitting> {
    let mut jobs = Vec::new();
    for n in 0..count {
        let name = site.job(&format!("job-{n}"), format!("work {n}").as_bytes());
        let text = std::fs::read_to_string(site.sandbox.dir().join(name)).unwrap();
        jobs.push(JobFile::read(&text).unwrap());
    }
    let folder = site.sandbox.dir();
    tokio::spawn(async move {
        for job in jobs {
            // While no server is there, nobody listens.
            while server
                .submit(&job, &folder, |_| None, &mut |_| {})
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        server
    })
}

/// Waits until all jobs are done, and looks at what was recorded, and how often.
async fn check(site: &Site, server: &Submitting, count: usize) {
    let since = Instant::now();
    loop {
        let jobs = server.jobs().await.unwrap_or_default();
        let done = jobs
            .iter()
            .filter(|job| matches!(job.stands, Stands::Done { .. }));
        if done.count() == count {
            break;
        }
        assert!(
            since.elapsed() < ALL_WITHIN,
            "{jobs:#?}\n{}",
            site.nats.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (mut begun, mut recorded): (BTreeSet<Holding>, BTreeMap<JobId, BTreeSet<Holding>>) =
        Default::default();
    for lender in &site.lenders {
        let saw = lender.saw.lock().unwrap();
        for holding in &saw.begun {
            assert!(begun.insert(holding.clone()), "{holding:?} was begun twice");
        }
        for holding in &saw.recorded {
            recorded
                .entry(holding.job.clone())
                .or_default()
                .insert(holding.clone());
        }
    }
    for (job, holdings) in recorded {
        assert_eq!(holdings.len(), 1, "{job}: {holdings:?}");
    }
    for n in 0..count {
        let job: JobId = format!("job-{n}").parse().unwrap();
        let mut output = Vec::new();
        server
            .fetch(&job, Made::Output, &mut output, Path::new("-"))
            .await
            .unwrap();
        assert_eq!(output, format!("WORK {n}").into_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_killed_at_each_store_effect_and_nats_between() {
    const JOBS: usize = 30;
    let Some(mut site) = Site::new(&["desk", "couch"]) else {
        return;
    };
    let mut server = site.server();
    let mut effects = store_effects(&site).await;
    for lender in &mut site.lenders {
        lender.lend().await;
    }
    let ours = submitting(&site).await;
    let brought = bring(&site, ours, JOBS).await;
    // The first, the third, the sixth: each time one later, so that every kind of change is the last once.
    let mut killed = 0;
    for gap in 1..=12 {
        for _ in 0..gap {
            // A server that has nothing to do is killed as well.
            let _ = tokio::time::timeout(QUIET, effects.next()).await;
        }
        server.kill();
        killed += 1;
        if gap % 5 == 0 {
            site.nats.kill();
            site.nats.begin();
            effects = store_effects(&site).await;
        }
        server = site.server();
    }
    let ours = tokio::time::timeout(ALL_WITHIN, brought)
        .await
        .unwrap()
        .unwrap();
    check(&site, &ours, JOBS).await;
    println!("{killed} servers were killed, and NATS twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_at_once_do_no_harm() {
    const JOBS: usize = 10;
    let Some(mut site) = Site::new(&["desk", "couch"]) else {
        return;
    };
    let servers: Vec<Process> = (0..2).map(|_| site.server()).collect();
    for lender in &mut site.lenders {
        lender.lend().await;
    }
    let ours = submitting(&site).await;
    let brought = bring(&site, ours, JOBS).await;
    let ours = tokio::time::timeout(ALL_WITHIN, brought)
        .await
        .unwrap()
        .unwrap();
    check(&site, &ours, JOBS).await;
    drop(servers);
}
