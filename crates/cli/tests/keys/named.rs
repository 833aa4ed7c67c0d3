//! Each key, command and flag that a page or a message names is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    process::Command,
};

use undercroft_testkit::{repository, tracked};

use super::schema::leaves;

/// Flags of other programs that pages and messages name.
const FLAGS_OF_OTHERS: &[&str] = &[
    "--accept-dns",
    "--accept-routes",
    "--all-targets",
    "--auth-key",
    "--device",
    "--disable-helm-controller",
    "--edit",
    "--exact",
    "--group",
    "--lib",
    "--nixpkgs",
    "--release",
    "--test",
    "--user",
    "--workspace",
];

/// Names with dots that look like keys and are something else: a subject of NATS.
const NO_KEYS: &[&str] = &["lend.want.NAME", "lend.beat.NAME", "lend.submit.NAME"];

/// The commands with their flags, as their help has them.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    let mut queue = vec![String::new()];
    while let Some(path) = queue.pop() {
        let output = Command::new(env!("CARGO_BIN_EXE_undercroft"))
            .args(path.split_whitespace())
            .arg("--help")
            .output()
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let mut flags = BTreeSet::new();
        let mut in_commands = false;
        for line in help.lines() {
            if !line.starts_with(' ') && !line.is_empty() {
                // Headings; groups of commands have headings of their own.
                in_commands = line.to_lowercase().contains("commands");
            }
            let trimmed = line.trim_start();
            if in_commands && line.starts_with("  ") && !line.starts_with("   ") {
                let name = trimmed.split_whitespace().next().unwrap_or_default();
                let plain =
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
                if plain && !name.starts_with('-') && name != "help" {
                    queue.push(format!("{path} {name}").trim().to_owned());
                }
            }
            if trimmed.starts_with('-') {
                let flag = |word: &&str| word.starts_with('-');
                let words = trimmed.split([' ', ',', '=']).filter(flag);
                flags.extend(words.map(str::to_owned));
            }
        }
        all.insert(path, flags);
    }
    assert!(all.len() > 20, "{:?}", all.keys());
    all
}

/// Code spans of a text in Markdown, and of a message: what stands between backquotes on a line.
fn spans(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut parts = line.split('`');
        let _ = parts.next();
        while let (Some(span), Some(_)) = (parts.next(), parts.next()) {
            all.push(span.to_owned());
        }
    }
    all
}

/// Lines of console blocks that call the command.
fn console_lines(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("$ "))
        .map(|line| {
            line.trim_start_matches("sudo ")
                .split('#')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .filter(|line| line.starts_with("undercroft "))
        .collect()
}

/// The string literals of a Rust source, comments left out.
fn literals(source: &str) -> Vec<String> {
    let mut all = Vec::new();
    for line in source.lines() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        // A message may go over several lines; each of its lines is looked at by itself.
        all.push(code.replace("\\\"", "\""));
    }
    all
}

fn flag_faults(
    words: &[&str],
    flags: &BTreeSet<String>,
    everywhere: &BTreeSet<String>,
) -> Vec<String> {
    let mut faults = Vec::new();
    for word in words {
        if *word == "--" || matches!(*word, "|" | ">" | "&&" | ";") {
            break;
        }
        let flag = word
            .split('=')
            .next()
            .unwrap_or_default()
            .trim_end_matches(['.', ',', ')', ']']);
        let is_flag = flag.len() > 2 && flag.starts_with("--");
        if is_flag && !flags.contains(flag) && !everywhere.contains(flag) {
            faults.push(flag.to_owned());
        }
    }
    faults
}

/// What is wrong with a call of the command; `None` where it is none, or one of another kind.
fn call_fault(call: &str, commands: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let words: Vec<&str> = call
        .strip_prefix("undercroft ")?
        .split_whitespace()
        .collect();
    let everywhere = &commands[""];
    let mut path = String::new();
    let mut rest = words.as_slice();
    while let [word, tail @ ..] = rest {
        let longer = format!("{path} {word}").trim().to_owned();
        if !commands.contains_key(&longer) {
            break;
        }
        path = longer;
        rest = tail;
    }
    let first = words.first()?;
    let placeholder = first.starts_with(['-', '<', '{', '[', '…', '.'])
        || first.chars().any(|c| c.is_ascii_uppercase());
    let is_version = first.starts_with(|c: char| c.is_ascii_digit());
    if path.is_empty() && !placeholder && !is_version {
        return Some(format!("`{call}`: there is no such command"));
    }
    let faults = flag_faults(rest, &commands[&path], everywhere);
    (!faults.is_empty()).then(|| format!("`{call}`: {path:?} has no {}", faults.join(" ")))
}

/// What is wrong with a key that a span names; `None` where it names none of the inventory's.
fn key_fault(span: &str, keys: &BTreeSet<String>, tables: &[&str]) -> Option<String> {
    let code = span.split(" = ").next().unwrap_or_default().trim();
    let code = code.trim_start_matches('[').trim_end_matches(']');
    let plain = code.bytes().all(|b| {
        b.is_ascii_lowercase()
            || b.is_ascii_uppercase()
            || b.is_ascii_digit()
            || b"_.-".contains(&b)
    });
    let parts: Vec<&str> = code.split('.').collect();
    // Files, hosts and options of NixOS have dots too.
    let is_nix = span.trim_end().ends_with(';') || code.starts_with("undercroft.");
    if !plain || is_nix || NO_KEYS.contains(&code) || parts.len() < 2 || !tables.contains(&parts[0])
    {
        return None;
    }
    if [
        "toml", "nix", "yaml", "json", "rs", "md", "lock", "sh", "txt", "png",
    ]
    .contains(parts.last()?)
    {
        return None;
    }
    let found = keys.iter().any(|key| {
        let key: Vec<&str> = key.split('.').collect();
        let fits = |wanted: &[&str], key: &[&str]| {
            wanted.len() <= key.len()
                && wanted
                    .iter()
                    .zip(key)
                    .all(|(w, k)| k.trim_end_matches("[]") == *w || *k == "NAME" || *w == "NAME")
        };
        // Below a class or a node, a table may be named alone: `netboot.snponly`.
        fits(&parts, &key) || (key.len() > 2 && key[1] == "NAME" && fits(&parts, &key[2..]))
    });
    (!found).then(|| format!("`{span}`: the inventory has no such key"))
}

#[test]
fn every_key_command_and_flag_that_is_named_is_there() {
    let commands = commands();
    let keys: BTreeSet<String> = leaves().into_keys().collect();
    let tables = [
        "fleet",
        "network",
        "kubernetes",
        "gitops",
        "secrets",
        "lending",
        "classes",
        "nodes",
        "pcs",
        "users",
        "netboot",
        "power",
        "gpu",
        "longhorn",
        "rack",
        "lend",
        "overlay",
        "dhcp_range",
        "limits",
        "retries",
        "timeouts",
    ];
    let any_flag: BTreeSet<&str> = commands.values().flatten().map(String::as_str).collect();
    let mut files = tracked("docs");
    files.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(Into::into));
    files.extend(tracked("crates").into_iter().filter(|file| {
        let path = file.to_string_lossy();
        (path.contains("/src/") && path.ends_with(".rs") && !path.contains("tests"))
            || path.ends_with(".snap")
    }));
    let mut faults = String::new();
    let mut looked_at = 0;
    for file in files {
        let Ok(text) = std::fs::read_to_string(repository().join(&file)) else {
            continue;
        };
        let is_rust = file.extension().is_some_and(|e| e == "rs");
        let is_page = file.extension().is_some_and(|e| e == "md");
        let mut named: Vec<String> = if is_rust {
            literals(&text)
                .iter()
                .flat_map(|line| spans(line))
                .collect()
        } else {
            spans(&text)
        };
        if is_page {
            named.extend(console_lines(&text));
        }
        for span in named {
            looked_at += 1;
            let mut say = |fault: String| {
                let _ = writeln!(faults, "{}: {fault}", file.display());
            };
            if let Some(fault) = call_fault(&span, &commands) {
                say(fault);
            }
            if let Some(fault) = key_fault(&span, &keys, &tables) {
                say(fault);
            }
            let alone = span.split([' ', '=']).next().unwrap_or_default();
            let is_flag = alone.len() > 2
                && alone.starts_with("--")
                && alone.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            if is_flag && !any_flag.contains(alone) && !FLAGS_OF_OTHERS.contains(&alone) {
                say(format!("`{span}`: no command has that flag"));
            }
        }
    }
    assert!(looked_at > 2000, "{looked_at} names");
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn what_is_not_there_is_found() {
    let commands = commands();
    let keys: BTreeSet<String> = leaves().into_keys().collect();
    let tables = ["netboot", "network", "nodes"];
    assert!(call_fault("undercroft dance --now", &commands).is_some());
    assert!(call_fault("undercroft up --slowly", &commands).is_some());
    assert!(
        call_fault("undercroft up --yes demo", &commands).is_none()
            == commands["up"].contains("--yes")
    );
    assert!(key_fault("netboot.pxe_4011 = \"only\"", &keys, &tables).is_some());
    assert!(key_fault("netboot.ask_4011 = true", &keys, &tables).is_none());
    assert!(key_fault("nodes.gpu-01.macs", &keys, &tables).is_none());
    assert!(key_fault("network.server", &keys, &tables).is_some());
}
