//! What is said when something is wrong, and the exit code.

use crate::support::Sandbox;

#[test]
fn a_wrong_command_line() {
    let sandbox = Sandbox::rack();
    for (name, args) in [
        ("unknown_command", &["chek"][..]),
        ("unknown_flag", &["check", "--jsno"]),
        ("dir_twice", &["-C", ".", "check", "."]),
        ("no_command", &["--quiet"]),
    ] {
        let ran = sandbox.run(args);
        assert_eq!(ran.code, 64, "{args:?}: {}", ran.text());
        insta::assert_snapshot!(format!("usage_{name}"), ran.text());
    }
}

#[test]
fn no_inventory() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.dir().join("empty")).unwrap();
    insta::assert_snapshot!(sandbox.run(["check"]).text(), @r"
    exit code 65
    -- stderr
    error: there is no undercroft.toml here, nor in a folder above
      hint: Make one with `undercroft init`, or name its folder with -C DIR.
    ");
    insta::assert_snapshot!(sandbox.run(["check", "empty"]).text(), @r"
    exit code 65
    -- stderr
    error: there is no undercroft.toml in empty
      hint: Make one with `undercroft init empty`.
    ");
    insta::assert_snapshot!(sandbox.run(["check", "nowhere"]).text(), @r"
    exit code 65
    -- stderr
    error: can't use nowhere
      cause: No such file or directory (os error 2)
      hint: Name the folder that holds undercroft.toml, or make one with `undercroft init DIR`.
    ");
}

#[test]
fn a_broken_inventory() {
    let sandbox = Sandbox::rack();
    let text = std::fs::read_to_string(sandbox.dir().join("undercroft.toml")).unwrap();
    sandbox.write(
        "undercroft.toml",
        &text
            .replace("layout = \"ext4\"", "layuot = \"ext4\"")
            .replace("10.88.0.12", "10.88.0.11"),
    );
    insta::assert_snapshot!("broken_inventory", sandbox.run(["check"]).text());
}

#[test]
fn a_bug_says_that_it_is_one() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(["bug"]);
    assert_eq!(ran.code, 70);
    let text = ran.err.replace(env!("CARGO_PKG_VERSION"), "[version]");
    let place = text.find("(at ").unwrap()..text.find(')').unwrap() + 1;
    let text = text.replace(text.get(place).unwrap(), "(at [place])");
    insta::assert_snapshot!(text, @r"
    error: this is a bug in undercroft [version]: the command `bug` always does this (at [place])
      What was carried out is in the journal: the same command goes on from there.
      hint: please report it at https://github.com/undercroft/undercroft/issues, with this text, the command that you ran, and what RUST_BACKTRACE=1 adds to it.
    ");
}

#[test]
fn no_rack() {
    let sandbox = Sandbox::rack();
    insta::assert_snapshot!("rack_not_running", sandbox.run(["rack", "status"]).text());
    let colour = sandbox.run(["rack", "up", "--set", "vm-01.colour=red"]);
    insta::assert_snapshot!("rack_set_unknown_key", colour.text());
    let nobody = sandbox.run(["rack", "up", "--set", "vm-09.serial=X"]);
    insta::assert_snapshot!("rack_set_unknown_node", nobody.text());
    let metal = Sandbox::new();
    metal.run(["init", "--quiet"]);
    insta::assert_snapshot!("rack_without_machines", metal.run(["rack", "up"]).text());
}

#[test]
fn a_foreign_or_broken_journal() {
    let sandbox = Sandbox::rack();
    std::fs::create_dir(sandbox.dir().join(".undercroft")).unwrap();
    sandbox.write(
        ".undercroft/journal.db",
        &"this is no database ".repeat(200),
    );
    for command in ["status", "events", "approve"] {
        let ran = sandbox.run([command]);
        assert_eq!(ran.code, 65, "{}", ran.text());
    }
    insta::assert_snapshot!("journal_of_another_program", sandbox.run(["status"]).text());
}

/// How a file can be wrong as a whole, over every example: it has one cause, and that is said once, with what
/// to do.
#[test]
fn a_file_that_is_wrong_as_a_whole_is_one_error() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut tried = 0;
    for example in crate::support::files(examples.as_ref()) {
        let text =
            std::fs::read_to_string(format!("{examples}/{example}/undercroft.toml")).unwrap();
        let sandbox = Sandbox::new();
        let file = sandbox.dir().join("undercroft.toml");
        for good in [text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
            std::fs::write(&file, good).unwrap();
            let ran = sandbox.run(["check"]);
            assert_eq!(ran.code, 0, "{example}: {}", ran.text());
        }
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        let too_long = format!("{text}\n# {}", "x".repeat(8 << 20));
        let bodies = [
            ("UTF-16", b"\xff\xfe".iter().copied().chain(units).collect()),
            ("too long", too_long.into_bytes()),
            ("empty", Vec::new()),
            ("blank", b"\n \n".to_vec()),
        ];
        for (what, body) in bodies {
            std::fs::write(&file, body).unwrap();
            one_error(&sandbox, &format!("{example}: {what}"));
            tried += 1;
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        one_error(&sandbox, &format!("{example}: a folder"));
        std::fs::remove_dir(&file).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, 0o600.into()).unwrap();
        one_error(&sandbox, &format!("{example}: a FIFO"));
        tried += 2;
    }
    assert!(tried >= 5 * 6, "{tried}");
}

fn one_error(sandbox: &Sandbox, what: &str) {
    for command in ["check", "plan", "render"] {
        let ran = sandbox.run([command]);
        let text = ran.text();
        assert_eq!(ran.code, 65, "{what}, {command}: {text}");
        let lines = || text.lines().filter(|line| line.starts_with("error"));
        let findings = lines().filter(|line| line.starts_with("error[")).count();
        // The findings, and then that the file can't be used because of them.
        let summed = lines()
            .filter(|l| l.ends_with("can't be used: 1 error"))
            .count();
        assert_eq!(findings, summed, "{what}, {command}: {text}");
        assert_eq!(lines().count() - summed, 1, "{what}, {command}: {text}");
        assert_eq!(
            text.matches("hint:").count(),
            1,
            "{what}, {command}: {text}"
        );
    }
}

#[test]
fn files_of_lending_that_are_too_large_are_refused_unread() {
    /// What a command may have of memory here, in KiB: whoever reads one of these whole has too little.
    const MEMORY_KIB: &str = "6000000";
    let sandbox = Sandbox::new();
    let file = std::fs::File::create(sandbox.dir().join("huge")).unwrap();
    file.set_len(10_000_000_000).unwrap();
    let key = undercroft_lending::keys::UserKey::read_or_make(&sandbox.dir().join("key.nk"));
    let public = key.unwrap().0.public().0;
    let audit =
        format!("lend audit verify huge --device desk --device-key {public} --owner-key {public}");
    // The second has no end, and doesn't say how large it is. A ledger's limit is a GiB, which takes long to read.
    for file in ["huge", "/dev/zero"] {
        let settings = format!("lend build --config {file} {file}");
        for line in [
            format!("lend submit {file} --key key.nk"),
            format!("lend server --config {file} --key key.nk"),
            format!("lend server --config {file} --key {file}"),
            format!("lend jobs --as ci --nats nats://127.0.0.1:1 --key {file}"),
            format!("lend jobs --as ci --nats nats://127.0.0.1:1 --key key.nk --ca {file}"),
            format!("lend offers --config {file}"),
            settings,
            audit.clone(),
        ] {
            let mut shell = sandbox.shell();
            shell.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", MEMORY_KIB]);
            shell.arg(env!("CARGO_BIN_EXE_undercroft"));
            shell.args(line.split(' '));
            let ran = sandbox.finish(&mut shell);
            let says = [
                "it is larger than",
                "is longer than",
                "is no file with a key",
            ];
            assert!(
                ran.code == 65 && says.iter().any(|says| ran.err.contains(says)),
                "{line}: {}",
                ran.text()
            );
        }
    }
}
