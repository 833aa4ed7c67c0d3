//! Builders of Nix' derivations, in the same sandboxes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use undercroft_nar::ArchiveLimits;
use undercroft_sandbox::{BuilderSpec, JobEnd, JobSpec, JobWork, StorePath};
use undercroft_testkit::{OrSkip as _, program};

use crate::support::Site;

const INPUT: &str = "m90kwfahv5nkg2dgl8hqm6g54mzgng74-input";
const OUTPUT: &str = "pk0n059cxqsyllnn70c58snwlk8b2w2f-one";
const LIMITS: ArchiveLimits = ArchiveLimits {
    bytes: 1_000_000,
    entries: 100,
};

/// A store path with the builder, and a build that reads it.
fn build(site: &Site, name: &str, arguments: &[&str]) -> Option<JobSpec> {
    let cc = program("cc", "gcc").or_skip()?;
    let folder = site.folder.path();
    let tree = folder.join(INPUT);
    if !tree.is_dir() {
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("text"), "text").unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/builder.c");
        let made = Command::new(cc)
            .args(["-static", "-O1", "-o"])
            .args([&tree.join("builder"), &source])
            .status();
        assert!(made.unwrap().success());
        fs::create_dir(folder.join("files")).unwrap();
        fs::write(folder.join("files/given"), "given").unwrap();
        let entries = BTreeMap::from([("build".to_owned(), "files".to_owned())]);
        let mut archive = File::create(folder.join("files.nar")).unwrap();
        undercroft_nar::pack(folder, &entries, LIMITS, &mut archive).unwrap();
    }
    let store = |name: &str| format!("/nix/store/{name}");
    let mut spec = site.spec(name, arguments);
    spec.work = JobWork::Builder(BuilderSpec {
        program: format!("{}/builder", store(INPUT)),
        environment: [("out", OUTPUT), ("input", INPUT)]
            .map(|(name, path)| (name.to_owned(), store(path)))
            .into(),
        paths: vec![StorePath {
            name: INPUT.to_owned(),
            tree,
        }],
        files: Some(folder.join("files.nar")),
        outputs: [("out".to_owned(), OUTPUT.to_owned())].into(),
        shell: None,
    });
    Some(spec)
}

fn unpacked(mut archive: File, to: PathBuf) -> PathBuf {
    fs::create_dir(&to).unwrap();
    let place = |name: &str| Some(name.to_owned());
    undercroft_nar::unpack(&mut archive, &to, LIMITS, &place).unwrap();
    to
}

#[tokio::test]
async fn a_builder_has_what_nix_gives_it_and_nothing_else() {
    let Some(site) = Site::open().await else {
        return;
    };
    let Some(spec) = build(&site, "one", &[]) else {
        return;
    };
    let running = site.yard.start(spec).await.unwrap();
    let end = running.wait().await;
    assert_eq!(end, JobEnd::Exited { code: 0 }, "{}", running.log_tail());
    assert_eq!(running.log_tail(), "built\n");
    let taken = running.take_output().await.unwrap().unwrap();
    let made = unpacked(taken.file, site.folder.path().join("made"));
    assert_eq!(fs::read_dir(&made).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(made.join("out/made")).unwrap(), "made\n");
    let link = fs::read_link(made.join("out/link")).unwrap();
    assert_eq!(link, Path::new("/etc/passwd"));
    running.wipe().await.unwrap();
    assert!(!site.job_folder("one").exists());
    let text = site.folder.path().join(INPUT).join("text");
    assert_eq!(fs::read_to_string(text).unwrap(), "text");
}

#[tokio::test]
async fn outputs_that_are_missing_or_no_files_are_not_taken() {
    let Some(site) = Site::open().await else {
        return;
    };
    for (name, said) in [("nothing", "isn't there"), ("socket", "is a socket")] {
        let Some(spec) = build(&site, name, &[name]) else {
            return;
        };
        let running = site.yard.start(spec).await.unwrap();
        assert_eq!(running.wait().await, JobEnd::Exited { code: 0 });
        let error = running.take_output().await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn builds_that_lead_elsewhere_are_refused() {
    let Some(site) = Site::open().await else {
        return;
    };
    type Change<'a> = &'a dyn Fn(&mut BuilderSpec);
    let changes: [(Change<'_>, &str); 4] = [
        (
            &|b| b.program = "/bin/sh".to_owned(),
            "isn't below /nix/store",
        ),
        (
            &|b| b.program = format!("/nix/store/{INPUT}/../../../bin/sh"),
            "isn't below /nix/store",
        ),
        (
            &|b| b.paths[0].name = "../x".to_owned(),
            "no name in the store",
        ),
        (
            &|b| drop(b.outputs.insert("out".to_owned(), "a/b".to_owned())),
            "no name in the store",
        ),
    ];
    for (change, said) in changes {
        let Some(mut spec) = build(&site, "elsewhere", &[]) else {
            return;
        };
        let JobWork::Builder(builder) = &mut spec.work else {
            panic!("it is a build");
        };
        change(builder);
        let error = site.yard.start(spec).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
