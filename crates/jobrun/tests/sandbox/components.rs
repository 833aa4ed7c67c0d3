//! WebAssembly components: what runs, and what is refused or ended.

use std::{fs, time::Duration};

use undercroft_sandbox::{
    DiskBound, JobEnd, JobSpec, JobWork, KillReason, Program, ProgramKind, SandboxError,
};

use crate::support::{Site, digest, text};

/// A module of the core that ends well.
const FINE: &str = r#"(func (export "run") (result i32) i32.const 0)"#;

/// A component whose `run` is a function of the core, with whatever else its module has.
fn component(module: &str) -> Vec<u8> {
    importing("", module)
}

/// [`component`] that asks for something, too.
fn importing(imports: &str, module: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {imports}
          (core module $module {module})
          (core instance $instance (instantiate $module))
          (func $run (result (result)) (canon lift (core func $instance "run")))
          (instance $exported (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $exported)))"#
    );
    wat::parse_str(text).unwrap()
}

fn spec(site: &Site, name: &str, bytes: &[u8]) -> JobSpec {
    let file = site.folder.path().join(format!("{name}.wasm"));
    fs::write(&file, bytes).unwrap();
    let mut spec = site.spec(name, &[]);
    spec.work = JobWork::Program(Program {
        digest: digest(&file),
        file,
        kind: ProgramKind::Component,
    });
    spec.bounds.memory_mb = 192;
    spec
}

/// How a component ends.
async fn run(site: &Site, spec: JobSpec) -> JobEnd {
    let running = site.yard.start(spec).await.unwrap();
    let end = running.wait().await;
    println!(
        "{}: {end:?} {:?} {}",
        running.name(),
        running.usage(),
        running.log_tail()
    );
    running.wipe().await.unwrap();
    end
}

#[tokio::test]
async fn a_component_ends_with_its_own_word() {
    let Some(site) = Site::open().await else {
        return;
    };
    for (name, result, code) in [("fine", 0, 0), ("failed", 1, 1)] {
        let bytes = component(&format!(
            r#"(func (export "run") (result i32) i32.const {result})"#
        ));
        let end = run(&site, spec(&site, name, &bytes)).await;
        assert_eq!(end, JobEnd::Exited { code });
    }
}

#[tokio::test]
async fn a_component_has_its_two_folders_and_nothing_else() {
    let Some(site) = Site::open().await else {
        return;
    };
    let bytes = wat::parse_str(include_str!("copy.wat")).unwrap();
    for disk in [
        site.spec("any", &[]).bounds.disk,
        DiskBound::InMemory { bytes: 1024 * 1024 },
    ] {
        let mut spec = spec(&site, "copy", &bytes);
        spec.inputs = vec![site.input("text", "read by a component")];
        spec.bounds.disk = disk;
        let running = site.yard.start(spec).await.unwrap();
        let end = running.wait().await;
        assert_eq!(end, JobEnd::Exited { code: 0 }, "{}", running.log_tail());
        let output = running.take_output().await.unwrap().unwrap();
        assert_eq!(text(output.file), "read by a component");
        println!("{:?}", running.usage());
        running.wipe().await.unwrap();
    }
}

#[tokio::test]
async fn a_frozen_component_has_its_time_afterwards() {
    let Some(site) = Site::open().await else {
        return;
    };
    let bytes =
        component(r#"(func (export "run") (result i32) (loop $again (br $again)) unreachable)"#);
    let mut spec = spec(&site, "frozen", &bytes);
    spec.bounds.wall = Duration::from_millis(1500);
    let running = site.yard.start(spec).await.unwrap();
    running.freeze().await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    running.thaw().unwrap();
    let reason = KillReason::Wall;
    assert_eq!(running.wait().await, JobEnd::Killed { reason });
    let ran_ms = running.usage().wall_ms;
    assert!(ran_ms >= 1500, "it ran {ran_ms} ms");
}

#[tokio::test]
async fn a_component_that_does_what_it_may_not_is_trapped() {
    let Some(site) = Site::open().await else {
        return;
    };
    let many = |what: &str, count| what.repeat(count);
    for (name, module, words) in [
        (
            "unreachable",
            r#"(func (export "run") (result i32) unreachable)"#.to_owned(),
            "unreachable",
        ),
        (
            "stack",
            r#"(func $run (export "run") (result i32) (call $run))"#.to_owned(),
            "call stack exhausted",
        ),
        (
            "memory",
            r#"(memory 1) (func (export "run") (result i32) (memory.grow (i32.const 16384)))"#
                .to_owned(),
            "memory",
        ),
        (
            "much-memory",
            r#"(memory 65536) (func (export "run") (result i32) i32.const 0)"#.to_owned(),
            "memory",
        ),
        (
            "memories",
            format!(
                r#"{} (func (export "run") (result i32) i32.const 0)"#,
                many("(memory 1)", 90)
            ),
            "",
        ),
        (
            "table",
            r#"(table 9000000 funcref) (func (export "run") (result i32) i32.const 0)"#.to_owned(),
            "table",
        ),
    ] {
        let end = run(&site, spec(&site, name, &component(&module))).await;
        let is_stopped = matches!(&end, JobEnd::Trapped { why } if why.contains(words));
        let is_harmless = name == "memories" && end == JobEnd::Exited { code: 0 };
        assert!(is_stopped || is_harmless, "{name}: {end:?}");
    }
}

#[tokio::test]
async fn a_component_without_end_is_ended() {
    let Some(site) = Site::open().await else {
        return;
    };
    let bytes = component(r#"(func (export "run") (result i32) (loop (br 0)) i32.const 0)"#);
    let mut spec = spec(&site, "endless", &bytes);
    spec.bounds.wall = Duration::from_millis(1500);
    match run(&site, spec).await {
        JobEnd::Killed {
            reason: KillReason::Wall,
        } => {}
        JobEnd::Trapped { why } => assert!(why.contains("interrupt"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_component_is_refused_within_its_bounds() {
    let Some(site) = Site::open().await else {
        return;
    };
    let module = wat::parse_str("(module)").unwrap();
    let error = site
        .yard
        .start(spec(&site, "module", &module))
        .await
        .unwrap_err();
    assert!(matches!(error, SandboxError::Unfit { .. }), "{error}");
    assert!(
        error.to_string().contains("components of WASI 0.2 are run"),
        "{error}"
    );

    let good = component(FINE);
    let mut nested = b"\0asm\x0d\0\x01\0".to_vec();
    for _ in 0..5000 {
        // A section that holds a component (4), with all that follows as its content.
        let mut outer = b"\0asm\x0d\0\x01\0\x04".to_vec();
        leb(&mut outer, nested.len());
        outer.extend(&nested);
        nested = outer;
    }
    for (name, bytes, words) in [
        ("empty", Vec::new(), "can't be compiled"),
        ("text", b"(component)".to_vec(), "can't be compiled"),
        ("cut", good[..good.len() - 5].to_vec(), "can't be compiled"),
        (
            "noise",
            [b"\0asm\x0d\0\x01\0".as_slice(), &[0xff; 4000]].concat(),
            "can't be compiled",
        ),
        (
            "no-run",
            wat::parse_str("(component)").unwrap(),
            "wasi:cli/run",
        ),
        ("nested", nested, ""),
        (
            "asks-for-more",
            importing(
                r#"(import "owner:home/files" (instance (export "all" (func))))"#,
                FINE,
            ),
            "owner:home/files",
        ),
    ] {
        let end = run(&site, spec(&site, name, &bytes)).await;
        // What is deep may use up its memory before it is told to be too deep.
        let is_deep = name == "nested" && end == JobEnd::OutOfMemory;
        assert!(
            is_deep || matches!(&end, JobEnd::Trapped { why } if why.contains(words)),
            "{name}: {end:?}"
        );
    }
}

#[tokio::test]
async fn what_is_hard_to_compile_uses_up_its_own_bounds() {
    let Some(site) = Site::open().await else {
        return;
    };
    // A function of a hundred thousand blocks that each can be left to every outer one.
    let depth = 3000;
    let body = format!(
        "{}{}{}",
        "(block ".repeat(depth),
        format!("(br_table {} (local.get 0))", "0 1 2 3 ".repeat(2000)).repeat(40),
        ")".repeat(depth)
    );
    let bomb = (0..60)
        .map(|_| format!("(func (param i32) {body})"))
        .collect::<String>();
    let bytes = component(&format!(
        r#"{bomb} (func (export "run") (result i32) i32.const 0)"#
    ));
    let mut spec = spec(&site, "bomb", &bytes);
    spec.bounds.wall = Duration::from_secs(3);
    spec.bounds.memory_mb = 96;
    let start = std::time::Instant::now();
    let end = run(&site, spec).await;
    println!("{} bytes: {end:?} after {:?}", bytes.len(), start.elapsed());
    assert!(
        matches!(
            end,
            JobEnd::OutOfMemory
                | JobEnd::Killed {
                    reason: KillReason::Wall
                }
                | JobEnd::Trapped { .. }
        ),
        "{end:?}"
    );
}

/// A number as WebAssembly writes it (LEB128).
fn leb(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// The components that `undercroft lend demo` brings, by their texts. With `INSTA_UPDATE=always` they are made anew.
fn of_the_demo(name: &str) -> Vec<u8> {
    let folder = undercroft_testkit::repository().join("crates/cli/templates/lend");
    let path = |ending: &str| folder.join(format!("{name}.{ending}"));
    let made = wat::parse_file(path("wat")).unwrap();
    if std::env::var_os("INSTA_UPDATE").is_some_and(|how| how == "always") {
        fs::write(path("wasm"), &made).unwrap();
    }
    let kept = fs::read(path("wasm")).unwrap_or_default();
    assert!(
        made == kept,
        "{name}.wasm isn't what {name}.wat makes; INSTA_UPDATE=always makes it anew"
    );
    made
}

#[tokio::test]
async fn the_jobs_of_the_demo_are_what_their_texts_make() {
    let (capitals, endless) = (of_the_demo("capitals"), of_the_demo("endless"));
    let Some(site) = Site::open().await else {
        return;
    };
    // More than a page of memory holds at once.
    let words = "lent work, in small letters\n".repeat(5_000);
    let mut first = spec(&site, "capitals", &capitals);
    first.inputs = vec![site.input("text", &words)];
    let running = site.yard.start(first).await.unwrap();
    let end = running.wait().await;
    assert_eq!(end, JobEnd::Exited { code: 0 }, "{}", running.log_tail());
    let output = running.take_output().await.unwrap().unwrap();
    assert!(text(output.file) == words.to_uppercase());
    running.wipe().await.unwrap();
    let mut second = spec(&site, "endless", &endless);
    second.bounds.wall = Duration::from_millis(1500);
    let end = run(&site, second).await;
    assert!(!matches!(end, JobEnd::Exited { code: 0 }), "{end:?}");
}
