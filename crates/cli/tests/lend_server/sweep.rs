//! Content that nobody needs any more is taken out, and nothing else, whenever the server is killed.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _};
use undercroft_lend::{
    Digest, SubmitterName,
    wire::{
        self, BringSay, ContentPart, Made, PART_BYTES,
        submit::{AtSubmit, Stands, SubmitAnswer},
    },
};
use undercroft_lending::{
    bus::{Bus, BusSettings, Inbox},
    keys::UserKey,
    submit::Submitting,
};

use crate::{
    permissions::Client,
    site::{Process, Site},
};

/// How long something may take that takes a few times as long as content is kept here.
const WITHIN: Duration = Duration::from_secs(120);
/// A job for which there is no PC.
const FOR_NOBODY: &str = "sensitivity = \"public\"\nneeds = [\"nobody-has-it\"]";

async fn bus(site: &Site) -> Bus {
    let settings = BusSettings {
        url: site.nats.url(),
        ca_file: Some(site.nats.ca()),
        key: Arc::new(UserKey::read(&site.file("ci.nk")).unwrap()),
        name: "a test".to_owned(),
        inbox: Inbox::Submitter("ci".to_owned()),
    };
    Bus::connect(&settings).await.unwrap()
}

async fn submitting(site: &Site) -> Submitting {
    let name: SubmitterName = "ci".parse().unwrap();
    Submitting::new(bus(site).await, &name)
}

fn number(server: &Process, name: &str) -> u64 {
    let metrics = server.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name}\n{metrics}"))
        .trim()
        .parse()
        .unwrap()
}

const KEPT: &str = "undercroft_lend_content_kept_bytes ";
const REMOVED: &str = "undercroft_lend_content_removed_bytes_total ";

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < WITHIN, "{what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_job_needs_goes_and_can_be_brought_again() {
    let Some(mut site) = Site::new(&["desk"]) else {
        return;
    };
    let server = site.server_with(&["--keep-s", "6"]);
    site.lenders[0].lend().await;
    let ours = submitting(&site).await;
    // A job that is open, and whose content gets much older than what is kept.
    let waits = b"it waits ".repeat(50_000);
    let file = site.job_with("waits-1", "research", &waits, FOR_NOBODY);
    assert_eq!(site.lend("ci", &["submit", &file]).code, 0);
    let input = b"lent work ".repeat(60_000);
    let file = site.job("render-1", &input);
    assert_eq!(site.lend("ci", &["submit", &file, "--wait"]).code, 0);
    let ran = site.lend("ci", &["result", "render-1", "-o", "out"]);
    assert_eq!(ran.code, 0, "{}", ran.text());

    // What it read and made goes, of which each is 600,000 bytes; nothing else does.
    until("its content never went", async || {
        number(&server, REMOVED) >= 1_200_000
    })
    .await;
    for (args, what) in [
        (&["result", "render-1", "-o", "again"][..], "output"),
        (&["logs", "render-1"], "log"),
    ] {
        let ran = site.lend("ci", args);
        let why = format!(
            "the {what} of render-1 is gone: it was kept for 6.0 s after the job had ended"
        );
        assert!(ran.code == 65 && ran.err.contains(&why), "{}", ran.text());
    }
    assert!(!site.sandbox.dir().join("again").exists());
    let digests = [&waits[..], b"a program", &input].map(Digest::of);
    let have = ours.have(digests.to_vec()).await.unwrap();
    assert_eq!(have, digests[..2].iter().copied().collect());

    // The same again is brought again.
    let file = site.job("render-2", &input);
    let ran = site.lend("ci", &["submit", &file, "--wait"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    let mut output = Vec::new();
    let job = "render-2".parse().unwrap();
    ours.fetch(&job, Made::Output, &mut output, Path::new("-"))
        .await
        .unwrap();
    assert!(output == input.to_ascii_uppercase());

    // When nothing is open any more, nothing is kept, and its numbers say so.
    assert_eq!(site.lend("ci", &["cancel", "waits-1"]).code, 0);
    until("something stays", async || number(&server, KEPT) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_stays_and_what_is_brought_too_slowly_is_brought_anew() {
    let Some(site) = Site::new(&[]) else {
        return;
    };
    let _server = site.server_with(&["--keep-s", "8"]);
    let bus = bus(&site).await;
    let ask = async |message: Vec<u8>| {
        let subject = "lend.submit.ci".to_owned();
        let answer = bus.request(subject, message.into(), 20_000).await.unwrap();
        let (answer, _) = wire::read_with_bytes::<SubmitAnswer>(&answer).unwrap();
        answer
    };
    let whole = vec![7; PART_BYTES + 1];
    let bring = async |number: usize| {
        let from = number * PART_BYTES;
        let part = ContentPart {
            digest: Digest::of(&whole),
            total: whole.len().try_into().unwrap(),
            offset: from.try_into().unwrap(),
        };
        let behind = &whole[from..whole.len().min(from + PART_BYTES)];
        match ask(wire::write_with_bytes(&AtSubmit::Bring(part), behind)).await {
            SubmitAnswer::Brought(say) => say,
            other => panic!("{other:?}"),
        }
    };
    let is_there = async || {
        let digests = vec![Digest::of(&whole)];
        let answer = ask(wire::write(&AtSubmit::Have { digests })).await;
        matches!(answer, SubmitAnswer::Have { digests } if !digests.is_empty())
    };
    // Its first part could be taken out before the whole counts.
    let next = u64::try_from(PART_BYTES).unwrap();
    assert_eq!(bring(0).await, BringSay::Next { offset: next });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bring(1).await, BringSay::Next { offset: 0 });
    assert_eq!(bring(0).await, BringSay::Next { offset: next });
    assert_eq!(bring(1).await, BringSay::Whole);
    // Whoever is told that it is there can rely on that for a while, however old it is.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        assert!(is_there().await, "{:?}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Nobody asks. A look would keep it.
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert!(!is_there().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_a_sweep_loses_nothing_that_is_needed() {
    const JOBS: usize = 8;
    let Some(mut site) = Site::new(&["desk", "couch"]) else {
        return;
    };
    // They sweep as soon as they are told to keep for less.
    let mut server = site.server();
    site.lenders[0].lend().await;
    for n in 0..JOBS {
        let file = site.job(&format!("job-{n}"), format!("work {n}").as_bytes());
        assert_eq!(site.lend("ci", &["submit", &file, "--wait"]).code, 0);
    }
    // Nobody takes this one yet. It reads what others have read, too.
    site.lenders.remove(0);
    let input = b"needed ".repeat(50_000);
    let file = site.job("needed-1", &input);
    assert_eq!(site.lend("ci", &["submit", &file]).code, 0);
    let key = UserKey::read(&site.file("server.nk")).unwrap();
    let hears = Client::new(&site, &key).await;
    let subject = "$JS.API.STREAM.PURGE.*";
    let mut purges = hears.client.subscribe(subject).await.unwrap();
    hears.client.flush().await.unwrap();
    server.kill();
    // Each time one later, so that the last thing that was done is of each kind once. Eight jobs have three contents and
    // three parts each that go.
    let mut killed = 0;
    for gap in 1..=6 {
        server = site.server_with(&["--keep-s", "2"]);
        for _ in 0..gap {
            let purge = tokio::time::timeout(WITHIN, purges.next()).await;
            assert!(purge.unwrap().is_some());
        }
        server.kill();
        // What was asked for by the killed one isn't the next one's.
        while purges.next().now_or_never().is_some() {}
        killed += 1;
    }
    let server = site.server_with(&["--keep-s", "2"]);
    let needed = u64::try_from(input.len()).unwrap();
    // Subjects and heads come on top of the content, which is the input and the program.
    until("more is kept than is needed", async || {
        let kept = number(&server, KEPT);
        assert!(kept >= needed, "{kept}");
        kept < needed + 2_000
    })
    .await;
    drop(server);
    let _server = site.server();
    site.lenders[0].lend().await;
    let ours = submitting(&site).await;
    let job = "needed-1".parse().unwrap();
    until("it is never done", async || {
        let line = ours.show(&job).await.unwrap();
        assert!(!matches!(line.stands, Stands::Dead { .. }), "{line:?}");
        matches!(line.stands, Stands::Done { .. })
    })
    .await;
    println!("{killed} servers were killed while they swept");
}
