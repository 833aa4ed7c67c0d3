//! The real machine's side of a step's script: each thing that a script asks, put to the machine over a pinned
//! connection.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use undercroft_model::{
    Action, Evidence, Failure, FailureKind,
    inventory::Layout,
    on_machine::{DISK_KEY, HOST_KEY},
};
use undercroft_netboot::timeline::MarkKind;
use undercroft_steps::{self as steps, Answer, Ask, Next, Script, code};

use super::{
    copy,
    host_key::{final_host_key, private_host_key, public_host_key},
    installed,
    installer::Installer,
    job::{Done, Job, Stop},
};
use undercroft_journal::TimelineSource;

/// Writes what comes on standard input to a file. umask first: a key is never readable by others,
/// not even while it is written, nor where a file of that name was before.
const WRITE_KEY: &str = "umask 077; mkdir -p \"${1%/*}\" && rm -f \"$1\" && cat >\"$1\"";

/// Carries out a step on the installer that was approved.
pub(super) async fn carry_out(job: &Job<'_>) -> Done {
    let facts = &job.order.facts;
    let pinned = steps::pin(facts.report.as_ref(), facts.approval.as_ref())?;
    let script = Script::new(job.step, job.node, job.order.work, pinned);
    // What is planned with is compared before a secret is as much as decrypted.
    let key = match &job.step.action {
        Action::Install {
            host_key_fingerprint,
            ..
        }
        | Action::Reboot {
            host_key_fingerprint,
        } => Some(final_host_key(job, host_key_fingerprint)?),
        _ => None,
    };
    let installer = Installer::of(job, pinned)?;
    let mut answers = Vec::new();
    loop {
        match script.next(&answers) {
            Some(Next::Ask(ask)) => {
                tell(job, &ask, &answers);
                let answer = answer(job, &installer, &ask).await?;
                answers.push(answer);
            }
            Some(Next::AwaitReturn) => return installed::await_return(job, key).await,
            Some(Next::Done(evidence)) => {
                note(job, &evidence);
                return Ok(evidence);
            }
            Some(Next::NotDone) => return Err(Stop::NotDone),
            Some(Next::Failed(failure)) => return Err(failure.into()),
            None => {
                return Err(Stop::new(
                    FailureKind::Permanent,
                    "this is no step on an installer",
                ));
            }
        }
    }
}

/// What people want to know of before it is asked.
fn tell(job: &Job<'_>, ask: &Ask, answers: &[Answer]) {
    let again = matches!(ask, Ask::Copy { .. })
        && answers
            .iter()
            .any(|a| matches!(a, Answer::Done | Answer::CopyFailed(_)));
    if again {
        let line = "a part of the store on the disk was damaged by a power cut; copying it again";
        job.note(TimelineSource::Controller, line);
        job.shared.line(job.name(), line);
    }
}

fn note(job: &Job<'_>, evidence: &Evidence) {
    match evidence {
        Evidence::Inspected { .. } => job.mark(
            TimelineSource::Ssh,
            MarkKind::SshReached,
            "connected under the approved key",
        ),
        Evidence::Partitioned { wiped: true, .. } => {
            for disk in &job.step.destroys {
                let text = format!("the disk with {disk} was wiped and laid out");
                job.note(TimelineSource::Controller, text);
            }
        }
        _ => {}
    }
}

async fn answer(job: &Job<'_>, installer: &Installer<'_>, ask: &Ask) -> Result<Answer, Failure> {
    if let Some(words) = ask.words() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = installer.run(&words).await?;
        return match ask {
            Ask::Describe => described(answer),
            _ => Ok(answer),
        };
    }
    match ask {
        Ask::GiveDiskKeys => give_disk_keys(job, installer).await,
        Ask::TakeDiskKeys => {
            let paths: Vec<&str> = key_paths(job);
            if paths.is_empty() {
                return Ok(Answer::Done);
            }
            let words = [["rm", "-f", "--"].as_slice(), &paths].concat();
            installer.run(&words).await
        }
        Ask::BringScript { path } => {
            copy::push(job, installer, path, copy::Destination::OwnStore, None).await
        }
        Ask::Copy {
            toplevel,
            closure_bytes,
        } => {
            let to = copy::Destination::NewSystem;
            copy::push(job, installer, toplevel, to, *closure_bytes).await
        }
        Ask::HasHostKey => {
            let private = private_host_key(job)?;
            let digest = hex(&Sha256::digest(private.expose_secret().as_bytes()));
            let probe = ["/undercroft/deliver", "--probe", HOST_KEY, &digest];
            installer.run(&probe).await
        }
        Ask::GiveHostKey => give_host_key(job, installer).await,
        Ask::GiveExtraFiles => give_extra_files(job, installer).await,
        Ask::OfferDisk => {
            job.shared.parts.facilities.offer(job.name(), false)?;
            Ok(Answer::Done)
        }
        _ => Err(Failure::new(
            FailureKind::Permanent,
            "nobody knows how to ask that: a fault in Undercroft itself",
        )),
    }
}

/// What the machine says of itself, where it says it well.
fn described(answer: Answer) -> Result<Answer, Failure> {
    let Answer::Ended(ended) = &answer else {
        return Ok(answer);
    };
    if ended.code != code::DONE {
        return Ok(answer);
    }
    serde_json::from_str(&ended.stdout)
        .map(|report| Answer::Described(Box::new(report)))
        .map_err(|e| {
            Failure::new(
                FailureKind::Permanent,
                format!("the installer's description of the machine can't be understood: {e}"),
            )
            .with_command(ended.failed_command())
        })
}

fn is_encrypted(job: &Job<'_>) -> bool {
    matches!(
        &job.step.action,
        Action::Partition {
            layout: Layout::ZfsEncrypted,
            ..
        }
    )
}

/// Where the keys of its disks are put on the machine.
fn key_paths<'j>(job: &'j Job<'_>) -> Vec<&'j str> {
    let parts = &job.shared.parts;
    let named = parts.options.disk_keys.iter();
    let own = parts.encryption_keys.is_some() && is_encrypted(job);
    named
        .map(|key| key.path_on_machine.as_str())
        .chain(own.then_some(DISK_KEY))
        .collect()
}

/// Gives the installer the keys with which the disks are encrypted: those that the command line
/// names, or the one that the fleet's secrets hold. The installer lies in memory, so that they end with it at the latest.
async fn give_disk_keys(job: &Job<'_>, installer: &Installer<'_>) -> Result<Answer, Failure> {
    let parts = &job.shared.parts;
    for key in &parts.options.disk_keys {
        let words = ["sh", "-c", WRITE_KEY, "undercroft", &key.path_on_machine];
        let answer = installer.run_with_file(&words, &key.file).await?;
        if !is_done(&answer) {
            return Ok(answer);
        }
    }
    match parts.encryption_keys.as_ref().filter(|_| is_encrypted(job)) {
        Some(source) => {
            let key = source(job.name())?;
            let words = ["sh", "-c", WRITE_KEY, "undercroft", DISK_KEY];
            installer.run_with_secret(&words, &key).await
        }
        None => Ok(Answer::Done),
    }
}

fn is_done(answer: &Answer) -> bool {
    match answer {
        Answer::Done => true,
        Answer::Ended(ended) => ended.code == code::DONE,
        _ => false,
    }
}

async fn give_host_key(job: &Job<'_>, installer: &Installer<'_>) -> Result<Answer, Failure> {
    let private = private_host_key(job)?;
    let answer = deliver(installer, HOST_KEY, "0600", &private).await?;
    if !is_done(&answer) {
        return Ok(answer);
    }
    let public = public_host_key(job)?;
    let line = SecretString::from(format!("{public} root@{}\n", job.name()));
    deliver(installer, &format!("{HOST_KEY}.pub"), "0644", &line).await
}

async fn give_extra_files(job: &Job<'_>, installer: &Installer<'_>) -> Result<Answer, Failure> {
    for file in job.shared.parts.options.extra_files()? {
        let mode = format!("{:04o}", file.mode);
        let words = ["/undercroft/deliver", &file.path_on_machine, &mode];
        let answer = installer.run_with_file(&words, &file.file).await?;
        if !is_done(&answer) {
            return Ok(answer);
        }
    }
    Ok(Answer::Done)
}

async fn deliver(
    installer: &Installer<'_>,
    path: &str,
    mode: &str,
    content: &SecretString,
) -> Result<Answer, Failure> {
    let words = ["/undercroft/deliver", path, mode];
    let answer = installer.run_with_secret(&words, content).await?;
    let Answer::Ended(ended) = &answer else {
        return Ok(answer);
    };
    let wanted = hex(&Sha256::digest(content.expose_secret().as_bytes()));
    if ended.code != code::DONE || steps::value(&ended.stdout, "sha256") == Some(&wanted) {
        return Ok(answer);
    }
    Err(Failure::new(
        FailureKind::Transient,
        format!("{path} was read back from the machine with another content than was sent"),
    ))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(words: &[String]) -> String {
        let output = Command::new(&words[0])
            .args(&words[1..])
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// On files in place of disks: both programs take them.
    #[test]
    fn tables_are_named_and_each_device_has_its_line() {
        for (program, package) in [("sgdisk", "gdisk"), ("mkfs.ext4", "e2fsprogs")] {
            if let Err(missing) = undercroft_testkit::program(program, package) {
                undercroft_testkit::skip(missing);
                return;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = |name: &str| {
            let path = dir.path().join(name);
            let file = std::fs::File::create(&path).unwrap();
            file.set_len(64 << 20).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (bare, table, absent) = (disk("bare"), disk("table"), dir.path().join("absent"));
        // It has a file system and no table: blkid finds something, and nothing that is asked for.
        run(&["mkfs.ext4", "-q", "-F", &bare].map(str::to_owned));
        run(&["sgdisk", "--new=1:0:0", &table].map(str::to_owned));
        let guid = "6c9ee1a3-3c1e-4c5c-8f43-0d8f8f4b2f11";
        let named = Ask::NameTables {
            tables: vec![steps::Table {
                device: table.clone(),
                guid: guid.parse().unwrap(),
            }],
        };
        run(&named.words().unwrap());
        let absent = absent.to_str().unwrap().to_owned();
        let look = Ask::Tables {
            devices: vec![bare, table, absent],
        };
        let shown = run(&look.words().unwrap());
        let lines: Vec<&str> = shown.lines().take(3).collect();
        assert_eq!(lines, ["none", guid, "none"]);
    }
}
