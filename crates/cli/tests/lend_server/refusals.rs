//! What isn't right is refused with words, counted, and changes nothing.

use undercroft_lend::{
    Digest, Epoch,
    wire::{
        self, AtOut, AtWant, Beat, BeatAnswer, BeatSay, Bring, BringAnswer, BringSay, ContentPart,
        Ended, Fetch, FetchAnswer, FetchSay, Fetching, Holding, LOG_BYTES_MAX, Made, NotRead, Out,
        OutAnswer, OutSay,
    },
};
use undercroft_lending::bus::Bus;

use crate::{lender::out_subject, permissions::Client, site::Site};

const ANSWER_MS: u64 = 20_000;

fn metric(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name}\n{metrics}"))
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_say_wrongly_is_refused_and_counted() {
    let Some(mut site) = Site::new(&["desk", "couch"]) else {
        return;
    };
    let server = site.server();
    site.lenders[0].lend().await;
    let file = site.job("render-1", b"lent work");
    assert_eq!(site.lend("ci", &["submit", &file, "--wait"]).code, 0);
    let before = site.lend("ci", &["jobs", "--json"]).out;
    // A device that lies: it has keys, and holds nothing.
    let (name, settings) = (
        site.lenders[1].name.clone(),
        site.lenders[1].settings.clone(),
    );
    let bus = Bus::connect(&settings).await.unwrap();
    let not_read = async |subject: &str, bytes: Vec<u8>| {
        let answer = bus
            .request(subject.to_owned(), bytes.into(), ANSWER_MS)
            .await
            .unwrap();
        wire::read::<NotRead>(&answer).unwrap().why
    };
    let turn = wire::read(br#"{"version":1,"message":{"start":1,"request":1}}"#).unwrap();
    let holding = Holding {
        job: "render-1".parse().unwrap(),
        epoch: Epoch(1),
    };
    let beat = Beat {
        turn,
        holding: holding.clone(),
    };
    let want = "lend.want.couch";
    assert!(
        not_read(want, b"{".to_vec())
            .await
            .starts_with("it can't be read")
    );
    assert!(
        not_read(
            want,
            br#"{"version":1,"message":{"want":{"turn":1}}}"#.to_vec()
        )
        .await
        .starts_with("it can't be read")
    );
    assert!(
        not_read(want, br#"{"version":7,"message":{}}"#.to_vec())
            .await
            .contains("version 7")
    );
    assert!(
        not_read(want, vec![b' '; wire::MESSAGE_BYTES_MAX + 1])
            .await
            .starts_with("a message has at most")
    );
    let elsewhere = wire::write(&AtOut::Out(Out {
        turn,
        holding: holding.clone(),
        ended: Ended::Failed {
            why: "x".to_owned(),
        },
    }));
    assert!(
        not_read("lend.out.couch.render-2.1", elsewhere)
            .await
            .contains("another job than its subject")
    );

    // A forged beat, end, part and fetch for a job that is another's.
    let answer = bus
        .request(
            "lend.beat.couch".to_owned(),
            wire::write(&beat).into(),
            ANSWER_MS,
        )
        .await
        .unwrap();
    assert!(matches!(
        wire::read::<BeatAnswer>(&answer).unwrap().say,
        BeatSay::Stop { .. }
    ));
    let subject = out_subject(&name, &holding);
    let say = async |message: &AtOut, behind: &[u8]| {
        let bytes = wire::write_with_bytes(message, behind);
        bus.request(subject.clone(), bytes.into(), ANSWER_MS)
            .await
            .unwrap()
    };
    for ended in [
        Ended::Done {
            output: Digest::of(b"LENT WORK"),
            bytes: 9,
        },
        Ended::Failed {
            why: "x".repeat(100_000),
        },
        Ended::Returned { why: String::new() },
    ] {
        let out = AtOut::Out(Out {
            turn,
            holding: holding.clone(),
            ended,
        });
        let answer = wire::read::<OutAnswer>(&say(&out, b"").await).unwrap();
        assert!(matches!(answer.say, OutSay::Stale { .. }), "{answer:?}");
    }
    let part = ContentPart {
        digest: Digest::of(b"LENT WORK"),
        total: 9,
        offset: 0,
    };
    let bring = AtOut::Bring(Bring {
        holding: holding.clone(),
        made: Made::Output,
        part,
    });
    let answer = wire::read::<BringAnswer>(&say(&bring, b"LENT WORK").await).unwrap();
    assert!(matches!(answer.say, BringSay::Refused { .. }), "{answer:?}");
    let fetching = Fetching {
        digest: Digest::of(b"lent work"),
        offset: 0,
    };
    let fetch = wire::write(&AtWant::Fetch(Fetch {
        holding: holding.clone(),
        fetching,
    }));
    let answer = bus
        .request(want.to_owned(), fetch.into(), ANSWER_MS)
        .await
        .unwrap();
    let answer = wire::read_with_bytes::<FetchAnswer>(&answer).unwrap().0;
    assert!(matches!(answer.say, FetchSay::Refused { .. }), "{answer:?}");

    assert_eq!(site.lend("ci", &["jobs", "--json"]).out, before);
    let metrics = server.metrics();
    let refused = |reason: &str| {
        metric(
            &metrics,
            &format!("undercroft_lend_refused_total{{reason=\"{reason}\"}}"),
        )
    };
    assert_eq!(
        (
            refused("malformed"),
            refused("other-version"),
            refused("too-large")
        ),
        (2, 1, 1)
    );
    assert!(refused("holding") >= 3, "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_holder_brings_is_measured() {
    let Some(mut site) = Site::new(&["desk"]) else {
        return;
    };
    let server = site.server();
    // The job is leased to a device that doesn't work on it, so that this test can.
    site.lenders[0].idles = true;
    site.lenders[0].lend().await;
    let file = site.job("render-1", b"lent work");
    assert_eq!(site.lend("ci", &["submit", &file]).code, 0);
    server.wait_for(|line| line.contains("\"assigned\""));
    let (name, settings) = (
        site.lenders[0].name.clone(),
        site.lenders[0].settings.clone(),
    );
    let bus = Bus::connect(&settings).await.unwrap();
    let turn = wire::read(br#"{"version":1,"message":{"start":9,"request":1}}"#).unwrap();
    let holding = Holding {
        job: "render-1".parse().unwrap(),
        epoch: Epoch(1),
    };
    let subject = out_subject(&name, &holding);
    let bring = async |made: Made, total: u64, offset: u64, said: Digest, behind: &[u8]| {
        let part = ContentPart {
            digest: said,
            total,
            offset,
        };
        let message = AtOut::Bring(Bring {
            holding: holding.clone(),
            made,
            part,
        });
        let bytes = wire::write_with_bytes(&message, behind);
        let answer = bus
            .request(subject.clone(), bytes.into(), ANSWER_MS)
            .await
            .unwrap();
        match wire::read::<BringAnswer>(&answer).unwrap().say {
            BringSay::Refused { why } => why,
            other => format!("{other:?}"),
        }
    };
    let digest = Digest::of(b"abc");
    // 16 MiB is what the job may write, and a log has its own measure.
    let mib = 1024 * 1024;
    assert!(
        bring(Made::Output, 16 * mib + 1, 0, digest, b"")
            .await
            .contains("may have 16777216")
    );
    assert!(
        bring(Made::Log, LOG_BYTES_MAX + 1, 0, digest, b"")
            .await
            .contains("may have 1048576")
    );
    assert!(
        bring(Made::Output, u64::MAX, 0, digest, b"")
            .await
            .contains("may have")
    );
    assert!(
        bring(Made::Output, 3, 1, digest, b"bc")
            .await
            .contains("no part of 3 bytes begins at byte 1")
    );
    assert!(
        bring(Made::Output, 3, 0, digest, b"ab")
            .await
            .contains("has 3 bytes, and 2 came")
    );
    assert!(
        bring(Made::Output, 3, 0, digest, b"abd")
            .await
            .contains("what came has the digest")
    );
    // The last part alone isn't the whole: the server says which is missing.
    assert_eq!(
        bring(Made::Output, mib, 3 * mib / 4, digest, &[0; 256 * 1024]).await,
        "Next { offset: 0 }"
    );
    let out = async |output: Digest, bytes: u64| {
        let ended = Ended::Done { output, bytes };
        let message = AtOut::Out(Out {
            turn,
            holding: holding.clone(),
            ended,
        });
        let answer = bus
            .request(subject.clone(), wire::write(&message).into(), ANSWER_MS)
            .await
            .unwrap();
        wire::read::<OutAnswer>(&answer).unwrap().say
    };
    // A result that never came, or is said to be of another size, is none.
    assert!(matches!(out(digest, 3).await, OutSay::Stale { .. }));
    assert_eq!(bring(Made::Output, 3, 0, digest, b"abc").await, "Whole");
    assert!(matches!(out(digest, 4).await, OutSay::Stale { .. }));
    assert!(
        site.lend("ci", &["jobs", "--json"])
            .out
            .contains("\"leased\"")
    );
    assert_eq!(out(digest, 3).await, OutSay::Recorded);
    assert_eq!(out(digest, 3).await, OutSay::Recorded);
    let metrics = server.metrics();
    let refused = |reason: &str| {
        metric(
            &metrics,
            &format!("undercroft_lend_refused_total{{reason=\"{reason}\"}}"),
        )
    };
    assert_eq!(
        (refused("part"), refused("digest"), refused("no-output")),
        (5, 1, 2),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_cant_be_lent_is_refused_with_words() {
    let Some(site) = Site::new(&["desk"]) else {
        return;
    };
    let server = site.server();
    let submit = |file: &str| {
        let ran = site.lend("ci", &["submit", file]);
        assert_eq!(ran.code, 65, "{}", ran.text());
        ran.err
    };
    let public = "sensitivity = \"public\"";
    assert!(
        submit(&site.job_with("a", "research", b"x", "")).contains("secret work is never lent")
    );
    assert!(
        submit(&site.job_with("a", "research", b"x", "sensitivity = \"secret\""))
            .contains("secret work is never lent")
    );
    assert!(
        submit(&site.job_with("a", "others", b"x", public))
            .contains("research may not submit work for others")
    );
    assert!(
        submit(&site.job_with("a", "research", b"x", &format!("{public}\nattempts = 99")))
            .contains("attempts is 99")
    );
    let adb = site.job_with("a", "research", b"x", public);
    let text = std::fs::read_to_string(site.sandbox.dir().join(&adb)).unwrap();
    site.sandbox
        .write("adb.toml", &text.replace("\"process\"", "\"adb\""));
    assert!(submit("adb.toml").contains("none of `lending.runtimes`"));
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n";
    assert!(
        submit(&site.job_with("a", "research", key.as_bytes(), public))
            .contains("holds a private key")
    );
    assert_eq!(site.lend("ci", &["jobs"]).out, "");
    // A key that isn't in the inventory is refused by NATS itself.
    let stranger = site.file("stranger.nk");
    undercroft_lending::keys::UserKey::read_or_make(&stranger).unwrap();
    let ran = site.lend("stranger", &["jobs", "--as", "ci"]);
    assert!(
        ran.code == 1 && ran.err.contains("refuses the key"),
        "{}",
        ran.text()
    );
    // Another authority than the one that signed the certificate is refused by us.
    let mut command = site.sandbox.command(["lend", "jobs", "--key"]);
    let ran = site.sandbox.finish(command.arg(site.file("ci.nk")));
    assert!(
        ran.code == 1 && ran.err.contains("no TLS with"),
        "{}",
        ran.text()
    );
    let metrics = server.metrics();
    assert_eq!(
        metric(
            &metrics,
            "undercroft_lend_refused_total{reason=\"not-lent\"}"
        ),
        3
    );
}

/// NATS looks at what somebody publishes, and never at where they want the answer.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_goes_where_its_asker_may_not_listen() {
    let Some(mut site) = Site::new(&["desk", "couch"]) else {
        return;
    };
    let server = site.server();
    site.lenders[0].lend().await;
    let file = site.job("render-1", b"lent work");
    assert_eq!(site.lend("ci", &["submit", &file, "--wait"]).code, 0);
    let before = site.lend("ci", &["jobs", "--json"]).out;
    let Client { client, .. } = Client::new(&site, &site.lenders[1].settings.key).await;
    let others = [
        "$KV.lend-state.job.render-1",
        "$JS.API.STREAM.PURGE.KV_lend-state",
        "lend.want.desk",
        "_INBOX_desk.1",
        "_INBOX_couch2.1",
        "_INBOX_submit_ci.1",
    ];
    for (n, to) in others.iter().enumerate() {
        client
            .publish_with_reply("lend.want.couch", *to, "{".into())
            .await
            .unwrap();
        client.flush().await.unwrap();
        server.wait_for(|_| {
            let refused = "undercroft_lend_refused_total{reason=\"inbox\"}";
            metric(&server.metrics(), refused) == n as u64 + 1
        });
    }
    assert_eq!(site.lend("ci", &["jobs", "--json"]).out, before);
    // Whoever begins anew reads all that is kept.
    drop(server);
    let _server = site.server();
    assert_eq!(site.lend("ci", &["jobs", "--json"]).out, before);
}
