//! The house rules that a program can check. It is a task, and a test.

mod circles;
mod drawing;
mod face;
mod functions;
mod names;
mod signature;
mod source;
mod tokens;
mod unused;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use crate::run::Failed;
use source::read;

/// Which crates of the workspace a crate may use. A new edge needs a line in ARCHITECTURE.md.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("planner", &["model"]),
    ("engine", &["model", "planner"]),
    ("steps", &["model"]),
    ("simkit", &[]),
    ("sim", &["engine", "model", "planner", "simkit", "steps"]),
    ("lend", &["model"]),
    ("metrics", &[]),
    ("nar", &[]),
    ("sandbox", &["model", "nar", "process"]),
    ("jobrun", &["nar", "sandbox"]),
    (
        "lending",
        &[
            "folder", "lend", "metrics", "model", "nar", "process", "sandbox",
        ],
    ),
    ("netboot", &["model"]),
    ("sops", &[]),
    ("testkit", &[]),
    ("render", &["lend", "model"]),
    ("process", &["model"]),
    ("folder", &["model"]),
    ("ssh", &["model", "process"]),
    (
        "journal",
        &["engine", "folder", "model", "netboot", "process"],
    ),
    (
        "secrets",
        &["folder", "model", "netboot", "process", "sops", "ssh"],
    ),
    ("build", &["folder", "model", "process"]),
    ("rack", &["model", "process"]),
    ("kube", &["model", "process", "steps"]),
    (
        "metal",
        &[
            "build", "engine", "journal", "kube", "model", "netboot", "planner", "process", "rack",
            "secrets", "ssh", "steps",
        ],
    ),
    (
        "fleet",
        &[
            "build", "engine", "folder", "journal", "kube", "metal", "metrics", "model", "netboot",
            "planner", "process", "render", "secrets",
        ],
    ),
    (
        "cli",
        &[
            "build", "engine", "fleet", "folder", "journal", "lending", "metal", "model",
            "netboot", "planner", "process", "rack", "render", "secrets", "sim", "ssh",
        ],
    ),
];

/// Crates without clock, entropy, environment, files or async.
const PURE: &[&str] = &[
    "model", "planner", "engine", "steps", "simkit", "sim", "render", "lend",
];

/// Dependencies that would make a crate impure.
const IMPURE_DEPENDENCIES: &[&str] = &[
    "tokio",
    "rustix",
    "socket2",
    "rusqlite",
    "rand",
    "getrandom",
];

/// The longest source file, in lines. A longer one is probably two things.
const FILE_LINES_MAX: usize = 700;

/// Words that would send a reader to somebody's machine or to a package registry's host. They are
/// spelt in parts so that this file doesn't find itself.
const STRAY: &[(&str, &str)] = &[
    ("/wo", "rk/main"),
    ("/ro", "ot/.c"),
    ("/fa", "rm/"),
    ("deb.deb", "ian.org"),
    ("static.cra", "tes.io"),
    ("index.cra", "tes.io"),
    ("registry.np", "mjs"),
    ("proxy.gol", "ang"),
    ("files.python", "hosted"),
];

/// Words that mark unfinished work.
const UNFINISHED: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("HA", "CK:")];

/// Runs all checks and prints what they find.
pub(crate) fn run(root: &Path) -> Result<(), Failed> {
    let findings = check(root)?;
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(Failed::new("tidy", format!("{} findings", findings.len())))
    }
}

/// Everything that breaks a rule, a line each.
fn check(root: &Path) -> Result<Vec<String>, Failed> {
    let mut findings = Vec::new();
    crates(root, &mut findings)?;
    let files = tracked(root)?;
    sources(root, &mut findings)?;
    unused::check(root, &files, &mut findings);
    for file in &files {
        text(root, file, &mut findings);
    }
    Ok(findings)
}

fn crates(root: &Path, findings: &mut Vec<String>) -> Result<(), Failed> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let architecture = read(&root.join("ARCHITECTURE.md")).unwrap_or_default();
    let folder = root.join("crates");
    let entries = std::fs::read_dir(&folder)
        .map_err(|e| Failed::new("tidy", format!("{}: {e}", folder.display())))?;
    let mut edges_found = drawing::Edges::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let manifest = read(&entry.path().join("Cargo.toml"))?;
        let manifest: toml_edit::DocumentMut = manifest
            .parse()
            .map_err(|e| Failed::new("tidy", format!("crates/{name}/Cargo.toml: {e}")))?;
        let dependencies: Vec<String> = manifest
            .get("dependencies")
            .and_then(|table| table.as_table_like())
            .map(|table| table.iter().map(|(key, _)| key.to_owned()).collect())
            .unwrap_or_default();
        let used = dependencies.iter();
        let used = used.filter_map(|name| name.strip_prefix("undercroft-"));
        edges_found.insert(name.clone(), used.map(str::to_owned).collect());
        if !architecture.contains(&format!("| `{name}` |")) {
            findings.push(format!(
                "ARCHITECTURE.md doesn't say what crates/{name} is for"
            ));
        }
        let Some(edges) = allowed.get(name.as_str()) else {
            findings.push(format!("crates/{name}: no room in xtask's list of crates"));
            continue;
        };
        for dependency in &dependencies {
            match dependency.strip_prefix("undercroft-") {
                Some(other) if !edges.contains(&other) => {
                    findings.push(format!("crates/{name} must not use crates/{other}"));
                }
                None if !architecture.contains(&format!("`{dependency}`")) => {
                    findings.push(format!(
                        "ARCHITECTURE.md doesn't say why `{dependency}` is used"
                    ));
                }
                _ => {}
            }
            if PURE.contains(&name.as_str()) && IMPURE_DEPENDENCIES.contains(&dependency.as_str()) {
                findings.push(format!(
                    "crates/{name} is pure and must not use {dependency}"
                ));
            }
        }
        if PURE.contains(&name.as_str()) {
            let lints = read(&entry.path().join("clippy.toml")).unwrap_or_default();
            if !lints.contains("std::time::Instant::now") || !lints.contains("HashMap") {
                findings.push(format!(
                    "crates/{name} is pure and lacks clippy's disallowed lists"
                ));
            }
        }
        if manifest.get("lints").is_none() {
            findings.push(format!(
                "crates/{name}/Cargo.toml doesn't take the workspace's lints"
            ));
        }
    }
    drawing::check(&architecture, &edges_found, findings);
    Ok(())
}

/// The rules about who uses whom, and by which name.
fn sources(root: &Path, findings: &mut Vec<String>) -> Result<(), Failed> {
    let folder = root.join("crates");
    let entries = std::fs::read_dir(&folder)
        .map_err(|e| Failed::new("tidy", format!("{}: {e}", folder.display())))?;
    let mut folders: BTreeMap<String, PathBuf> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .map(|name| (name.clone(), Path::new("crates").join(name).join("src")))
        .collect();
    folders.insert("xtask".to_owned(), PathBuf::from("xtask/src"));
    let mut crates = BTreeMap::new();
    for (name, folder) in folders {
        let modules = source::modules(root, &folder)?;
        circles::check(&modules, findings);
        // Nobody can use what is a command alone.
        if root.join(&folder).join("lib.rs").is_file() {
            crates.insert(name, modules);
        }
    }
    names::check(&crates, findings);
    Ok(())
}

/// The files that git tracks, or would.
fn tracked(root: &Path) -> Result<Vec<PathBuf>, Failed> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .map_err(|e| Failed::new("tidy", format!("can't start git: {e}")))?;
    Ok(output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned()))
        .collect())
}

fn text(root: &Path, file: &Path, findings: &mut Vec<String>) {
    // Binary files, and files that were deleted a moment ago, have nothing to read.
    let Ok(content) = std::fs::read_to_string(root.join(file)) else {
        return;
    };
    let shown = file.display();
    let is_rust = file.extension().is_some_and(|e| e == "rs");
    let is_nix = file.extension().is_some_and(|e| e == "nix");
    let lines = content.lines().count();
    if (is_rust || is_nix) && lines > FILE_LINES_MAX {
        findings.push(format!("{shown}: {lines} lines; is it two things?"));
    }
    let folders: Vec<_> = file.iter().collect();
    let is_source = folders.iter().any(|part| *part == "src")
        && !folders
            .iter()
            .any(|part| *part == "tests" || *part == "tests.rs");
    if is_rust && is_source {
        functions::check(file, &content, findings);
    }
    for (number, line) in content.lines().enumerate() {
        let number = number + 1;
        for (a, b) in STRAY {
            if line.contains(&format!("{a}{b}")) && file != Path::new("Cargo.lock") {
                findings.push(format!("{shown}:{number}: stray path or host {a}{b}"));
            }
        }
        if is_rust || is_nix || file.extension().is_some_and(|e| e == "sh" || e == "md") {
            for (a, b) in UNFINISHED {
                if line.contains(&format!("{a}{b}")) {
                    findings.push(format!("{shown}:{number}: unfinished: {a}{b}"));
                }
            }
        }
        if is_rust && line.contains(&["#[ig", "nore"].concat()) {
            findings.push(format!(
                "{shown}:{number}: an ignored test; skip openly at run time"
            ));
        }
        if is_rust && line.trim_start().starts_with("#[allow(") && !line.contains("reason") {
            findings.push(format!(
                "{shown}:{number}: an allowed lint without its reason"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        let findings = check(&crate::run::repo_root()).unwrap();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn a_stray_path_and_a_long_file_are_found() {
        let dir = std::env::temp_dir().join(format!("tidy-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = Path::new("a.rs");
        let stray = format!("// see {}{}x\n#[allow(unused)]\n", "/wo", "rk/main");
        std::fs::write(dir.join(file), stray + &"\n".repeat(FILE_LINES_MAX)).unwrap();
        let mut findings = Vec::new();
        text(&dir, file, &mut findings);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(findings.len(), 3, "{findings:?}");
    }
}
