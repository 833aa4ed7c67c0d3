//! What the command does with folders, files and streams.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Sandbox, files};

#[test]
fn init_makes_a_folder_that_checks() {
    for template in ["metal", "cluster", "rack"] {
        let sandbox = Sandbox::new();
        let made = sandbox.run(["init", "demo", "--template", template]);
        insta::assert_snapshot!(format!("init_{template}"), made.text());
        assert_eq!(
            files(&sandbox.dir().join("demo")),
            [".gitignore", "README.md", "flake.nix", "undercroft.toml"]
        );
        let checked = sandbox.run(["check", "demo"]);
        assert_eq!(
            (checked.code, checked.err.as_str()),
            (0, ""),
            "{}",
            checked.text()
        );
        for file in files(&sandbox.dir().join("demo")) {
            let text = std::fs::read_to_string(sandbox.dir().join("demo").join(&file)).unwrap();
            assert!(!text.contains("@FLEET@"), "{file}");
        }
    }
}

#[test]
fn init_leaves_what_is_there() {
    let sandbox = Sandbox::new();
    sandbox.write("README.md", "mine\n");
    let made = sandbox.run(["init", "--fleet", "attic"]);
    assert_eq!(made.code, 0);
    assert!(made.err.contains("kept"), "{}", made.err);
    let readme = std::fs::read_to_string(sandbox.dir().join("README.md")).unwrap();
    assert_eq!(readme, "mine\n");
    let again = sandbox.run(["init", "--fleet", "cellar"]);
    assert_eq!(again.code, 65);
    let inventory = std::fs::read_to_string(sandbox.dir().join("undercroft.toml")).unwrap();
    assert!(inventory.contains("name = \"attic\""));
}

#[test]
fn the_inventory_is_found_from_below_and_by_its_own_name() {
    let sandbox = Sandbox::rack();
    std::fs::create_dir_all(sandbox.dir().join("a/b")).unwrap();
    let below = sandbox.finish(
        sandbox
            .command(["check"])
            .current_dir(sandbox.dir().join("a/b")),
    );
    assert_eq!(below.code, 0, "{}", below.text());
    assert!(
        below.out.contains("the fleet demo with 3 nodes"),
        "{}",
        below.out
    );
    for args in [["check", "undercroft.toml"], ["check", "."]] {
        assert_eq!(sandbox.run(args).code, 0, "{args:?}");
    }
    assert_eq!(sandbox.run(["-C", "undercroft.toml", "check"]).code, 0);
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let sandbox = Sandbox::rack();
    let escape = '\u{1b}';
    let plain = sandbox.run(["check"]);
    assert!(!plain.out.contains(escape));
    let asked = sandbox.run(["check", "--color", "always"]);
    assert!(asked.out.contains(escape));
    let forced = sandbox.finish(sandbox.command(["check"]).env("CLICOLOR_FORCE", "1"));
    assert!(forced.out.contains(escape));
    let refused = sandbox.finish(
        sandbox
            .command(["check"])
            .env("CLICOLOR_FORCE", "1")
            .env("NO_COLOR", "1"),
    );
    assert!(!refused.out.contains(escape), "{}", refused.out);
    let never = sandbox.finish(
        sandbox
            .command(["check", "--color", "never"])
            .env("CLICOLOR_FORCE", "1"),
    );
    assert!(!never.out.contains(escape));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(["schema"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn the_schema_is_json_schema() {
    let sandbox = Sandbox::new();
    let schema: serde_json::Value = serde_json::from_str(&sandbox.run(["schema"]).out).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert!(schema["properties"]["nodes"].is_object());
}

#[test]
fn check_as_json_has_the_documented_shape() {
    let sandbox = Sandbox::rack();
    let good: serde_json::Value =
        serde_json::from_str(&sandbox.run(["check", "--json"]).out).unwrap();
    assert_eq!(good["ok"], true);
    assert_eq!(good["nodes"], 3);
    sandbox.write("undercroft.toml", "[fleet]\nnam = \"x\"\n");
    let ran = sandbox.run(["check", "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (65, ""));
    let bad: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(bad["ok"], false);
    let finding = &bad["diagnostics"].as_array().unwrap().last().unwrap();
    assert_eq!(finding["code"], "unknown-key");
    assert_eq!(finding["place"]["line"], 2);
}

#[test]
fn quiet_says_only_what_was_asked_for() {
    let sandbox = Sandbox::new();
    let made = sandbox.run(["init", "--quiet"]);
    assert_eq!(made.text(), "exit code 0\n");
    let mode = std::fs::metadata(sandbox.dir().join("undercroft.toml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o111, 0);
}

#[test]
fn a_rehearsal_follows_from_its_seed() {
    let sandbox = Sandbox::rack();
    let rehearse = |seed: &str| {
        let ran = sandbox.run(["rehearse", "--faults", "none", "--json", "--seed", seed]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.text());
        serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()
    };
    let first = rehearse("7");
    assert_eq!(first, rehearse("7"));
    assert_ne!(first["digest"], rehearse("8")["digest"]);
    assert_eq!(first["report"]["up"], 3);
    assert_eq!(first["report"]["profile"], "rack");
    assert!(
        !sandbox.dir().join(".undercroft").exists(),
        "a rehearsal writes nothing"
    );
}

#[test]
fn a_rehearsal_reads_well_and_can_be_of_many_seeds() {
    let sandbox = Sandbox::rack();
    let one = sandbox.run(["rehearse", "--faults", "none", "--journal", "journal.bin"]);
    assert_eq!(one.code, 0, "{}", one.text());
    assert!(one.out.contains("All 3 are up"), "{}", one.out);
    assert!(one.out.contains("digest "), "{}", one.out);
    assert!(sandbox.dir().join("journal.bin").is_file());
    let many = sandbox.run(["rehearse", "--faults", "none", "--seeds", "3"]);
    assert_eq!(many.code, 0, "{}", many.text());
    assert!(many.out.contains("3 seeds from 1 to 3"), "{}", many.out);
    let none = sandbox.run(["rehearse", "--seeds", "0"]);
    assert_eq!(none.code, 64, "{}", none.text());
}

#[test]
fn status_and_events_work_before_anything_has_happened() {
    let sandbox = Sandbox::rack();
    insta::assert_snapshot!("status_before", sandbox.run(["status"]).text());
    let status: serde_json::Value =
        serde_json::from_str(&sandbox.run(["status", "--json"]).out).unwrap();
    assert_eq!(status["controller"], serde_json::Value::Null);
    assert_eq!(status["nodes"]["vm-01"]["state"], "unknown");
    insta::assert_snapshot!("events_before", sandbox.run(["events"]).text());
    insta::assert_snapshot!("approve_before", sandbox.run(["approve"]).text());
    insta::assert_snapshot!(
        "approve_nobody",
        sandbox.run(["approve", "vm-01", "SHA256:x"]).text()
    );
}

/// Values that nobody has put their own in the place of are told, once, and no rehearsal is kept from them.
#[test]
fn what_a_template_has_made_up_is_told_until_it_is_replaced() {
    for (template, told) in [("cluster", true), ("metal", true), ("rack", false)] {
        let sandbox = Sandbox::new();
        let made = sandbox.run(["init", "--template", template, "--fleet", "demo"]);
        assert_eq!(made.code, 0, "{}", made.text());
        let times = |text: &str| text.matches("`undercroft init` made up").count();
        let checked = sandbox.run(["check"]);
        assert_eq!(checked.code, 0, "{}", checked.text());
        assert_eq!(
            times(&checked.text()),
            usize::from(told),
            "{}",
            checked.text()
        );
        let path = sandbox.dir().join("undercroft.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        // The serials alone are not enough.
        let half = text.replace("SERIAL-OF-DISK-", "S6P1NX0T");
        std::fs::write(&path, &half).unwrap();
        assert_eq!(times(&sandbox.run(["check"]).text()), usize::from(told));
        std::fs::write(&path, half.replace("02:00:00:00:00:", "3c:ec:ef:10:00:")).unwrap();
        assert_eq!(times(&sandbox.run(["check"]).text()), 0);
    }
}
