//! Work is done once, and comes back whole.

use std::{fs, time::Instant};

use crate::site::{Site, WITHIN};

/// The jobs of a tenant, by how they stand.
fn jobs(site: &Site) -> Vec<serde_json::Value> {
    let ran = site.lend("ci", &["jobs", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    document["jobs"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_out_and_its_result_comes_back() {
    let Some(mut site) = Site::new(&["desk"]) else {
        return;
    };
    let server = site.server();
    site.lenders[0].lend().await;
    // Three parts, the last a short one.
    let input = b"lent work ".repeat(60_000);
    let file = site.job("render-1", &input);
    let ran = site.lend("ci", &["submit", &file, "--wait"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert!(
        ran.out
            .contains("done: 600000 bytes by desk, under its owner's consent 0"),
        "{}",
        ran.text()
    );
    let ran = site.lend("ci", &["result", "render-1", "-o", "out"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert!(fs::read(site.sandbox.dir().join("out")).unwrap() == input.to_ascii_uppercase());
    assert_eq!(site.lend("ci", &["logs", "render-1"]).out, "worked hard\n");
    // The same again is the same job, and another of its name is none.
    let ran = site.lend("ci", &["submit", &file, "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert_eq!(jobs(&site).len(), 1);
    site.job("render-1", b"something else");
    let ran = site.lend("ci", &["submit", &file]);
    assert_eq!(ran.code, 65, "{}", ran.text());
    assert!(
        ran.err.contains("a name means one job for ever"),
        "{}",
        ran.err
    );
    // Nobody else sees it.
    assert_eq!(site.lend("guest", &["jobs"]).out, "");
    for args in [
        &["logs", "render-1"][..],
        &["cancel", "render-1"],
        &["result", "render-1", "-o", "theirs"],
    ] {
        let ran = site.lend("guest", args);
        assert!(
            ran.code == 65 && ran.err.contains("there is no such job"),
            "{}",
            ran.text()
        );
    }
    // Each step is told, with who, for whom and under which consent.
    server.wait_for(|line| {
        line.contains(r#""done":{"job":"render-1","tenant":"research","device":"desk","consent":0"#)
    });
    server.wait_for(|line| line.contains(r#""assigned":{"job":"render-1","tenant":"research","device":"desk","epoch":1,"consent":0"#));
    let metrics = server.metrics();
    for line in [
        "undercroft_lend_jobs{state=\"done\"} 1",
        "undercroft_lend_devices 1",
        "undercroft_lend_connected 1",
        "undercroft_lend_wait_seconds_count 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
    // What the server has of the ledger holds, and is what the device has.
    let key = site.file("server.nk");
    let mut command = site
        .sandbox
        .command(["lend", "audit", "verify", "--device", "desk", "--json"]);
    command
        .arg("--key")
        .arg(key)
        .arg("--ca")
        .arg(site.nats.ca());
    let since = Instant::now();
    loop {
        let ran = site.sandbox.finish(&mut command);
        assert_eq!(ran.code, 0, "{}", ran.text());
        let verdict: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        if verdict["receipts"] == 1 {
            assert_eq!(
                verdict["records"],
                site.lenders[0].saw.lock().unwrap().records.len()
            );
            assert!(verdict["open"].as_array().unwrap().is_empty());
            break;
        }
        assert!(since.elapsed() < WITHIN, "{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_owners_pc_runs_it_again_and_a_liar_is_found() {
    let Some(mut site) = Site::new(&["desk", "shed", "attic"]) else {
        return;
    };
    let server = site.server();
    site.lenders[0].lend().await;
    let more = "sensitivity = \"public\"\nrerun_percent = 100";
    let file = site.job_with("twice-1", "research", b"the same", more);
    let ran = site.lend("ci", &["submit", &file]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    // One result is none yet, whatever else the same PC would do.
    server.wait_for(|line| line.contains("\"run-once\"") && line.contains("twice-1"));
    let ran = site.lend("ci", &["jobs"]);
    assert!(
        ran.out
            .contains("desk has run it; another is to come to the same"),
        "{}",
        ran.text()
    );
    let ran = site.lend("ci", &["result", "twice-1", "-o", "out"]);
    assert_eq!(ran.code, 65, "{}", ran.text());
    site.lenders[1].lend().await;
    let ran = site.lend("ci", &["submit", &file, "--wait"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    let done = "done: 8 bytes by desk, under its owner's consent 0; shed came to the same";
    assert!(ran.out.contains(done), "{}", ran.text());
    let ran = site.lend("ci", &["result", "twice-1", "-o", "out"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    let out = fs::read(site.sandbox.dir().join("out")).unwrap();
    assert_eq!(out, b"THE SAME");

    // Whoever of the three gets it first, one of the two that run it may be the one that lies.
    site.lenders[2].lies = true;
    site.lenders[2].lend().await;
    let since = Instant::now();
    for n in 2.. {
        let id = format!("twice-{n}");
        let file = site.job_with(&id, "research", b"the same", more);
        let ran = site.lend("ci", &["submit", &file, "--wait"]);
        if ran.code == 1 {
            assert!(
                ran.out.contains("attic") && ran.out.contains("came to two results"),
                "{}",
                ran.text()
            );
            break;
        }
        assert!(
            ran.out.contains("came to the same") && !ran.out.contains("attic"),
            "{}",
            ran.text()
        );
        assert!(since.elapsed() < WITHIN, "it was never asked");
    }
}
