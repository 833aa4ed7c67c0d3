//! Functions that can't be read in one sitting.

use std::path::Path;

/// The longest function, in lines from its `fn` to its closing brace.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

/// One `match` with an arm for each case, each short: apart, the cases would be harder to compare.
const CASES: &str = "an arm for each case";
/// What is written is data: a manifest, a command line, a table.
const DATA: &str = "data, written out";
/// Steps that follow each other, each with its own message; named parts would be called once.
const SEQUENCE: &str = "steps in a row";
/// Longer than it should be, from before the rule; it may shrink and go from this list.
const OLD: &str = "to come apart";

/// The functions that may be longer, by file and name, and why.
#[rustfmt::skip]
const ALLOWED: &[(&str, &str, &str)] = &[
    ("crates/build/src/installer/debian.rs", "assemble", SEQUENCE),
    ("crates/cli/src/commands/dev.rs", "config", SEQUENCE),
    ("crates/cli/src/commands/doctor.rs", "run", SEQUENCE),
    ("crates/cli/src/commands/init.rs", "run", SEQUENCE),
    ("crates/cli/src/commands/render.rs", "run", OLD),
    ("crates/cli/src/commands/serve.rs", "run", SEQUENCE),
    ("crates/cli/src/owner.rs", "become_owner", SEQUENCE),
    ("crates/journal/src/store.rs", "inspect", SEQUENCE),
    ("crates/fleet/src/gitops.rs", "read_app", OLD),
    ("crates/fleet/src/narrate.rs", "sentence", CASES),
    ("crates/fleet/src/releases.rs", "raise_one", OLD),
    ("crates/fleet/src/run.rs", "carry_out", SEQUENCE),
    ("crates/metal/src/world/cluster/ready.rs", "ready", OLD),
    ("crates/steps/src/exit.rs", "refused", CASES),
    ("crates/model/src/inventory/check/cluster.rs", "components", OLD),
    ("crates/model/src/inventory/check/gpu.rs", "faults", OLD),
    ("crates/model/src/inventory/check/identities.rs", "check", OLD),
    ("crates/model/src/inventory/check/machines.rs", "layout", OLD),
    ("crates/model/src/inventory/check/machines.rs", "machine", OLD),
    ("crates/model/src/inventory/check/network.rs", "overlay", OLD),
    ("crates/model/src/inventory/check/network.rs", "collisions", OLD),
    ("crates/model/src/view/fold.rs", "apply", CASES),
    ("crates/netboot/src/decision.rs", "dhcp", CASES),
    ("crates/netboot/src/timeline/describe.rs", "describe", CASES),
    ("crates/planner/src/estimate.rs", "estimate", DATA),
    ("crates/rack/src/qemu.rs", "arguments", DATA),
    ("crates/render/src/components/grafana.rs", "values", DATA),
    ("crates/render/src/components/local_path.rs", "manifests", DATA),
    ("crates/render/src/readme.rs", "write", DATA),
    ("crates/secrets/src/catalogue.rs", "servers_secrets", DATA),
    ("crates/secrets/src/catalogue.rs", "operators_secrets", DATA),
    ("xtask/src/nix_eval/report.rs", "report", OLD),
    ("xtask/src/trial.rs", "run", SEQUENCE),
];

/// Adds a finding for each function that is too long, and for each permission that nobody needs.
pub(crate) fn check(file: &Path, content: &str, findings: &mut Vec<String>) {
    let shown = file.to_string_lossy();
    let long: Vec<(usize, String, usize)> = functions(content)
        .filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX)
        .collect();
    for (number, name, lines) in &long {
        if !is_allowed(&shown, name) {
            findings.push(format!(
                "{shown}:{number}: `{name}` has {lines} lines; is it two things?"
            ));
        }
    }
    for (_, name, _) in ALLOWED.iter().filter(|(of, _, _)| *of == shown) {
        if !long.iter().any(|(_, of, _)| of == name) {
            findings.push(format!(
                "{shown}: `{name}` isn't that long any more: take it from the list"
            ));
        }
    }
}

fn is_allowed(file: &str, function: &str) -> bool {
    ALLOWED
        .iter()
        .any(|(of, name, _)| *of == file && *name == function)
}

/// Every function outside tests: the line of its `fn`, its name, its lines. The code is formatted, so that a function
/// ends where a brace stands as far in as its `fn`.
fn functions(content: &str) -> impl Iterator<Item = (usize, String, usize)> {
    let lines: Vec<&str> = content.lines().collect();
    let end = lines
        .windows(2)
        .position(|pair| pair == ["#[cfg(test)]", "mod tests {"])
        .unwrap_or(lines.len());
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().take(end) {
        let Some(name) = name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        // A function of a trait has no body, and one of a single line is short.
        let head = lines.iter().skip(at).find(|l| l.ends_with(['{', '}', ';']));
        if !head.is_some_and(|line| line.ends_with('{')) {
            continue;
        }
        if let Some(length) = lines.iter().skip(at).position(|line| *line == closing) {
            found.push((at + 1, name.to_owned(), length + 1));
        }
    }
    found.into_iter()
}

/// The name of the function that a line begins, if it begins one.
fn name(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let plain = |word: &str| {
        matches!(word, "async" | "const" | "pub" | "unsafe") || word.starts_with("pub(")
    };
    if !before.split_whitespace().all(plain) || !(before.is_empty() || before.ends_with(' ')) {
        return None;
    }
    rest.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_function_is_found_and_a_short_one_is_not() {
        let long = format!(
            "    pub(crate) async fn long(&self) {{\n{}    }}\n",
            "        a();\n".repeat(70)
        );
        let text = format!("fn short() {{\n    b();\n}}\nimpl X {{\n{long}}}\n");
        let mut findings = Vec::new();
        check(Path::new("x.rs"), &text, &mut findings);
        assert_eq!(findings, ["x.rs:5: `long` has 72 lines; is it two things?"]);
        let mut none = Vec::new();
        check(
            Path::new("x.rs"),
            &format!("#[cfg(test)]\nmod tests {{\n{long}}}\n"),
            &mut none,
        );
        assert_eq!(none, [""; 0]);
    }

    #[test]
    fn a_trait_is_no_long_function() {
        let text = format!(
            "trait T {{\n    fn a(&self);\n{}}}\n",
            "    fn b(&self);\n".repeat(100)
        );
        assert_eq!(functions(&text).count(), 0);
    }

    #[test]
    fn every_permission_has_its_reason() {
        for (file, name, why) in ALLOWED {
            assert!([CASES, DATA, SEQUENCE, OLD].contains(why), "{file}: {name}");
        }
    }
}
