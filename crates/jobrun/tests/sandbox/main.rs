//! Real sandboxes, with jobs that behave and jobs that don't.

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod builds;
#[cfg(test)]
mod components;
#[cfg(test)]
mod escapes;
#[cfg(test)]
mod gone;
#[cfg(test)]
mod revoke;
#[cfg(test)]
mod support;

use std::time::Instant;

use undercroft_sandbox::{JobEnd, JobWork, SandboxError};

use support::{Site, text};

#[tokio::test]
async fn a_job_reads_its_input_and_leaves_its_output() {
    let Some(site) = Site::open().await else {
        return;
    };
    let mut spec = site.spec("copy", &["copy"]);
    spec.inputs = vec![site.input("text", "four words of text")];
    let running = site.yard.start(spec).await.unwrap();
    let end = running.wait().await;
    assert_eq!(end, JobEnd::Exited { code: 0 }, "{}", running.log_tail());
    assert_eq!(running.log_tail().trim(), "read 18 bytes");
    let output = running.take_output().await.unwrap().unwrap();
    assert_eq!(output.bytes, 18);
    assert_eq!(text(output.file), "four words of text");
    let folder = site.job_folder("copy");
    assert!(folder.exists());
    running.wipe().await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test]
async fn an_exit_code_is_the_jobs_own() {
    let Some(site) = Site::open().await else {
        return;
    };
    let mut took = Vec::new();
    for code in [0, 1, 2, 41, 125, 126, 127, 137, 254, 255] {
        let spec = site.spec(&format!("exit-{code}"), &["exit", &code.to_string()]);
        let start = Instant::now();
        let running = site.yard.start(spec).await.unwrap();
        let begun = start.elapsed();
        assert_eq!(running.wait().await, JobEnd::Exited { code });
        took.push((begun, start.elapsed()));
        running.wipe().await.unwrap();
    }
    took.sort();
    let (begun, ended) = took[took.len() / 2];
    println!(
        "a job that does nothing has begun after {begun:.1?}, and is seen gone after {ended:.1?}"
    );
}

#[tokio::test]
async fn another_program_than_the_one_that_was_meant_is_refused() {
    let Some(site) = Site::open().await else {
        return;
    };
    let mut spec = site.spec("other", &["exit", "0"]);
    let JobWork::Program(program) = &mut spec.work else {
        panic!("it is a program");
    };
    program.digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let error = site.yard.start(spec).await.unwrap_err();
    assert!(matches!(error, SandboxError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("was to be run"), "{error}");
    assert!(!site.job_folder("other").exists());
}
