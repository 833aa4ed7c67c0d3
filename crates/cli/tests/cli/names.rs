//! Names where they are typed: nodes, classes and patterns as arguments, and what a shell completes.

use std::process::Command;

use undercroft_testkit::skip;

use crate::support::Sandbox;

#[test]
fn a_machine_is_named_where_it_is_typed() {
    let sandbox = Sandbox::rack();
    let one = sandbox.run(["status", "vm-02"]);
    assert_eq!(one.code, 0, "{}", one.text());
    assert!(
        one.out.contains("vm-02") && !one.out.contains("vm-01"),
        "{}",
        one.out
    );
    // A class, a pattern, a list, and the folder beside them.
    for words in [
        &["virtual"][..],
        &["vm-*"],
        &["vm-01,vm-02,vm-03"],
        &[".", "vm-0?"],
    ] {
        let all = sandbox.run([&["status"], words].concat());
        let named = (1..4).all(|n| all.out.contains(&format!("vm-0{n}")));
        assert!(all.code == 0 && named, "{words:?}: {}", all.text());
    }
    let json = sandbox.run(["status", "--json", "vm-03"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let nodes: Vec<&String> = json["nodes"].as_object().unwrap().keys().collect();
    assert_eq!(nodes, ["vm-03"]);
    // The folder alone still does what it did, from above too.
    let above = sandbox.finish(
        sandbox
            .command(["status", "work", "vm-01"])
            .current_dir(sandbox.dir().join("..")),
    );
    assert!(
        above.code == 0 && above.out.contains("vm-01"),
        "{}",
        above.text()
    );
}

#[test]
fn a_name_that_means_nothing_is_an_error_everywhere() {
    let sandbox = Sandbox::rack();
    for words in [
        &["status", "vm-09"][..],
        &["events", "vm-09"],
        &["events", "--node", "vm-09"],
        &["plan", "vm-09"],
        &["plan", "--only", "vm-01,vm-09"],
        &["up", "vm-09"],
        &["serve", "--only", "vm-9*"],
        &["up", "--reinstall", "vm-09"],
    ] {
        let ran = sandbox.run(words);
        assert_eq!(ran.code, 64, "{words:?}: {}", ran.text());
        assert!(
            ran.err.contains("vm-09") || ran.err.contains("vm-9*"),
            "{}",
            ran.err
        );
        assert!(ran.err.contains("vm-01, vm-02 and vm-03"), "{}", ran.err);
    }
}

#[test]
fn help_is_a_command_too() {
    let sandbox = Sandbox::new();
    let all = sandbox.run(["help"]);
    assert!(
        all.code == 0 && all.out.contains("Usage: undercroft"),
        "{}",
        all.text()
    );
    for words in [&["up"][..], &["secrets", "rotate"]] {
        let help = sandbox.run([&["help"], words].concat());
        let flag = sandbox.run([words, &["--help"]].concat());
        assert_eq!((help.code, help.out), (0, flag.out), "{words:?}");
    }
}

/// What bash itself offers for a line, with the script that the command prints.
fn bash_offers(sandbox: &Sandbox, line: &str) -> Vec<String> {
    const ASK: &str = r#"
source <(undercroft completions bash)
line=$1
read -ra COMP_WORDS <<< "$line"
[[ $line == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9
spec=$(complete -p undercroft)
[[ $spec =~ -F\ ([^ ]+) ]]
"${BASH_REMATCH[1]}" undercroft "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"
"#;
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_undercroft"));
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", ASK, "bash", line])
        .current_dir(sandbox.dir())
        .env_clear()
        .env("HOME", sandbox.dir())
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut offers: Vec<String> = text
        .lines()
        .map(|l| l.trim().to_owned())
        .filter(|l| !l.is_empty())
        .collect();
    offers.sort();
    offers
}

#[test]
fn bash_completes_the_names_of_the_inventory() {
    if !std::path::Path::new("/bin/bash").exists() {
        skip("bash is missing");
        return;
    }
    let sandbox = Sandbox::rack();
    let offers = |line: &str| bash_offers(&sandbox, line);
    assert_eq!(offers("undercroft doctor vm"), ["vm-01", "vm-02", "vm-03"]);
    assert_eq!(offers("undercroft status vm-03"), ["vm-03"]);
    assert_eq!(offers("undercroft up --only vm-01,vir"), ["vm-01,virtual"]);
    assert_eq!(offers("undercroft up --reinstall vm-02"), ["vm-02"]);
    assert_eq!(offers("undercroft rack cut vm-02"), ["vm-02"]);
    assert_eq!(offers("undercroft statu"), ["status"]);
    let secrets = offers("undercroft secrets rotate ");
    assert!(
        secrets.iter().all(|name| !name.contains(' ')),
        "{secrets:?}"
    );
    // Another folder's names, by -C; and where there is no inventory, nothing and no noise.
    let other = Sandbox::rack();
    let folder = other.dir();
    let empty = Sandbox::new();
    let line = format!("undercroft -C {} doctor vm-01", folder.display());
    assert_eq!(bash_offers(&empty, &line), ["vm-01"]);
    assert_eq!(bash_offers(&empty, "undercroft doctor vm"), [""; 0]);
}

#[test]
fn every_shell_gets_a_script_that_its_own_shell_reads() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = sandbox.run(["completions", shell]);
        assert_eq!(script.code, 0, "{shell}");
        assert!(
            script.out.contains("UNDERCROFT_COMPLETE"),
            "{shell}: {}",
            script.out
        );
        sandbox.write("script", &script.out);
        let parse = match shell {
            "bash" | "zsh" => Command::new(shell)
                .args(["-n", "script"])
                .current_dir(sandbox.dir())
                .output(),
            "fish" => Command::new(shell)
                .args(["--no-execute", "script"])
                .current_dir(sandbox.dir())
                .output(),
            _ => continue,
        };
        match parse {
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
            Err(_) => skip(format!("{shell} is missing")),
        }
    }
}

#[test]
fn programs_are_shown_when_asked_for_and_never_otherwise() {
    let sandbox = Sandbox::rack();
    let quiet = sandbox.run(["status"]);
    assert!(!quiet.err.contains("$ "), "{}", quiet.err);
    let both = sandbox.run(["-v", "-q", "status"]);
    assert_eq!(both.code, 64, "{}", both.text());
    // `power` of a machine whose inventory says with which command.
    let text = std::fs::read_to_string(sandbox.dir().join("undercroft.toml")).unwrap();
    let command = r#"power = { kind = "command", on = ["true", "{node}"], off = ["true"], status = ["echo", "on", "a b"] }"#;
    sandbox.write(
        "undercroft.toml",
        &text.replace("power = { kind = \"rack\" }", command),
    );
    let ran = sandbox.run(["power", "vm-01", "-v"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert!(ran.err.contains("$ echo on 'a b'"), "{}", ran.err);
    let ran = sandbox.run(["power", "vm-01", "--json", "-v"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["power"], "on");
    // Git, which says which files are the repository's.
    let ran = sandbox.run(["secrets", "check", "-v"]);
    assert!(ran.err.contains("$ git -C "), "{}", ran.text());
}
